// The conditions of a pod that the node owns, with Kubernetes' reasons and messages (pkg/kubelet/status/generate.go).
import type { Condition } from '../../kube/types/meta.ts';
import type { ContainerStatus, Pod, PodPhase } from '../../kube/types/pod.ts';
import { isSidecar } from './observed.ts';

const owned = new Set([
  'PodReadyToStartContainers',
  'Initialized',
  'Ready',
  'ContainersReady',
  'PodScheduled',
  'DisruptionTarget',
  'PodResizePending',
  'PodResizeInProgress',
  'AllContainersRestarting',
]);

/** Written also by others, such as the eviction API: what they say is never taken back. */
export const isSharedCondition = (type: string): boolean => type === 'DisruptionTarget';

export const isNodeCondition = (type: string): boolean => owned.has(type);

type Bare = Pick<Condition, 'status'> & { reason?: string; message?: string };
type Statuses = ReadonlyMap<string, ContainerStatus>;

// Go prints a slice of strings as [a b].
const goList = (names: readonly string[]): string => `[${names.join(' ')}]`;

export function containersReady(pod: Pod, statuses: Statuses, phase: PodPhase): Bare {
  const counted = [...(pod.spec.initContainers ?? []).filter(isSidecar), ...pod.spec.containers].map(
    (each) => each.name,
  );
  const unknown = counted.filter((name) => !statuses.has(name));
  const unready = counted.filter((name) => statuses.get(name)?.ready === false);
  if (phase === 'Succeeded' && unknown.length === 0) return { status: 'False', reason: 'PodCompleted' };
  if (phase === 'Failed') return { status: 'False', reason: 'PodFailed' };
  const messages = [
    ...(unknown.length > 0 ? [`containers with unknown status: ${goList(unknown)}`] : []),
    ...(unready.length > 0 ? [`containers with unready status: ${goList(unready)}`] : []),
  ];
  if (messages.length > 0) return { status: 'False', reason: 'ContainersNotReady', message: messages.join(', ') };
  return { status: 'True' };
}

export function ready(pod: Pod, statuses: Statuses, phase: PodPhase, conditions: readonly Condition[]): Bare {
  const containers = containersReady(pod, statuses, phase);
  if (containers.status !== 'True') return containers;
  const messages = (pod.spec.readinessGates ?? []).flatMap(({ conditionType }) => {
    const condition = conditions.find((each) => each.type === conditionType);
    if (!condition) return [`corresponding condition of pod readiness gate "${conditionType}" does not exist.`];
    if (condition.status !== 'True')
      return [`the status of pod readiness gate "${conditionType}" is not "True", but ${condition.status}`];
    return [];
  });
  if (messages.length > 0) return { status: 'False', reason: 'ReadinessGatesNotReady', message: messages.join(', ') };
  return { status: 'True' };
}

export function initialized(pod: Pod, statuses: Statuses, phase: PodPhase, before: boolean): Bare {
  const init = pod.spec.initContainers ?? [];
  const unknown = init.filter((container) => !statuses.has(container.name)).map((container) => container.name);
  const incomplete = init
    .filter((container) => {
      const status = statuses.get(container.name);
      return status !== undefined && !(isSidecar(container) ? status.started : status.ready);
    })
    .map((container) => container.name);
  if (phase === 'Succeeded' && unknown.length === 0) return { status: 'True', reason: 'PodCompleted' };
  const begun = pod.spec.containers.some((container) => {
    const status = statuses.get(container.name);
    return status?.state?.running || status?.state?.terminated || status?.lastState?.terminated || status?.started;
  });
  // Initialized never goes back.
  if (begun || before) return { status: 'True' };
  const messages = [
    ...(unknown.length > 0 ? [`containers with unknown status: ${goList(unknown)}`] : []),
    ...(incomplete.length > 0 ? [`containers with incomplete status: ${goList(incomplete)}`] : []),
  ];
  if (messages.length > 0) return { status: 'False', reason: 'ContainersNotInitialized', message: messages.join(', ') };
  return { status: 'True' };
}

/** Completes a condition; its transition time moves only when its status does. */
export function complete(type: string, bare: Bare, before: readonly Condition[], pod: Pod, now: string): Condition {
  const last = before.find((condition) => condition.type === type);
  return {
    type,
    ...bare,
    ...(pod.metadata.generation === undefined ? {} : { observedGeneration: pod.metadata.generation }),
    lastProbeTime: null,
    lastTransitionTime: last?.status === bare.status && last.lastTransitionTime ? last.lastTransitionTime : now,
  };
}
