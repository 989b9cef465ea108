// The statistics of the node: puts the look, the file systems and the pages together. Collected when they are asked for.
import { readFileSync } from 'node:fs';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerStats, SandboxId } from '../../cri/types.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { createCgroupReader } from './cgroup-reader.ts';
import type { Depth } from './cgroup-sample.ts';
import { createCollector, type Look, type StatsPods } from './collect.ts';
import { createCadvisor } from './cadvisor.ts';
import { createFilesystems, type Filesystems, type VolumeUsage } from './filesystems.ts';
import { resourcePage } from './resource-page.ts';
import { cpuAndMemorySummary, fullSummary, type SummaryInput } from './summary.ts';
import type { Summary } from './summary-types.ts';

export interface NodeStatsDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly runtime: Pick<Runtime, 'imageFilesystem' | 'listContainerStats'>;
  readonly pods: StatsPods;
  volumes(pod: Pod): Promise<readonly VolumeUsage[]>;
  /** What sandboxes are made of, `one` for example; where it is not given, or rejects, it is not shown. */
  sandboxImage?(one: SandboxId): Promise<string | undefined>;
}

export interface NodeStatsOptions {
  readonly nodeName: string;
  /** The agent's root folder: `/var/lib/kubelet`. */
  readonly rootFolder: string;
  /** `/var/log/pods`. */
  readonly podLogsFolder: string;
  /** Where cgroups are mounted. Default `/sys/fs/cgroup`. */
  readonly cgroupMount?: string;
  readonly proc?: string;
  /** The cgroup that holds all pods, `/kubepods` or `/kubepods.slice`. */
  readonly podsCgroup: string;
  /** The cgroups below it that hold the pods of a class of quality. */
  readonly qosCgroups?: readonly string[];
  /** Where proc, sys and etc are that say what the machine is. Default `/`. */
  readonly hostRoot?: string;
  /** `kubeletCgroups`; default: where this process is, unless that is the root. */
  readonly kubeletCgroup?: string;
  readonly runtimeCgroup?: string;
}

export interface NodeStats {
  summary(options: { readonly onlyCpuAndMemory: boolean }): Promise<Summary>;
  /** The node's part of the summary, without rates and without pods: what signals of eviction are made of. */
  nodeSummary(): Promise<Summary>;
  /** The text of /metrics/resource; never rejects. */
  resourcePage(): Promise<string>;
  /** The text of /metrics/cadvisor, in pieces. */
  cadvisorPage(): AsyncIterable<string>;
  /** For eviction: what summary is made of. */
  look(): Promise<Look>;
  readonly filesystems: Filesystems;
}

/** The cgroup of a process by its /proc/PID/cgroup, the memory controller's in v1; undefined for the root. */
export function cgroupOfProcess(text: string): string | undefined {
  const lines = text.split('\n').map((line) => line.split(':'));
  const memory = lines.find(([, controllers]) => controllers?.split(',').includes('memory'));
  const unified = lines.find(([id, controllers]) => id === '0' && controllers === '');
  const path = (memory ?? unified)?.slice(2).join(':');
  return path && path !== '/' ? path : undefined;
}

export function createNodeStats(deps: NodeStatsDeps, options: NodeStatsOptions): NodeStats {
  const { clock, log, runtime } = deps;
  const { proc = '/proc', cgroupMount = '/sys/fs/cgroup' } = options;
  const own = options.kubeletCgroup ?? cgroupOfProcess(readFileSync('/proc/self/cgroup', 'utf8'));
  const cgroups = createCgroupReader(cgroupMount);
  const collector = createCollector(
    { clock, cgroups, pods: deps.pods },
    {
      proc,
      levels: options.qosCgroups ?? [],
      systemCgroups: {
        ...(own ? { kubelet: own } : {}),
        ...(options.runtimeCgroup ? { runtime: options.runtimeCgroup } : {}),
        pods: options.podsCgroup,
      },
    },
  );
  const filesystems = createFilesystems(deps, options);
  const cadvisor = createCadvisor(
    { clock, log, cgroups, layers: filesystems.writableLayers, sandboxImage: deps.sandboxImage },
    { proc, hostRoot: options.hostRoot ?? '/', rootFolder: options.rootFolder },
  );

  const input = async (depth: Depth): Promise<SummaryInput> => {
    const look = await collector.look(depth);
    const runtimeStats = new Map<string, ContainerStats>();
    if (look.pods.some((pod) => pod.unseen.length > 0)) {
      try {
        for (const stats of await runtime.listContainerStats({}, { timeoutMs: 10_000 }))
          runtimeStats.set(stats.id, stats);
      } catch (error) {
        log.warn('the runtime did not tell what containers outside our cgroups use', { error });
      }
    }
    return { look, nodeName: options.nodeName, proc, runtimeStats };
  };

  return {
    filesystems,
    look: () => collector.look(),
    summary: async ({ onlyCpuAndMemory }) =>
      onlyCpuAndMemory ? cpuAndMemorySummary(await input('full')) : await fullSummary(await input('full'), filesystems),
    nodeSummary: () =>
      fullSummary(
        { look: collector.lookAtNode(), nodeName: options.nodeName, proc, runtimeStats: new Map() },
        filesystems,
      ),
    async resourcePage() {
      try {
        const given = await input('core');
        return resourcePage(cpuAndMemorySummary(given), given.look.timeMs);
      } catch (error) {
        log.error('cannot collect the resource metrics', { error });
        return resourcePage(undefined, clock.now());
      }
    },
    async *cadvisorPage() {
      yield* cadvisor.page(await collector.look());
    },
  };
}
