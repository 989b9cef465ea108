// What containers and pods have of cpu and memory, as numbers: what they are to have, what the runtime says, and whether that is the same.
import type { LinuxResources } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { millis, units } from '../../kube/scheduling/amounts.ts';
import {
  cpuShares,
  cpuWeight,
  type PodCgroupFacts,
  podCgroupResources,
  quotaToMilliCpu,
  sharesToMilliCpu,
} from './linux-resources.ts';
import { hasPodLevelResources, podLimits, podRequests } from '../../kube/scheduling/pod-resources.ts';

/** What a container, or a pod as a whole, has. CPU in millicores, memory in bytes; 0: none. */
export interface ActualResources {
  readonly cpuRequest: number;
  readonly cpuLimit: number;
  readonly memoryRequest: number;
  readonly memoryLimit: number;
}

/** What a container is to have; limits of the pod stand in for its own. */
export function wantedResources(pod: Pod, container: Container): ActualResources {
  const { requests, limits } = container.resources ?? {};
  const whole = hasPodLevelResources(pod) ? pod.spec.resources?.limits : undefined;
  const cpuLimit = millis(limits?.cpu) || millis(whole?.cpu);
  return {
    cpuRequest: requests?.cpu === undefined ? cpuLimit : millis(requests.cpu),
    cpuLimit,
    memoryRequest: units(requests?.memory),
    memoryLimit: units(limits?.memory) || units(whole?.memory),
  };
}

/** What the pod's own cgroup is to be set to; a limit that is not written to it is 0. */
export function wantedOfPod(pod: Pod, facts: PodCgroupFacts): ActualResources {
  const { cpuQuota, memoryLimit } = podCgroupResources(pod, facts);
  const requests = podRequests(pod);
  return {
    cpuRequest: requests.cpu ?? 0,
    cpuLimit: cpuQuota === undefined ? 0 : (podLimits(pod).cpu ?? 0),
    memoryRequest: requests.memory ?? 0,
    memoryLimit: memoryLimit ?? 0,
  };
}

export const equalActual = (one: ActualResources, other: ActualResources): boolean =>
  one.cpuRequest === other.cpuRequest &&
  one.cpuLimit === other.cpuLimit &&
  one.memoryRequest === other.memoryRequest &&
  one.memoryLimit === other.memoryLimit;

// Shares and weights are coarser than millicores: what the kernel cannot tell apart is the same.
const sameCpuRequest = (one: number, other: number): boolean =>
  one === other || cpuShares(one) === cpuShares(other) || cpuWeight(cpuShares(one)) === cpuWeight(cpuShares(other));

// A limit below the kernel's least quota (1 ms of 100) is raised to it.
const sameCpuLimit = (one: number, other: number): boolean =>
  one === other || (one > 0 && other > 0 && Math.max(one, 10) === Math.max(other, 10));

const pageBytes = 4096;
const sameMemory = (one: number, other: number): boolean =>
  one === other || (one > 0 && other > 0 && Math.trunc(one / pageBytes) === Math.trunc(other / pageBytes));

/**
 * What a container has for which no actuation is remembered. What the runtime says is rounded, and knows no memory request: it is taken for
 * the first of `candidates` (what it may have been given, most likely first) that it cannot be told from. Undefined where it is none of them.
 */
export function recognise(
  resources: LinuxResources,
  candidates: readonly ActualResources[],
): ActualResources | undefined {
  const cpuRequest = sharesToMilliCpu(resources.cpuShares ?? 0);
  const cpuLimit = quotaToMilliCpu(resources.cpuQuota ?? 0, resources.cpuPeriod ?? 0);
  const memoryLimit = resources.memoryLimitInBytes ?? 0;
  return candidates.find(
    (each) =>
      sameCpuRequest(each.cpuRequest, cpuRequest) &&
      sameCpuLimit(each.cpuLimit, cpuLimit) &&
      sameMemory(each.memoryLimit, memoryLimit),
  );
}

/** What the runtime says a container has; `memoryRequest` is what was last known of it. */
export const observedResources = (resources: LinuxResources, memoryRequest: number): ActualResources => ({
  cpuRequest: sharesToMilliCpu(resources.cpuShares ?? 0),
  cpuLimit: quotaToMilliCpu(resources.cpuQuota ?? 0, resources.cpuPeriod ?? 0),
  memoryRequest,
  memoryLimit: resources.memoryLimitInBytes ?? 0,
});
