// How many pods each ReplicaSet of a Deployment shall have next. Pure.
import type { IntOrString } from '../../kube/types/meta.ts';
import type { Deployment, ReplicaSet } from '../workload.ts';

const resolve = (value: IntOrString | undefined, of: number, round: (value: number) => number): number =>
  typeof value === 'string' && value.endsWith('%')
    ? round((Number.parseInt(value, 10) * of) / 100)
    : Number(value ?? 0);

const recreates = ({ spec }: Pick<Deployment, 'spec'>): boolean => spec.strategy?.type === 'Recreate';

/** maxSurge rounds up, maxUnavailable down; both zero would never move, so one may be missing. Recreate lets all be missing. */
export function limitsOf(deployment: Pick<Deployment, 'spec'>): { surge: number; unavailable: number } {
  const { replicas: desired = 1, strategy } = deployment.spec;
  if (recreates(deployment)) return { surge: 0, unavailable: desired };
  const surge = resolve(strategy?.rollingUpdate?.maxSurge, desired, Math.ceil);
  const unavailable = resolve(strategy?.rollingUpdate?.maxUnavailable, desired, Math.floor);
  return { surge, unavailable: Math.min(surge === 0 && unavailable === 0 ? 1 : unavailable, desired) };
}

const replicasOf = ({ spec }: ReplicaSet): number => spec.replicas ?? 0;
const available = (set: ReplicaSet): number => Math.min(set.status?.availableReplicas ?? 0, replicasOf(set));
const alive = (set: ReplicaSet): number =>
  Math.max(replicasOf(set), (set.status?.replicas ?? 0) + (set.status?.terminatingReplicas ?? 0));
const total = (sets: readonly ReplicaSet[], count: (set: ReplicaSet) => number): number =>
  sets.reduce((sum, set) => sum + count(set), 0);

/** New replica counts by the name of the set; only those that change. One step: the result is seen before the next. */
export function planRollout(
  deployment: Deployment,
  current: ReplicaSet,
  old: readonly ReplicaSet[],
): Map<string, number> {
  const desired = deployment.spec.replicas ?? 1;
  const { surge, unavailable } = limitsOf(deployment);
  const plan = new Map<string, number>();
  const now = replicasOf(current);
  const all = now + total(old, replicasOf);
  // With Recreate the old pods must be gone, not only going.
  const waits = recreates(deployment) && total(old, alive) > 0;
  const room = waits ? 0 : desired + surge - all;
  if (now > desired) plan.set(current.metadata.name, desired);
  if (now < desired && room > 0) return plan.set(current.metadata.name, Math.min(now + room, desired));
  const least = desired - unavailable;
  let left = all - least - (now - available(current));
  const shrink = (set: ReplicaSet, most: number): void => {
    const has = plan.get(set.metadata.name) ?? replicasOf(set);
    const by = Math.max(0, Math.min(left, most, has));
    if (by > 0) plan.set(set.metadata.name, has - by);
    left -= by;
  };
  // Old pods that serve nobody go first, then as many of the others as there are more available than needed.
  for (const set of old) shrink(set, replicasOf(set) - available(set));
  left = Math.min(left, available(current) + total(old, available) - least);
  for (const set of old) shrink(set, left);
  return plan;
}
