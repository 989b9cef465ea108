// What is known of a container from the status rather than from the runtime.
import type { ContainerStatus } from '../../kube/types/pod.ts';
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
