// In-place resize: what a pod asks for now (spec), what the node has promised it (allocated), and what its containers have (actual).
//
//   spec ≠ allocated ──room──▶ allocated = spec ──▶ actuate ──▶ actual = allocated
//          └─no room─▶ PodResizePending (Deferred; tried again when room comes) or Infeasible (never)
import type { LinuxResources } from '../../cri/types.ts';
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Container, ContainerStatus, Pod, ResourceRequirements } from '../../kube/types/pod.ts';
import { millis, units } from './amounts.ts';
import { cpuShares, cpuWeight, quotaToMilliCpu, type ResourceFacts, sharesToMilliCpu } from './linux-resources.ts';
import { hasPodLevelResources, isSidecar } from './pod-resources.ts';
import { qosOf } from './qos.ts';
import { isCriticalPod } from './critical.ts';

/** Resources by container's name. */
export type Allocation = ReadonlyMap<string, ResourceRequirements>;

const resized = ['cpu', 'memory'] as const;
type Resized = (typeof resized)[number];

const amount = (name: Resized, list: ResourceList | undefined): number =>
  name === 'cpu' ? millis(list?.cpu) : units(list?.memory);

const sameList = (one: ResourceList | undefined, other: ResourceList | undefined): boolean =>
  resized.every((name) => amount(name, one) === amount(name, other));

const sameResources = (one: ResourceRequirements | undefined, other: ResourceRequirements | undefined): boolean =>
  sameList(one?.requests, other?.requests) && sameList(one?.limits, other?.limits);

/** Containers whose cpu and memory may change while they run. */
export const resizable = (pod: Pod): readonly Container[] => [
  ...(pod.spec.initContainers ?? []).filter(isSidecar),
  ...pod.spec.containers,
];

/** What the spec asks for, as an allocation. */
export const allocationOf = (pod: Pod): Allocation =>
  new Map(resizable(pod).map((container) => [container.name, container.resources ?? {}]));

/**
 * What was allocated before the agent was restarted, from the status it wrote: requests from allocatedResources, limits from what was
 * actuated. Containers that have no status yet have what their spec asks for.
 */
export function allocationFromStatus(pod: Pod): Allocation {
  const statuses = new Map<string, ContainerStatus>(
    [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])].map((each) => [
      each.name,
      each,
    ]),
  );
  const pick = (own: ResourceList | undefined, shown: ResourceList | undefined): ResourceList => {
    const list: ResourceList = { ...own };
    for (const name of resized) {
      const value = shown?.[name];
      if (value !== undefined) list[name] = value;
    }
    return list;
  };
  return new Map(
    resizable(pod).map((container) => {
      const status = statuses.get(container.name);
      const own = container.resources ?? {};
      if (!status?.allocatedResources && !status?.resources) return [container.name, own];
      return [
        container.name,
        {
          ...own,
          requests: pick(own.requests, status.allocatedResources ?? status.resources?.requests),
          limits: pick(own.limits, status.resources?.limits),
        },
      ];
    }),
  );
}

/** The pod with what is allocated to it in place of what it asks for: what the cgroups, the runtime and admission are to go by. */
export function withAllocation(pod: Pod, allocation: Allocation): Pod {
  const apply = (container: Container): Container => {
    const resources = allocation.get(container.name);
    return resources === undefined || resources === container.resources ? container : { ...container, resources };
  };
  return {
    ...pod,
    spec: {
      ...pod.spec,
      containers: pod.spec.containers.map(apply),
      ...(pod.spec.initContainers ? { initContainers: pod.spec.initContainers.map(apply) } : {}),
    },
  };
}

/** Whether the spec asks for something else than is allocated. */
export const wantsResize = (pod: Pod, allocation: Allocation): boolean =>
  resizable(pod).some(
    (container) =>
      allocation.has(container.name) && !sameResources(container.resources, allocation.get(container.name)),
  );

export type ResizeVerdict =
  | { readonly kind: 'none' }
  /** The spec is to be allocated. */
  | { readonly kind: 'accept' }
  /** For the condition PodResizePending and the Event ResizeDeferred or ResizeInfeasible. */
  | { readonly kind: 'pending'; readonly reason: 'Deferred' | 'Infeasible'; readonly message: string };

const memoryRestarts = (container: Container): boolean =>
  container.resizePolicy?.some(
    ({ resourceName, restartPolicy }) => resourceName === 'memory' && restartPolicy === 'RestartContainer',
  ) ?? false;

// A container's swap follows from its memory request, and is not resized.
function touchesSwap(pod: Pod, allocation: Allocation, facts: Pick<ResourceFacts, 'swap' | 'cgroupVersion'>): boolean {
  if (facts.swap.behavior !== 'LimitedSwap' || !facts.swap.available || facts.cgroupVersion !== 2) return false;
  if (isCriticalPod(pod) || qosOf(pod) !== 'Burstable') return false;
  return resizable(pod).some((container) => {
    const before = allocation.get(container.name);
    const changed = amount('memory', before?.requests) !== amount('memory', container.resources?.requests);
    return changed && !memoryRestarts(container);
  });
}

/**
 * Whether the resize that the spec asks for can be promised. `admit` is admission of the pod as its spec has it, beside the others with
 * what is allocated to them; what it refuses is deferred, since room may come.
 */
export function judgeResize(
  pod: Pod,
  allocation: Allocation,
  admit: (pod: Pod) => { readonly admitted: true } | { readonly admitted: false; readonly message: string },
  facts: Pick<ResourceFacts, 'swap' | 'cgroupVersion'>,
): ResizeVerdict {
  if (!wantsResize(pod, allocation)) return { kind: 'none' };
  if (touchesSwap(pod, allocation, facts))
    return {
      kind: 'pending',
      reason: 'Infeasible',
      message: 'In-place resize of containers with swap is not supported.',
    };
  const verdict = admit(pod);
  return verdict.admitted ? { kind: 'accept' } : { kind: 'pending', reason: 'Deferred', message: verdict.message };
}

/** What a container has. CPU in millicores, memory in bytes; 0: none. */
export interface ActualResources {
  readonly cpuRequest: number;
  readonly cpuLimit: number;
  readonly memoryRequest: number;
  readonly memoryLimit: number;
}

/** What a container is to have; limits of the pod stand in for its own. */
export function wantedResources(pod: Pod, container: Container): ActualResources {
  const { requests, limits } = container.resources ?? {};
  const podLimits = hasPodLevelResources(pod) ? pod.spec.resources?.limits : undefined;
  const cpuLimit = millis(limits?.cpu) || millis(podLimits?.cpu);
  return {
    cpuRequest: requests?.cpu === undefined ? cpuLimit : millis(requests.cpu),
    cpuLimit,
    memoryRequest: units(requests?.memory),
    memoryLimit: units(limits?.memory) || units(podLimits?.memory),
  };
}

/**
 * What the runtime says a container has, for one whose actuation is not remembered. The kernel knows no memory request: `memoryRequest` is
 * what was last known. Undefined where the runtime tells nothing.
 */
export function observedResources(
  resources: LinuxResources | undefined,
  memoryRequest: number,
): ActualResources | undefined {
  if (!resources) return undefined;
  return {
    cpuRequest: sharesToMilliCpu(resources.cpuShares ?? 0),
    cpuLimit: quotaToMilliCpu(resources.cpuQuota ?? 0, resources.cpuPeriod ?? 0),
    memoryRequest,
    memoryLimit: resources.memoryLimitInBytes ?? 0,
  };
}

// Shares and weights are coarser than millicores: what the kernel cannot tell apart is the same.
const sameCpuRequest = (one: number, other: number): boolean =>
  one === other || cpuShares(one) === cpuShares(other) || cpuWeight(cpuShares(one)) === cpuWeight(cpuShares(other));

// A limit below the kernel's least quota (1 ms of 100) is raised to it.
const sameCpuLimit = (one: number, other: number): boolean =>
  one === other || (one > 0 && other > 0 && Math.max(one, 10) === Math.max(other, 10));

export const sameActual = (one: ActualResources, other: ActualResources): boolean =>
  sameCpuRequest(one.cpuRequest, other.cpuRequest) &&
  sameCpuLimit(one.cpuLimit, other.cpuLimit) &&
  one.memoryRequest === other.memoryRequest &&
  one.memoryLimit === other.memoryLimit;

export type ContainerResize =
  | { readonly kind: 'none' }
  | { readonly kind: 'update' }
  /** The container's resizePolicy wants it restarted; the message is for the Event Killing. */
  | { readonly kind: 'restart'; readonly message: string };

/** What is to be done for a running container. `pod` carries its allocation. */
export function containerResize(pod: Pod, container: Container, actual: ActualResources): ContainerResize {
  const wanted = wantedResources(pod, container);
  if (sameActual(wanted, actual)) return { kind: 'none' };
  const changed: Readonly<Record<Resized, boolean>> = {
    cpu: !sameCpuRequest(wanted.cpuRequest, actual.cpuRequest) || !sameCpuLimit(wanted.cpuLimit, actual.cpuLimit),
    memory: wanted.memoryRequest !== actual.memoryRequest || wanted.memoryLimit !== actual.memoryLimit,
  };
  const restart = container.resizePolicy?.some(
    ({ resourceName, restartPolicy }) =>
      restartPolicy === 'RestartContainer' &&
      (resourceName === 'cpu' || resourceName === 'memory') &&
      changed[resourceName],
  );
  return restart
    ? { kind: 'restart', message: `Container ${container.name} resize requires restart` }
    : { kind: 'update' };
}
