// What is known of a container from the status rather than from the runtime.
import type { ContainerStatus } from '../../kube/types/pod.ts';
import type { ObservedContainer } from './observed.ts';
import type { PlanInput } from './plan.ts';

/** What was shown of a container last, by us or by the agent before us. */
export function shownOf({ memory, pod }: Pick<PlanInput, 'memory' | 'pod'>, name: string): ContainerStatus | undefined {
  const status = memory.status ?? pod.status;
  return [
    ...(status?.containerStatuses ?? []),
    ...(status?.initContainerStatuses ?? []),
    ...(status?.ephemeralContainerStatuses ?? []),
  ].find((each) => each.name === name);
}

/**
 * Something newer than this, the runtime's newest, was shown already: a runtime whose host lost power forgets the last it did. Not so where what
 * was shown last is how this one ended, and the count is of a successor that never ran.
 */
export function isOlderThanShown(shown: ContainerStatus | undefined, { id, metadata }: ObservedContainer): boolean {
  if (!shown || metadata.attempt >= shown.restartCount) return false;
  const ended = shown.state?.terminated ?? (shown.state?.waiting && shown.lastState?.terminated);
  const known = ended ? ended.containerID : shown.containerID;
  return !known?.endsWith(`//${id}`);
}
