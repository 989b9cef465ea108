// One look at everything that runs on the node: the host, its system cgroups, each pod, its sandbox and its containers. Taken when somebody
// asks, kept for a moment, never polled; the processor's rate is what was used since the look before.
import type { Clock } from '../../lib/clock.ts';
import type { ContainerId, SandboxId } from '../../cri/types.ts';
import type { ContainerStatus, Pod } from '../../kube/types/pod.ts';
import type { CgroupReader, CgroupSample } from './cgroup-reader.ts';
import { type HostFacts, type InterfaceCounters, readHost, readInterfaces } from './proc.ts';
import { createSlicer } from './pseudo-files.ts';

/** What the statistics ask of the agent's pods. */
export interface StatsPods {
  pods(): readonly Pod[];
  container(uid: string, name: string): { readonly id: ContainerId; readonly state: string } | undefined;
  sandbox(uid: string): { readonly id: SandboxId } | undefined;
  /** The pod's cgroup as a path in the cgroup file systems, `/kubepods/burstable/pod…`; undefined where it has none. */
  cgroup(pod: Pod): string | undefined;
}

export interface CollectDeps {
  readonly clock: Clock;
  readonly cgroups: CgroupReader;
  readonly pods: StatsPods;
}

export interface CollectOptions {
  /** Default `/proc`. */
  readonly proc?: string;
  /** System cgroups by the name they are shown under: `kubelet`, `runtime`, `pods`, `misc`. */
  readonly systemCgroups: Readonly<Record<string, string>>;
  /** A look younger than this serves again. Default 1,000. */
  readonly freshMs?: number;
}

export interface Usage {
  readonly path: string;
  readonly sample: CgroupSample;
  /** Nanocores since the look before; undefined at the first. */
  readonly nanoCores: number | undefined;
}

export interface ContainerUsage extends Usage {
  readonly name: string;
  readonly id: string;
  readonly image: string;
  readonly startedAtMs: number;
}

export interface PodUsage {
  readonly pod: Pod;
  readonly usage: Usage | undefined;
  readonly sandbox: (Usage & { readonly id: string }) | undefined;
  readonly containers: readonly ContainerUsage[];
  /** Containers that run in no cgroup we see (in a VM, for one). */
  readonly unseen: readonly { readonly name: string; readonly id: string; readonly startedAtMs: number }[];
  /** Empty under host network. */
  readonly interfaces: readonly InterfaceCounters[];
}

export interface Look {
  readonly timeMs: number;
  readonly host: HostFacts;
  readonly root: Usage | undefined;
  readonly system: readonly (Usage & { readonly name: string })[];
  readonly pods: readonly PodUsage[];
  readonly hostInterfaces: readonly InterfaceCounters[];
}

export interface Collector {
  look(): Promise<Look>;
  /** The node alone, without pods and rates: a few files where a look reads a dozen for each container. */
  lookAtNode(): Look;
}

/** Rates over less than this are noise. */
const minRateMs = 500;

/** Where the runtime puts a container under its pod's cgroup, by driver and runtime. */
const candidates = (podPath: string, id: string): string[] =>
  podPath.endsWith('.slice')
    ? [`${podPath}/cri-containerd-${id}.scope`, `${podPath}/crio-${id}.scope`, `${podPath}/docker-${id}.scope`]
    : [`${podPath}/${id}`, `${podPath}/crio-${id}`];

const statusesOf = (pod: Pod): ContainerStatus[] => [
  ...(pod.status?.initContainerStatuses ?? []),
  ...(pod.status?.containerStatuses ?? []),
  ...(pod.status?.ephemeralContainerStatuses ?? []),
];

export function createCollector(deps: CollectDeps, options: CollectOptions): Collector {
  const { clock, cgroups, pods } = deps;
  const { proc = '/proc', freshMs = 1_000 } = options;
  const paths = new Map<string, string>();
  let rates = new Map<string, { timeMs: number; usageNs: number; nanoCores: number | undefined }>();
  let last: { atMs: number; look: Look } | undefined;
  let running: Promise<Look> | undefined;

  const take = async (): Promise<Look> => {
    const slicer = createSlicer();
    const timeMs = clock.now();
    const nextRates: typeof rates = new Map();
    const host = readHost(proc);

    const usageOf = (path: string, sample: CgroupSample): Usage => {
      if (!sample.cpu) return { path, sample, nanoCores: undefined };
      const before = rates.get(path);
      const { usageNs } = sample.cpu;
      const sinceMs = before ? sample.timeMs - before.timeMs : 0;
      if (before && sinceMs >= 0 && sinceMs < minRateMs && usageNs >= before.usageNs) {
        nextRates.set(path, before);
        return { path, sample, nanoCores: before.nanoCores };
      }
      const nanoCores =
        before && sinceMs > 0 && usageNs >= before.usageNs
          ? Math.round(((usageNs - before.usageNs) / sinceMs) * 1000)
          : undefined;
      nextRates.set(path, { timeMs: sample.timeMs, usageNs, nanoCores });
      return { path, sample, nanoCores };
    };

    const read = (path: string): Usage | undefined => {
      const sample = cgroups.read(path, clock.now());
      return sample && usageOf(path, sample);
    };

    const inPod = (podPath: string, id: string): Usage | undefined => {
      const known = paths.get(id);
      for (const path of known === undefined ? candidates(podPath, id) : [known]) {
        const usage = read(path);
        if (!usage) continue;
        paths.set(id, path);
        return usage;
      }
      return undefined;
    };

    const ids = new Set<string>();
    const podUsage = (pod: Pod): PodUsage => {
      const uid = pod.metadata.uid ?? '';
      const podPath = pods.cgroup(pod);
      const known = pods.sandbox(uid);
      const containers: ContainerUsage[] = [];
      const unseen: { name: string; id: string; startedAtMs: number }[] = [];
      for (const status of statusesOf(pod)) {
        const container = pods.container(uid, status.name);
        if (container?.state !== 'running') continue;
        ids.add(container.id);
        const startedAtMs = Date.parse(status.state?.running?.startedAt ?? '') || 0;
        const usage = podPath === undefined ? undefined : inPod(podPath, container.id);
        if (usage) containers.push({ ...usage, name: status.name, id: container.id, image: status.image, startedAtMs });
        else unseen.push({ name: status.name, id: container.id, startedAtMs });
      }
      const sandboxUsage = known && podPath !== undefined ? inPod(podPath, known.id) : undefined;
      if (known) ids.add(known.id);
      const pid =
        pod.spec.hostNetwork === true
          ? undefined
          : [sandboxUsage, ...containers].map((usage) => usage && cgroups.firstPid(usage.path)).find(Boolean);
      return {
        pod,
        usage: podPath === undefined ? undefined : read(podPath),
        sandbox: sandboxUsage && known ? { ...sandboxUsage, id: known.id } : undefined,
        containers,
        unseen,
        interfaces: pid === undefined ? [] : readInterfaces(proc, pid),
      };
    };

    const found: PodUsage[] = [];
    for (const pod of pods.pods()) {
      const phase = pod.status?.phase;
      if (phase !== 'Succeeded' && phase !== 'Failed') {
        const usage = podUsage(pod);
        if (usage.usage || usage.sandbox || usage.containers.length > 0 || usage.unseen.length > 0) found.push(usage);
      }
      await slicer.breathe();
    }
    const system = Object.entries(options.systemCgroups).flatMap(([name, path]) => {
      const usage = read(path);
      return usage ? [{ ...usage, name }] : [];
    });
    const look: Look = {
      timeMs,
      host,
      root: read('/'),
      system,
      pods: found,
      hostInterfaces: readInterfaces(proc, 1),
    };
    rates = nextRates;
    for (const id of paths.keys()) if (!ids.has(id)) paths.delete(id);
    return look;
  };

  const lookAtNode = (): Look => {
    const timeMs = clock.now();
    const read = (path: string): Usage[] => {
      const sample = cgroups.read(path, timeMs);
      return sample ? [{ path, sample, nanoCores: undefined }] : [];
    };
    return {
      timeMs,
      host: readHost(proc),
      root: undefined,
      system: Object.entries(options.systemCgroups).flatMap(([name, path]) =>
        read(path).map((usage) => ({ ...usage, name })),
      ),
      pods: [],
      hostInterfaces: [],
    };
  };

  return {
    lookAtNode,
    async look() {
      if (last && clock.monotonicMs() - last.atMs < freshMs) return last.look;
      running ??= take()
        .then((look) => {
          last = { atMs: clock.monotonicMs(), look };
          return look;
        })
        .finally(() => {
          running = undefined;
        });
      return await running;
    },
  };
}
