// In-place resize: what a pod asks for now (spec), what the node has promised it (allocated), and what its containers have (actual).
//
//   spec ≠ allocated ──room──▶ allocated = spec ──▶ actuate ──▶ actual = allocated
//          └─no room─▶ PodResizePending (Deferred; tried again when room comes) or Infeasible (never)
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Container, ContainerStatus, Pod, ResourceRequirements } from '../../kube/types/pod.ts';
import { millis, units } from '../../kube/scheduling/amounts.ts';
import type { ResourceFacts } from './linux-resources.ts';
import { qosOf } from '../../kube/scheduling/qos.ts';
import { formatBytes, formatMilliCpu } from './resize-status.ts';
import { type ActualResources, wantedResources } from './resize-actual.ts';
import { isCriticalPod } from './critical.ts';

/** What is promised to a pod: as a whole, where its spec has resources of its own, and to its containers by name. */
export interface Allocation {
  readonly pod: ResourceRequirements | undefined;
  readonly containers: ReadonlyMap<string, ResourceRequirements>;
}

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
  ...(pod.spec.initContainers ?? []),
  ...pod.spec.containers,
];

/** What the spec asks for, as an allocation. */
export const allocationOf = (pod: Pod): Allocation => ({
  pod: pod.spec.resources,
  containers: new Map(resizable(pod).map((container) => [container.name, container.resources ?? {}])),
});

/** Of the pod as a whole: the status shows its overhead with it. */
function podAllocationFromStatus(pod: Pod): ResourceRequirements | undefined {
  const { resources: own, overhead } = pod.spec;
  const { allocatedResources, resources: shown } = pod.status ?? {};
  if (!own || (!allocatedResources && !shown)) return own;
  const pick = (asked: ResourceList | undefined, list: ResourceList | undefined): ResourceList | undefined => {
    if (!asked) return undefined;
    const picked: ResourceList = { ...asked };
    if (asked.cpu !== undefined && list?.cpu !== undefined)
      picked.cpu = formatMilliCpu(millis(list.cpu) - millis(overhead?.cpu));
    if (asked.memory !== undefined && list?.memory !== undefined)
      picked.memory = formatBytes(units(list.memory) - units(overhead?.memory));
    return picked;
  };
  const requests = pick(own.requests, allocatedResources ?? shown?.requests);
  const limits = pick(own.limits, shown?.limits);
  return { ...own, ...(requests ? { requests } : {}), ...(limits ? { limits } : {}) };
}

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
  const containers = new Map(
    resizable(pod).map((container): [string, ResourceRequirements] => {
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
  return { pod: podAllocationFromStatus(pod), containers };
}

/** The pod with what is allocated to it in place of what it asks for: what the cgroups, the runtime and admission are to go by. */
export function withAllocation(pod: Pod, allocation: Allocation): Pod {
  const apply = (container: Container): Container => {
    const resources = allocation.containers.get(container.name);
    return resources === undefined || resources === container.resources ? container : { ...container, resources };
  };
  const { resources: _asked, ...spec } = pod.spec;
  return {
    ...pod,
    spec: {
      ...spec,
      ...(allocation.pod ? { resources: allocation.pod } : {}),
      containers: pod.spec.containers.map(apply),
      ...(pod.spec.initContainers ? { initContainers: pod.spec.initContainers.map(apply) } : {}),
    },
  };
}

/** Whether the spec asks for something else than is allocated. */
export const wantsResize = (pod: Pod, { pod: whole, containers }: Allocation): boolean =>
  !sameResources(pod.spec.resources, whole) ||
  resizable(pod).some(({ name, resources }) => containers.has(name) && !sameResources(resources, containers.get(name)));

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
    const before = allocation.containers.get(container.name);
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

export type ContainerResize =
  | { readonly kind: 'none' }
  | { readonly kind: 'update' }
  /** The container's resizePolicy wants it restarted; the message is for the Event Killing. */
  | { readonly kind: 'restart'; readonly message: string };

/** What is to be done for a running container. `pod` carries its allocation. */
export function containerResize(pod: Pod, container: Container, actual: ActualResources): ContainerResize {
  const wanted = wantedResources(pod, container);
  const changed: Readonly<Record<Resized, boolean>> = {
    cpu: wanted.cpuRequest !== actual.cpuRequest || wanted.cpuLimit !== actual.cpuLimit,
    memory: wanted.memoryRequest !== actual.memoryRequest || wanted.memoryLimit !== actual.memoryLimit,
  };
  if (!changed.cpu && !changed.memory) return { kind: 'none' };
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
