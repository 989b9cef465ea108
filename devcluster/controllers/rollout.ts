// How many pods each ReplicaSet of a Deployment shall have next. Pure.
import type { IntOrString } from '../../kube/types/meta.ts';
import type { Deployment, ReplicaSet } from '../workload.ts';

export interface Limits {
  readonly surge: number;
  readonly unavailable: number;
}

const resolve = (value: IntOrString | undefined, of: number, round: (value: number) => number): number =>
  typeof value === 'string' && value.endsWith('%')
    ? round((Number.parseInt(value, 10) * of) / 100)
    : Number(value ?? 0);

/** maxSurge rounds up, maxUnavailable down; both zero would never move, so one may be missing. */
export function limitsOf({ spec }: Pick<Deployment, 'spec'>): Limits {
  const desired = spec.replicas ?? 1;
  const surge = resolve(spec.strategy?.rollingUpdate?.maxSurge, desired, Math.ceil);
  const unavailable = resolve(spec.strategy?.rollingUpdate?.maxUnavailable, desired, Math.floor);
  return { surge, unavailable: Math.min(surge === 0 && unavailable === 0 ? 1 : unavailable, desired) };
}

const replicasOf = (set: ReplicaSet): number => set.spec.replicas ?? 0;
const total = (sets: readonly ReplicaSet[], count: (set: ReplicaSet) => number): number =>
  sets.reduce((sum, set) => sum + count(set), 0);
const available = (set: ReplicaSet): number => Math.min(set.status?.availableReplicas ?? 0, replicasOf(set));

/** New replica counts by the name of the set; only those that change. One step: the result is seen before the next. */
export function planRollout(
  deployment: Deployment,
  current: ReplicaSet,
  old: readonly ReplicaSet[],
): Map<string, number> {
  const desired = deployment.spec.replicas ?? 1;
  const plan = new Map<string, number>();
  if (deployment.spec.strategy?.type === 'Recreate') {
    for (const set of old) if (replicasOf(set) > 0) plan.set(set.metadata.name, 0);
    const gone =
      total(old, (set) =>
        Math.max(replicasOf(set), (set.status?.replicas ?? 0) + (set.status?.terminatingReplicas ?? 0)),
      ) === 0;
    if (gone && replicasOf(current) !== desired) plan.set(current.metadata.name, desired);
    return plan;
  }
  const { surge, unavailable } = limitsOf(deployment);
  const all = replicasOf(current) + total(old, replicasOf);
  if (replicasOf(current) > desired) plan.set(current.metadata.name, desired);
  else if (replicasOf(current) < desired) {
    const room = Math.max(0, desired + surge - all);
    if (room > 0) {
      plan.set(current.metadata.name, replicasOf(current) + Math.min(room, desired - replicasOf(current)));
      return plan;
    }
  }
  let left = all - (desired - unavailable) - (replicasOf(current) - available(current));
  const shrink = (set: ReplicaSet, most: number): number => {
    const now = plan.get(set.metadata.name) ?? replicasOf(set);
    const by = Math.min(most, now);
    if (by > 0) plan.set(set.metadata.name, now - by);
    return by;
  };
  // Old pods that serve nobody go first, then as many of the others as there are more available than needed.
  for (const set of old) if (left > 0) left -= shrink(set, Math.min(left, replicasOf(set) - available(set)));
  const spare = available(current) + total(old, available) - (desired - unavailable);
  left = Math.min(left, spare);
  for (const set of old) if (left > 0) left -= shrink(set, left);
  return plan;
}
