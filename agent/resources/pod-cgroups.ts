// The cgroups of pods: kubepods, its Burstable and BestEffort levels, and one for each pod, in which the runtime makes those of containers.
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { sliceProperties } from './cgroup-files.ts';
import {
  type CgroupDriver,
  type CgroupName,
  cgroupPath,
  parseCgroupRoot,
  podPrefix,
  podUidOf,
  sliceName,
} from './cgroup-names.ts';
import type { CgroupTree } from './cgroup-tree.ts';
import {
  type CgroupResources,
  cpuShares,
  minShares,
  type PodCgroupFacts,
  podCgroupResources,
  quotaToMilliCpu,
  sharesToMilliCpu,
  weightToShares,
} from './linux-resources.ts';
import { podRequests } from '../../kube/scheduling/pod-resources.ts';
import { type QosClass, qosOf } from '../../kube/scheduling/qos.ts';
import type { SystemdSlices } from './systemd-slices.ts';

export interface PodCgroupsDeps {
  readonly tree: CgroupTree;
  /** With the systemd driver only. */
  readonly slices?: SystemdSlices | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** Each cgroup that was made, changed or removed, and how long it took in milliseconds; for a metric. */
  readonly took?: ((operation: 'create' | 'update' | 'destroy', tookMs: number) => void) | undefined;
  /** Ends a process; default process.kill with SIGKILL. */
  readonly kill?: (pid: number) => void;
}

export interface PodCgroupsOptions extends PodCgroupFacts {
  readonly driver: CgroupDriver;
  readonly version: 1 | 2;
  /** KubeletConfiguration cgroupRoot; `/` or empty for the root. Each agent on a machine needs its own. */
  readonly root: string;
  /** KubeletConfiguration cgroupsPerQOS; false: no cgroups are made, and containers go into `root`. */
  readonly perQos: boolean;
}

/** What all pods together may use; under enforceNodeAllocatable the allocatable before eviction thresholds, else the capacity. */
export interface NodeLimits {
  readonly cpuMilli: number;
  readonly memoryBytes: number;
  /** Absent: not limited. */
  readonly pids?: number | undefined;
}

/** What a pod's cgroup is set to now, as the kernel says. Undefined: not limited. */
export interface PodCgroupConfig {
  readonly cpuRequestMilli: number | undefined;
  readonly cpuLimitMilli: number | undefined;
  readonly memoryLimitBytes: number | undefined;
}

export interface PodCgroups {
  /**
   * Makes the levels above the pods. Idempotent. Resolves with what could not be enforced, for an Event FailedNodeAllocatableEnforcement
   * (pods may use more than a new limit: call again in a minute); rejects where cgroups cannot be made at all.
   */
  prepare(limits: NodeLimits): Promise<{ readonly problem?: string }>;
  /** Gives the Burstable level shares for what its pods request together. Call it when the set of pods has changed. */
  balance(pods: readonly Pod[]): Promise<void>;
  /** Makes the pod's cgroup with its limits. Idempotent; does not touch the limits of one that is there. */
  ensure(pod: Pod): Promise<void>;
  /** Sets limits of a pod that is there, for a resize. */
  update(pod: Pod, resources: CgroupResources): Promise<void>;
  configOf(pod: Pod): Promise<PodCgroupConfig>;
  /** The cgroup that holds those of all pods, as a path in the cgroup file systems. */
  readonly podsPath: string;
  /** Those below it that hold the pods of the classes Burstable and BestEffort; empty where pods are not told apart. */
  readonly qosPaths: readonly string[];
  /** What `cgroupParent` of the sandbox's configuration is. */
  parentFor(pod: Pod): string;
  /**
   * Removes the pod's cgroup, in whichever class, and everything below. Processes still in it are killed: call it when the containers are
   * gone. Tries for about a second; false where it could not be removed yet.
   */
  remove(uid: string): Promise<boolean>;
  /** Kills all processes of a pod, its sandbox's too, without the runtime. Resolves with how many were there. */
  killProcesses(uid: string): Promise<number>;
  /** The uids of all pods that have a cgroup. */
  list(): Promise<string[]>;
  /** Limits a cgroup that somebody else made: kubeReservedCgroup, systemReservedCgroup. Rejects where it is not there. */
  limitExisting(path: string, resources: CgroupResources): Promise<void>;
}

const none: PodCgroupConfig = { cpuRequestMilli: undefined, cpuLimitMilli: undefined, memoryLimitBytes: undefined };
const removeDelaysMs = [5, 10, 20, 40, 80, 160, 320, 320];

export function createPodCgroups(deps: PodCgroupsDeps, options: PodCgroupsOptions): PodCgroups {
  const { tree, log } = deps;
  const { driver, version } = options;
  const kill = deps.kill ?? ((pid: number) => void process.kill(pid, 'SIGKILL'));
  const root = parseCgroupRoot(options.root);
  const kubepods: CgroupName = [...root, 'kubepods'];
  const levels: Readonly<Record<QosClass, CgroupName>> = {
    Guaranteed: kubepods,
    Burstable: [...kubepods, 'burstable'],
    BestEffort: [...kubepods, 'besteffort'],
  };
  const pathOf = (name: CgroupName): string => cgroupPath(name, driver);
  const nameOf = (pod: Pod): CgroupName => [...levels[qosOf(pod)], `${podPrefix}${pod.metadata.uid ?? ''}`];
  const unlimitedPages = Object.fromEntries(options.hugepageSizes.map((size) => [size, Number.POSITIVE_INFINITY]));
  let burstableShares: number | undefined;

  const timed = async <T>(operation: 'create' | 'update' | 'destroy', work: () => Promise<T>): Promise<T> => {
    const begunMs = deps.clock.monotonicMs();
    try {
      return await work();
    } finally {
      deps.took?.(operation, deps.clock.monotonicMs() - begunMs);
    }
  };

  const make = (name: CgroupName, resources: CgroupResources): Promise<void> =>
    timed('create', () => makeNow(name, resources));
  const set = (name: CgroupName, resources: CgroupResources): Promise<void> =>
    timed('update', () => setNow(name, resources));

  const makeNow = async (name: CgroupName, resources: CgroupResources): Promise<void> => {
    if (driver === 'systemd')
      await deps.slices?.start(sliceName(name), `stevedore ${name.join('/')}`, sliceProperties(resources, version));
    // systemd makes the folders of the controllers it manages; the others are ours.
    await tree.make(pathOf(name));
    await tree.set(pathOf(name), resources);
  };

  const setNow = async (name: CgroupName, resources: CgroupResources): Promise<void> => {
    if (driver === 'systemd') await deps.slices?.set(sliceName(name), sliceProperties(resources, version));
    await tree.set(pathOf(name), resources);
  };

  /** Resolves with those that were there. */
  const killIn = async (path: string): Promise<number[]> => {
    const found = (await tree.processes(path)).filter((pid) => pid !== process.pid);
    for (const pid of found)
      try {
        kill(pid);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    return found;
  };

  const removeOne = async (name: CgroupName): Promise<boolean> => {
    const path = pathOf(name);
    if (!(await tree.exists(path, 'somewhere'))) return true;
    return timed('destroy', () => removeNow(name, path));
  };

  const removeNow = async (name: CgroupName, path: string): Promise<boolean> => {
    if (driver === 'systemd')
      await deps.slices
        ?.stop(sliceName(name))
        .catch((error: unknown) => log.debug('slice not stopped', { path, error }));
    for (const delayMs of removeDelaysMs) {
      if (await tree.remove(path)) return true;
      for (const pid of await killIn(path))
        log.warn('a process was left in the cgroup of a pod that has ended; it is killed', { path, pid });
      await deps.clock.sleep(delayMs);
    }
    return tree.remove(path);
  };

  const number = (text: string | undefined): number | undefined =>
    text === undefined || text === '' || text === 'max' || text.startsWith('-') ? undefined : Number(text);

  const configV1 = async (path: string): Promise<PodCgroupConfig> => {
    const [shares, quota, period, memory] = await Promise.all([
      tree.read(path, 'cpu', 'cpu.shares'),
      tree.read(path, 'cpu', 'cpu.cfs_quota_us'),
      tree.read(path, 'cpu', 'cpu.cfs_period_us'),
      tree.read(path, 'memory', 'memory.limit_in_bytes'),
    ]);
    const limit = number(memory);
    return {
      cpuRequestMilli: shares === undefined ? undefined : sharesToMilliCpu(Number(shares)),
      cpuLimitMilli: number(quota) === undefined ? undefined : quotaToMilliCpu(Number(quota), Number(period)),
      // The kernel says "unlimited" as the largest multiple of a page.
      memoryLimitBytes: limit === undefined || limit > 2 ** 62 ? undefined : limit,
    };
  };

  const configV2 = async (path: string): Promise<PodCgroupConfig> => {
    const [weight, cpu, memory] = await Promise.all([
      tree.read(path, 'cpu', 'cpu.weight'),
      tree.read(path, 'cpu', 'cpu.max'),
      tree.read(path, 'memory', 'memory.max'),
    ]);
    const [quota, period] = (cpu ?? '').split(' ');
    return {
      cpuRequestMilli: weight === undefined ? undefined : sharesToMilliCpu(weightToShares(Number(weight))),
      cpuLimitMilli: number(quota) === undefined ? undefined : quotaToMilliCpu(Number(quota), Number(period)),
      memoryLimitBytes: number(memory),
    };
  };

  return {
    async prepare(limits) {
      if (!options.perQos) return {};
      const cpu: CgroupResources = { cpuShares: cpuShares(limits.cpuMilli) };
      if (root.length > 0) for (let depth = 1; depth <= root.length; depth++) await make(root.slice(0, depth), {});
      await make(kubepods, cpu);
      await make(levels.Burstable, {
        ...(burstableShares === undefined ? {} : { cpuShares: burstableShares }),
        hugepageLimits: unlimitedPages,
      });
      await make(levels.BestEffort, { cpuShares: minShares, hugepageLimits: unlimitedPages });
      try {
        await set(kubepods, {
          memoryLimit: limits.memoryBytes,
          ...(limits.pids === undefined ? {} : { pidsLimit: limits.pids }),
        });
        return {};
      } catch (error) {
        const detail = error instanceof Error ? error.message : String(error);
        return {
          problem: `Failed to update Node Allocatable Limits [${kubepods.map((part) => JSON.stringify(part)).join(' ')}]: ${detail}`,
        };
      }
    },
    async balance(pods) {
      if (!options.perQos) return;
      const burstable = pods.filter((pod) => qosOf(pod) === 'Burstable');
      const shares = cpuShares(burstable.reduce((sum, pod) => sum + (podRequests(pod).cpu ?? 0), 0));
      if (shares === burstableShares) return;
      await set(levels.Burstable, { cpuShares: shares });
      burstableShares = shares;
    },
    async ensure(pod) {
      if (!options.perQos) return;
      const name = nameOf(pod);
      if (await tree.exists(pathOf(name), 'everywhere')) return;
      await make(name, podCgroupResources(pod, options));
    },
    async update(pod, resources) {
      if (options.perQos) await set(nameOf(pod), resources);
    },
    configOf: async (pod) => {
      if (!options.perQos) return none;
      return version === 2 ? configV2(pathOf(nameOf(pod))) : configV1(pathOf(nameOf(pod)));
    },
    podsPath: pathOf(options.perQos ? kubepods : root),
    qosPaths: options.perQos ? [pathOf(levels.Burstable), pathOf(levels.BestEffort)] : [],
    parentFor: (pod) => pathOf(options.perQos ? nameOf(pod) : root),
    async remove(uid) {
      if (!options.perQos || uid === '') return true;
      const all = Object.values(levels).map((level) => removeOne([...level, `${podPrefix}${uid}`]));
      return (await Promise.all(all)).every(Boolean);
    },
    async killProcesses(uid) {
      if (!options.perQos || uid === '') return 0;
      const all = Object.values(levels).map((level) => killIn(pathOf([...level, `${podPrefix}${uid}`])));
      return (await Promise.all(all)).flat().length;
    },
    async list() {
      if (!options.perQos) return [];
      const folders = await Promise.all(Object.values(levels).map((level) => tree.children(pathOf(level))));
      const uids = folders.flat().flatMap((folder) => podUidOf(folder, driver) ?? []);
      return [...new Set(uids)];
    },
    async limitExisting(path, resources) {
      const name = parseCgroupRoot(path);
      if (!(await tree.exists(pathOf(name), 'somewhere'))) throw new Error(`the cgroup ${pathOf(name)} does not exist`);
      await set(name, resources);
    },
  };
}
