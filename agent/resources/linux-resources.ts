// From millicores and bytes to what the kernel is told: shares, quota, limits of containers, sandboxes and pods.
import type { LinuxResources } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { amounts, hugepageSize, millis, units } from '../../kube/scheduling/amounts.ts';
import { isCriticalPod } from './critical.ts';
import { oomScoreAdj } from './oom-score.ts';
import { hasPodLevelResources, podLimits, podRequests } from '../../kube/scheduling/pod-resources.ts';
import { qosOf } from '../../kube/scheduling/qos.ts';

export const minShares = 2;
export const maxShares = 262_144;
export const defaultQuotaPeriodUs = 100_000;

/** Facts of the node and of its configuration that decide how resources are written. */
export interface ResourceFacts {
  readonly cgroupVersion: 1 | 2;
  /** KubeletConfiguration cpuCFSQuota; false writes no quota. */
  readonly cpuCfsQuota: boolean;
  /** KubeletConfiguration cpuCFSQuotaPeriod in microseconds. */
  readonly cpuCfsQuotaPeriodUs: number;
  /** KubeletConfiguration singleProcessOOMKill; undefined means its default, true on cgroup v1 and false on v2. */
  readonly singleProcessOomKill?: boolean | undefined;
  readonly memoryCapacityBytes: number;
  readonly swap: {
    /** Whether the kernel can limit swap per cgroup. */
    readonly available: boolean;
    readonly behavior: 'NoSwap' | 'LimitedSwap';
    readonly capacityBytes: number;
  };
  /** The kernel's sizes of huge pages, as `2MB`. */
  readonly hugepageSizes: readonly string[];
}

/** cpu.shares of a request in millicores. */
export function cpuShares(milliCpu: number): number {
  if (milliCpu <= 0) return minShares;
  return Math.min(maxShares, Math.max(minShares, Math.trunc((milliCpu * 1024) / 1000)));
}

/** Millicores of cpu.shares, rounded up. */
export const sharesToMilliCpu = (shares: number): number =>
  shares >= minShares ? Math.ceil((shares * 1000) / 1024) : 0;

/** The quota in microseconds of each period; 0 means no limit was given. */
export function cpuQuota(milliCpu: number, periodUs: number): number {
  if (milliCpu === 0) return 0;
  return Math.max(1000, Math.trunc((milliCpu * periodUs) / 1000));
}

export const quotaToMilliCpu = (quota: number, periodUs: number): number =>
  quota <= 0 || periodUs <= 0 ? 0 : Math.trunc((quota * 1000) / periodUs);

/** cpu.weight (1–10000) of cpu.shares, as Kubernetes maps them. */
export const cpuWeight = (shares: number): number =>
  shares >= maxShares ? 10_000 : 1 + Math.trunc(((Math.max(shares, minShares) - 2) * 9999) / 262_142);

export const weightToShares = (weight: number): number => Math.trunc(((weight - 1) * 262_142) / 9999) + 2;

interface Wanted {
  /** Millicores; undefined where nothing was requested: then the limit counts. */
  readonly cpuRequest: number | undefined;
  readonly cpuLimit: number;
  readonly memoryLimit: number;
}

function basics(wanted: Wanted, facts: ResourceFacts): LinuxResources {
  const singleProcess = facts.singleProcessOomKill ?? facts.cgroupVersion === 1;
  return {
    cpuShares: cpuShares(wanted.cpuRequest ?? wanted.cpuLimit),
    ...(wanted.memoryLimit > 0 ? { memoryLimitInBytes: wanted.memoryLimit } : {}),
    ...(facts.cpuCfsQuota
      ? { cpuQuota: cpuQuota(wanted.cpuLimit, facts.cpuCfsQuotaPeriodUs), cpuPeriod: facts.cpuCfsQuotaPeriodUs }
      : {}),
    ...(facts.cgroupVersion === 2 && !singleProcess ? { unified: { 'memory.oom.group': '1' } } : {}),
  };
}

/** Limits of every size of huge pages; what is not asked for is 0. */
function hugepages(pod: Pod, container: Container, facts: ResourceFacts): LinuxResources['hugepageLimits'] {
  const wanted = new Map<string, number>();
  for (const limits of [pod.spec.resources?.limits, container.resources?.limits])
    for (const [name, quantity] of Object.entries(limits ?? {})) {
      const size = hugepageSize(name);
      if (size !== undefined) wanted.set(size, units(quantity));
    }
  return facts.hugepageSizes.map((pageSize) => ({ pageSize, limit: wanted.get(pageSize) ?? 0 }));
}

function swapLimit(pod: Pod, container: Container, facts: ResourceFacts): number {
  const request = units(container.resources?.requests?.memory);
  const limit = units(container.resources?.limits?.memory);
  const may =
    facts.swap.behavior === 'LimitedSwap' &&
    facts.cgroupVersion === 2 &&
    !isCriticalPod(pod) &&
    qosOf(pod) === 'Burstable' &&
    (request > 0 || limit > 0) &&
    request !== limit &&
    facts.memoryCapacityBytes > 0 &&
    request <= facts.memoryCapacityBytes;
  return may ? Math.trunc((request / facts.memoryCapacityBytes) * facts.swap.capacityBytes) : 0;
}

function withSwap(resources: LinuxResources, pod: Pod, container: Container, facts: ResourceFacts): LinuxResources {
  if (!facts.swap.available) return resources;
  if (facts.cgroupVersion === 1)
    return resources.memoryLimitInBytes === undefined
      ? resources
      : { ...resources, memorySwapLimitInBytes: resources.memoryLimitInBytes };
  const limit = String(swapLimit(pod, container, facts));
  return { ...resources, unified: { ...resources.unified, 'memory.swap.max': limit } };
}

/** What the runtime is told of one container's resources, at its creation and when they are resized. */
export function containerResources(pod: Pod, container: Container, facts: ResourceFacts): LinuxResources {
  const own = container.resources;
  const podLevel = hasPodLevelResources(pod) ? pod.spec.resources?.limits : undefined;
  const request = own?.requests?.cpu;
  const resources = basics(
    {
      cpuRequest: request === undefined ? undefined : millis(request),
      cpuLimit: millis(own?.limits?.cpu) || millis(podLevel?.cpu),
      memoryLimit: units(own?.limits?.memory) || units(podLevel?.memory),
    },
    facts,
  );
  const all = {
    ...resources,
    oomScoreAdj: oomScoreAdj(pod, container, facts.memoryCapacityBytes),
    hugepageLimits: hugepages(pod, container, facts) ?? [],
  };
  return withSwap(all, pod, container, facts);
}

/** The pod's resources without overhead, which tell VM-based runtimes how large the sandbox must be. */
export function sandboxResources(pod: Pod, facts: ResourceFacts): LinuxResources {
  const requests = podRequests(pod, { withoutOverhead: true });
  const limits = podLimits(pod, { withoutOverhead: true });
  return basics({ cpuRequest: requests.cpu, cpuLimit: limits.cpu ?? 0, memoryLimit: limits.memory ?? 0 }, facts);
}

/** The RuntimeClass's overhead, taken as guaranteed; empty where the pod has none. */
export function overheadResources(pod: Pod, facts: ResourceFacts): LinuxResources {
  if (!pod.spec.overhead) return {};
  const { cpu = 0, memory = 0 } = amounts(pod.spec.overhead);
  return basics({ cpuRequest: cpu, cpuLimit: cpu, memoryLimit: memory }, facts);
}

/** What a cgroup is set to. Absent: left as it is. */
export interface CgroupResources {
  readonly cpuShares?: number;
  /** Microseconds; -1 or 0: unlimited. */
  readonly cpuQuota?: number;
  readonly cpuPeriod?: number;
  /** Bytes; 0 or -1: unlimited. */
  readonly memoryLimit?: number;
  readonly pidsLimit?: number;
  /** Bytes by size of page (`2MB`); Infinity: unlimited. */
  readonly hugepageLimits?: Readonly<Record<string, number>>;
  /** Files of cgroup v2, verbatim. */
  readonly unified?: Readonly<Record<string, string>>;
}

export interface PodCgroupFacts {
  /** False under cpuCFSQuota: false. */
  readonly cpuCfsQuota: boolean;
  readonly cpuCfsQuotaPeriodUs: number;
  readonly hugepageSizes: readonly string[];
  /** KubeletConfiguration podPidsLimit; 0 or less: none. */
  readonly podPidsLimit: number;
}

/** What a pod's own cgroup is set to. */
export function podCgroupResources(pod: Pod, facts: PodCgroupFacts): CgroupResources {
  const requests = podRequests(pod);
  // A limit of the pod is the sum of its containers' only where each of them has one.
  let cpuLimited = true;
  let memoryLimited = true;
  const limits = podLimits(pod, {
    each: (one) => {
      if (!one.cpu) cpuLimited = false;
      if (!one.memory) memoryLimited = false;
    },
  });
  if (millis(pod.spec.resources?.limits?.cpu) > 0) cpuLimited = true;
  if (units(pod.spec.resources?.limits?.memory) > 0) memoryLimited = true;
  const qos = qosOf(pod);
  const hugepageLimits: Record<string, number> = Object.fromEntries(facts.hugepageSizes.map((size) => [size, 0]));
  for (const [name, amount] of Object.entries(requests)) {
    const size = hugepageSize(name);
    if (size !== undefined) hugepageLimits[size] = (hugepageLimits[size] ?? 0) + amount;
  }
  const quota = facts.cpuCfsQuota ? cpuQuota(limits.cpu ?? 0, facts.cpuCfsQuotaPeriodUs) : -1;
  return {
    cpuShares: qos === 'BestEffort' ? minShares : cpuShares(requests.cpu ?? 0),
    ...(qos === 'Guaranteed' || (qos === 'Burstable' && cpuLimited)
      ? { cpuQuota: quota, cpuPeriod: facts.cpuCfsQuotaPeriodUs }
      : {}),
    ...(qos === 'Guaranteed' || (qos === 'Burstable' && memoryLimited) ? { memoryLimit: limits.memory ?? 0 } : {}),
    hugepageLimits,
    ...(facts.podPidsLimit > 0 ? { pidsLimit: facts.podPidsLimit } : {}),
  };
}
