// What a resize looks like from outside: conditions, Events' messages, the resources shown in a container's status.
import { canonicalQuantity } from '../../kube/quantity.ts';
import type { Condition, ResourceList } from '../../kube/types/meta.ts';
import type { Container, Pod, ResourceRequirements } from '../../kube/types/pod.ts';
import { type Amounts, millis, units } from '../../kube/scheduling/amounts.ts';
import { cpuShares, cpuWeight } from './linux-resources.ts';
import { podLimits, podRequests } from '../../kube/scheduling/pod-resources.ts';
import type { ActualResources } from './resize-actual.ts';

/** Where a pod's resize stands. */
export interface ResizeProgress {
  /** Not promised yet. */
  readonly pending?:
    | { readonly reason: 'Deferred' | 'Infeasible'; readonly message: string; readonly generation: number }
    | undefined;
  /** Promised and not there yet; `error` says why the last try failed. */
  readonly inProgress?: { readonly generation: number; readonly error?: string | undefined } | undefined;
}

/** PodResizePending and PodResizeInProgress; times are the caller's. */
export function resizeConditions({ pending, inProgress }: ResizeProgress): Condition[] {
  return [
    ...(pending
      ? [
          {
            type: 'PodResizePending',
            status: 'True' as const,
            reason: pending.reason,
            message: pending.message,
            observedGeneration: pending.generation,
          },
        ]
      : []),
    ...(inProgress
      ? [
          {
            type: 'PodResizeInProgress',
            status: 'True' as const,
            ...(inProgress.error === undefined ? {} : { reason: 'Error', message: inProgress.error }),
            observedGeneration: inProgress.generation,
          },
        ]
      : []),
  ];
}

/** Where a resize stood before the agent was restarted, by the conditions it wrote. */
export function progressShown(conditions: readonly Condition[] = []): ResizeProgress {
  const shown = (type: string): Condition | undefined =>
    conditions.find((each) => each.type === type && each.status === 'True');
  const [pending, inProgress] = [shown('PodResizePending'), shown('PodResizeInProgress')];
  return {
    ...(pending?.reason === 'Deferred' || pending?.reason === 'Infeasible'
      ? {
          pending: {
            reason: pending.reason,
            message: pending.message ?? '',
            generation: pending.observedGeneration ?? 0,
          },
        }
      : {}),
    ...(inProgress
      ? {
          inProgress: {
            generation: inProgress.observedGeneration ?? 0,
            ...(inProgress.reason === 'Error' ? { error: inProgress.message } : {}),
          },
        }
      : {}),
  };
}

export type ResizeEvent = 'ResizeStarted' | 'ResizeCompleted' | 'ResizeDeferred' | 'ResizeInfeasible' | 'ResizeError';

const prefixes: Readonly<Record<ResizeEvent, string>> = {
  ResizeStarted: 'Pod resize started',
  ResizeCompleted: 'Pod resize completed',
  ResizeDeferred: 'Pod resize Deferred',
  ResizeInfeasible: 'Pod resize Infeasible',
  ResizeError: 'Pod resize error',
};

/** The message of an Event: the resources asked for, as JSON. Started and completed are Normal, the others Warning. */
export function resizeMessage(event: ResizeEvent, pod: Pod, generation: number, error = ''): string {
  const sorted = (list: ResourceList | undefined): ResourceList | undefined =>
    list && Object.fromEntries(Object.entries(list).sort(([a], [b]) => (a < b ? -1 : 1)));
  const one = ({ name, resources }: Container) => {
    const [limits, requests] = [sorted(resources?.limits), sorted(resources?.requests)];
    return { name, resources: { ...(limits ? { limits } : {}), ...(requests ? { requests } : {}) } };
  };
  const init = (pod.spec.initContainers ?? []).map(one);
  const summary = {
    ...(init.length > 0 ? { initContainers: init } : {}),
    containers: pod.spec.containers.map(one),
    generation,
    ...(error === '' ? {} : { error }),
  };
  return `${prefixes[event]}: ${JSON.stringify(summary)}`;
}

// As the API server writes it: another text for the same amount would be a difference to be mended again and again.

/** `250m`, `2`. */
export const formatMilliCpu = (milli: number): string => canonicalQuantity(`${milli}m`);

/** `64Mi`, `100M`. */
export function formatBytes(bytes: number): string {
  const suffixes = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];
  let [rest, index] = [bytes, 0];
  while (rest !== 0 && rest % 1024 === 0 && index < suffixes.length - 1) [rest, index] = [rest / 1024, index + 1];
  return canonicalQuantity(`${rest}${suffixes[index]}`);
}

/**
 * A container status' `resources`: what the container has, written as its spec writes it where that means the same to the kernel. Resources
 * other than cpu and memory are shown as allocated.
 */
export function statusResources(container: Container, actual: ActualResources): ResourceRequirements {
  const own = container.resources ?? {};
  const requests: ResourceList = { ...own.requests };
  const limits: ResourceList = { ...own.limits };
  const show = (list: ResourceList, name: string, has: number, text: string, same: boolean): void => {
    if (has === 0 && !same) delete list[name];
    else if (!same && has > 0) list[name] = text;
  };
  const weight = (milli: number): number => cpuWeight(cpuShares(milli));
  const sameRequest = requests.cpu !== undefined && weight(millis(requests.cpu)) === weight(actual.cpuRequest);
  // Without a request of its own a container has the limit's shares, or the least: neither was asked for.
  if (own.requests?.cpu !== undefined)
    show(requests, 'cpu', actual.cpuRequest, formatMilliCpu(actual.cpuRequest), sameRequest);
  show(
    limits,
    'cpu',
    actual.cpuLimit,
    formatMilliCpu(actual.cpuLimit),
    limits.cpu !== undefined && Math.max(millis(limits.cpu), 10) === Math.max(actual.cpuLimit, 10),
  );
  show(
    requests,
    'memory',
    actual.memoryRequest,
    formatBytes(actual.memoryRequest),
    units(requests.memory) === actual.memoryRequest,
  );
  show(
    limits,
    'memory',
    actual.memoryLimit,
    formatBytes(actual.memoryLimit),
    units(limits.memory) === actual.memoryLimit,
  );
  return {
    ...(Object.keys(requests).length > 0 ? { requests } : {}),
    ...(Object.keys(limits).length > 0 ? { limits } : {}),
  };
}

/** The fields of a pod's status that tell of it as a whole. */
export interface PodResourcesShown {
  readonly allocatedResources?: ResourceList;
  readonly resources?: ResourceRequirements;
}

const inBytes = (name: string): boolean =>
  name === 'memory' || name === 'ephemeral-storage' || name.startsWith('hugepages-');

/** As `own` writes it where that is the amount: it may be finer than our numbers are. */
function written(name: string, amount: number, own: ResourceList | undefined): string {
  const text = own?.[name];
  if (text !== undefined && (name === 'cpu' ? millis(text) : units(text)) === amount) return canonicalQuantity(text);
  if (name === 'cpu') return formatMilliCpu(amount);
  return inBytes(name) ? formatBytes(amount) : canonicalQuantity(amount);
}

const toList = (amounts: Amounts, own: ResourceList | undefined): ResourceList =>
  Object.fromEntries(Object.entries(amounts).map(([name, amount]) => [name, written(name, amount, own)]));

const requirements = (requests: ResourceList, limits: ResourceList): ResourceRequirements => ({
  ...(Object.keys(requests).length > 0 ? { requests } : {}),
  ...(Object.keys(limits).length > 0 ? { limits } : {}),
});

/**
 * The pod's `allocatedResources`, and its `resources`: all of what it asks for until it runs, then its own with what its cgroup has. `pod`
 * carries its allocation.
 */
export function podResourcesShown(pod: Pod, whole: ActualResources): PodResourcesShown {
  const own = pod.spec.resources;
  const requests = toList(podRequests(pod), own?.requests);
  const allocated = Object.keys(requests).length > 0 ? { allocatedResources: requests } : {};
  if (pod.status?.phase !== 'Running')
    return { ...allocated, resources: requirements(requests, toList(podLimits(pod), own?.limits)) };
  const has = (list: ResourceList | undefined, cpu: number, memory: number): ResourceList => ({
    ...list,
    ...(cpu > 0 ? { cpu: written('cpu', cpu, list) } : {}),
    ...(memory > 0 ? { memory: written('memory', memory, list) } : {}),
  });
  return {
    ...allocated,
    resources: requirements(
      has(own?.requests, whole.cpuRequest, whole.memoryRequest),
      has(own?.limits, whole.cpuLimit, whole.memoryLimit),
    ),
  };
}
