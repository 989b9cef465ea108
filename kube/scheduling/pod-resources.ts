// What a whole pod asks for and may use: its containers side by side, its init containers one after the other, its sidecars beside both,
// the pod's own resources where it has them, and its overhead.
import type { Container, Pod, ResourceRequirements } from '../types/pod.ts';
import { type Amounts, addTo, amounts, raiseTo } from './amounts.ts';

export interface PodResourcesOptions {
  readonly withoutOverhead?: boolean;
  /** Only the sum of the containers, without `spec.resources`. */
  readonly withoutPodLevel?: boolean;
  /** Instead of what the container's spec says: for example what is allocated to it. */
  readonly resourcesOf?: (container: Container) => ResourceRequirements | undefined;
  /** Told the effective amounts of each container and init step. */
  readonly each?: (amounts: Amounts) => void;
}

export const isSidecar = (container: Container): boolean => container.restartPolicy === 'Always';

const isPodLevel = (resource: string): boolean =>
  resource === 'cpu' || resource === 'memory' || resource.startsWith('hugepages-');

/** Whether the pod has resources of its own (`spec.resources`), besides its containers'. */
export const hasPodLevelResources = (pod: Pod): boolean =>
  [...Object.keys(pod.spec.resources?.requests ?? {}), ...Object.keys(pod.spec.resources?.limits ?? {})].some(
    isPodLevel,
  );

export const hasPodLevelRequests = (pod: Pod): boolean =>
  Object.keys(pod.spec.resources?.requests ?? {}).some(isPodLevel);

function aggregate(pod: Pod, kind: 'requests' | 'limits', options: PodResourcesOptions): Record<string, number> {
  const of = options.resourcesOf ?? ((container: Container) => container.resources);
  const total: Record<string, number> = {};
  for (const container of pod.spec.containers) {
    const one = amounts(of(container)?.[kind]);
    options.each?.(one);
    addTo(total, one);
  }
  // While the i-th init container runs, the sidecars before it run too.
  const sidecars: Record<string, number> = {};
  const highest: Record<string, number> = {};
  for (const container of pod.spec.initContainers ?? []) {
    const own = amounts(of(container)?.[kind]);
    if (isSidecar(container)) {
      addTo(total, own);
      addTo(sidecars, own);
    }
    const step = { ...sidecars };
    if (!isSidecar(container)) addTo(step, own);
    options.each?.(step);
    raiseTo(highest, step);
  }
  raiseTo(total, highest);
  return total;
}

/** What the pod requests of the node. */
export function podRequests(pod: Pod, options: PodResourcesOptions = {}): Record<string, number> {
  const total = aggregate(pod, 'requests', options);
  if (!options.withoutPodLevel)
    for (const [name, amount] of Object.entries(amounts(pod.spec.resources?.requests)))
      if (isPodLevel(name)) total[name] = amount;
  if (!options.withoutOverhead) addTo(total, amounts(pod.spec.overhead));
  return total;
}

/** What the pod may use; a resource that is absent, or 0, is not limited. */
export function podLimits(pod: Pod, options: PodResourcesOptions = {}): Record<string, number> {
  const total = aggregate(pod, 'limits', options);
  if (!options.withoutPodLevel)
    for (const [name, amount] of Object.entries(amounts(pod.spec.resources?.limits)))
      if (isPodLevel(name)) total[name] = amount;
  if (!options.withoutOverhead)
    for (const [name, amount] of Object.entries(amounts(pod.spec.overhead)))
      if ((total[name] ?? 0) > 0) total[name] = (total[name] ?? 0) + amount;
  return total;
}
