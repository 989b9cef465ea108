// One look at everything that runs on the node: the host, its system cgroups, each pod, its sandbox and its containers. Taken when somebody
// asks, kept for a moment, never polled; the processor's rate is what was used since the look before.
import type { Clock } from '../../lib/clock.ts';
import type { ContainerId, SandboxId } from '../../cri/types.ts';
import type { ContainerStatus, Pod } from '../../kube/types/pod.ts';
import type { CgroupReader } from './cgroup-reader.ts';
import type { CgroupSample, Depth } from './cgroup-sample.ts';
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
  /** The cgroups between that of all pods and a pod's, of their classes of quality. Default none. */
  readonly levels?: readonly string[];
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
  readonly sandbox: (Usage & { readonly id: SandboxId }) | undefined;
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
  /** Of classes of quality; empty in a core look. */
  readonly levels: readonly Usage[];
  readonly pods: readonly PodUsage[];
  readonly hostInterfaces: readonly InterfaceCounters[];
}

export interface Collector {
  /**
   * `core` leaves out sandboxes, networks and all but processor, memory and swap: a quarter of the files. Where a full look is at hand it
   * serves.
   */
  look(depth?: Depth): Promise<Look>;
  /** The node alone, without pods and rates: a few files where a look reads a dozen for each container. */
  lookAtNode(): Look;
}

/** How long limits serve again while the pod is not seen to change. */
const limitsMs = 60_000;
const maxRenewals = 64;
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

/** What is remembered of a cgroup from one look to the next. */
interface CgroupMemory {
  readonly owner: string;
  readonly sample: CgroupSample;
  readonly rate:
    | { readonly timeMs: number; readonly usageNs: number; readonly nanoCores: number | undefined }
    | undefined;
  /** The number of the look that saw it last. */
  readonly seen: number;
}

export function createCollector(deps: CollectDeps, options: CollectOptions): Collector {
  const { clock, cgroups, pods } = deps;
  const { proc = '/proc', freshMs = 1_000 } = options;
  const paths = new Map<string, string>();
  const pids = new Map<string, number>();
  const cgroupsSeen = new Map<string, CgroupMemory>();
  const versions = new Map<string, string | undefined>();
  // Held weakly: between two scrapes nobody needs it, and it is large.
  const last = new Map<Depth, { atMs: number; look: WeakRef<Look> }>();
  const running = new Map<Depth, Promise<Look>>();
  let looks = 0;
  let renewalsLeft = 0;

  const rateOf = (known: CgroupMemory | undefined, sample: CgroupSample): CgroupMemory['rate'] => {
    if (!sample.cpu) return undefined;
    const { usageNs } = sample.cpu;
    const before = known?.rate;
    const sinceMs = before ? sample.timeMs - before.timeMs : 0;
    if (before && sinceMs >= 0 && sinceMs < minRateMs && usageNs >= before.usageNs) return before;
    const nanoCores =
      before && sinceMs > 0 && usageNs >= before.usageNs
        ? Math.round(((usageNs - before.usageNs) / sinceMs) * 1000)
        : undefined;
    return { timeMs: sample.timeMs, usageNs, nanoCores };
  };

  /** `owner`: the pod's uid. `changed`: the pod has another version than at the look before. */
  const read = (number: number, path: string, depth: Depth, owner = '', changed = false): Usage | undefined => {
    const nowMs = clock.now();
    const known = cgroupsSeen.get(path);
    const before = known?.sample;
    const age = before ? Math.abs(nowMs - before.limitsAtMs) : Number.POSITIVE_INFINITY;
    // Those that were read in one look are not all read again in one.
    const young = age < limitsMs || (age < 2 * limitsMs && --renewalsLeft < 0);
    const sample = cgroups.read(path, nowMs, { depth, before, keepLimits: young && !changed });
    if (!sample) return undefined;
    const rate = rateOf(known, sample);
    // A core look says too little for a full one to go by.
    const kept = depth === 'core' && before?.depth === 'full' && young && !changed ? before : sample;
    cgroupsSeen.set(path, { owner, sample: kept, rate, seen: number });
    return { path, sample, nanoCores: rate?.nanoCores };
  };

  const take = async (depth: Depth): Promise<Look> => {
    const slicer = createSlicer();
    const timeMs = clock.now();
    const number = ++looks;
    renewalsLeft = maxRenewals;
    const host = readHost(proc);

    const ids = new Set<string>();
    const podUsage = (pod: Pod): PodUsage => {
      const uid = pod.metadata.uid ?? '';
      const podPath = pods.cgroup(pod);
      const known = pods.sandbox(uid);
      const changed = versions.has(uid) && versions.get(uid) !== pod.metadata.resourceVersion;
      versions.set(uid, pod.metadata.resourceVersion);
      const inPod = (id: string): Usage | undefined => {
        ids.add(id);
        if (podPath === undefined) return undefined;
        const path = paths.get(id);
        for (const candidate of path === undefined ? candidates(podPath, id) : [path]) {
          const usage = read(number, candidate, depth, uid, changed);
          if (!usage) continue;
          paths.set(id, candidate);
          return usage;
        }
        return undefined;
      };
      const containers: ContainerUsage[] = [];
      const unseen: { name: string; id: string; startedAtMs: number }[] = [];
      for (const status of statusesOf(pod)) {
        const container = pods.container(uid, status.name);
        if (container?.state !== 'running') continue;
        const startedAtMs = Date.parse(status.state?.running?.startedAt ?? '') || 0;
        const usage = inPod(container.id);
        if (usage) containers.push({ ...usage, name: status.name, id: container.id, image: status.image, startedAtMs });
        else unseen.push({ name: status.name, id: container.id, startedAtMs });
      }
      const usage = podPath === undefined ? undefined : read(number, podPath, depth, uid, changed);
      if (known) ids.add(known.id);
      if (depth === 'core') return { pod, usage, sandbox: undefined, containers, unseen, interfaces: [] };
      const sandboxUsage = known && inPod(known.id);
      return {
        pod,
        usage,
        sandbox: sandboxUsage && known ? { ...sandboxUsage, id: known.id } : undefined,
        containers,
        unseen,
        interfaces: pod.spec.hostNetwork === true ? [] : interfacesOf(known?.id, sandboxUsage, containers),
      };
    };

    const found: PodUsage[] = [];
    const owners = new Set(['']);
    for (const pod of pods.pods()) {
      const phase = pod.status?.phase;
      if (phase !== 'Succeeded' && phase !== 'Failed') {
        owners.add(pod.metadata.uid ?? '');
        const usage = podUsage(pod);
        if (usage.usage || usage.sandbox || usage.containers.length > 0 || usage.unseen.length > 0) found.push(usage);
      }
      await slicer.breathe();
    }
    const system = Object.entries(options.systemCgroups).flatMap(([name, path]) => {
      const usage = read(number, path, depth);
      return usage ? [{ ...usage, name }] : [];
    });
    const look: Look = {
      timeMs,
      host,
      root: read(number, '/', depth),
      system,
      levels: depth === 'core' ? [] : (options.levels ?? []).flatMap((path) => read(number, path, depth) ?? []),
      pods: found,
      hostInterfaces: depth === 'core' ? [] : readInterfaces(proc, 1),
    };
    for (const [path, { owner, seen }] of cgroupsSeen)
      if (!owners.has(owner) || (depth === 'full' && seen < number)) cgroupsSeen.delete(path);
    for (const uid of versions.keys()) if (!owners.has(uid)) versions.delete(uid);
    for (const id of paths.keys()) if (!ids.has(id)) paths.delete(id);
    for (const id of pids.keys()) if (!ids.has(id)) pids.delete(id);
    return look;
  };

  /** By a process that is in the pod's network. A sandbox's own process is its first one until the sandbox is empty. */
  const interfacesOf = (
    sandboxId: string | undefined,
    sandbox: Usage | undefined,
    containers: readonly Usage[],
  ): readonly InterfaceCounters[] => {
    const lives = sandboxId !== undefined && sandbox !== undefined && (sandbox.sample.processes?.current ?? 0) > 0;
    const known = lives ? pids.get(sandboxId) : undefined;
    const first = known ?? (sandbox && cgroups.firstPid(sandbox.path));
    if (lives && first !== undefined) pids.set(sandboxId, first);
    const pid = first ?? containers.map((one) => cgroups.firstPid(one.path)).find(Boolean);
    if (pid === undefined) return [];
    return readInterfaces(proc, pid);
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
      levels: [],
      pods: [],
      hostInterfaces: [],
    };
  };

  return {
    lookAtNode,
    async look(depth = 'full') {
      for (const enough of depth === 'core' ? (['core', 'full'] as const) : (['full'] as const)) {
        const found = last.get(enough);
        const look = found && clock.monotonicMs() - found.atMs < freshMs ? found.look.deref() : undefined;
        if (look) return look;
        const taken = running.get(enough);
        if (taken) return await taken;
      }
      const taken = take(depth)
        .then((look) => {
          last.set(depth, { atMs: clock.monotonicMs(), look: new WeakRef(look) });
          return look;
        })
        .finally(() => running.delete(depth));
      running.set(depth, taken);
      return await taken;
    },
  };
}
