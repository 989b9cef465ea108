// What changed of the resources that a pod's containers ask for, in the words of kubelet_container_requested_resizes_total. Pure.
import type { Container, Pod, ResourceRequirements } from '../../kube/types/pod.ts';
import { millis, units } from '../../kube/scheduling/amounts.ts';
import { resizable } from './resize.ts';

export interface RequestedResize {
  readonly resource: 'cpu' | 'memory';
  readonly requirement: 'requests' | 'limits';
  readonly operation: 'add' | 'remove' | 'increase' | 'decrease';
}

const amount = (
  list: ResourceRequirements | undefined,
  { resource, requirement }: Pick<RequestedResize, 'resource' | 'requirement'>,
): number => (resource === 'cpu' ? millis : units)(list?.[requirement]?.[resource]);

function operationOf(before: number, now: number): RequestedResize['operation'] | undefined {
  if (before === now) return undefined;
  if (now === 0) return 'remove';
  if (before === 0) return 'add';
  return now > before ? 'increase' : 'decrease';
}

const kinds = (['memory', 'cpu'] as const).flatMap((resource) =>
  (['requests', 'limits'] as const).map((requirement) => ({ resource, requirement })),
);

/** One for each container, resource and requirement that changed; a container that is not in both counts for nothing. */
export function requestedResizes(before: Pod, now: Pod): RequestedResize[] {
  if (before.spec === now.spec) return [];
  const had = new Map<string, Container>(resizable(before).map((container) => [container.name, container]));
  return resizable(now).flatMap(({ name, resources }) => {
    const old = had.get(name);
    if (!old) return [];
    return kinds.flatMap((kind) => {
      const operation = operationOf(amount(old.resources, kind), amount(resources, kind));
      return operation ? [{ ...kind, operation }] : [];
    });
  });
}
