// Keeps as many pods as a ReplicaSet asks for.
import { isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import { keyOf } from '../../kube/store.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { ReplicaSet } from '../workload.ts';
import { unless, type World } from './world.ts';

const readyOf = (pod: Pod) => pod.status?.conditions?.find(({ type, status }) => type === 'Ready' && status === 'True');
export const isReady = (pod: Pod): boolean => readyOf(pod) !== undefined;

export const isFinished = ({ status }: Pod): boolean => status?.phase === 'Succeeded' || status?.phase === 'Failed';
const isActive = (pod: Pod): boolean => !pod.metadata.deletionTimestamp && !isFinished(pod);

const mostAtOnce = 50;

/** Milliseconds until a ready pod counts as available; 0 where it does, undefined where it is not ready. */
function availableIn(pod: Pod, minReadySeconds: number, nowMs: number): number | undefined {
  const ready = readyOf(pod);
  if (!ready || minReadySeconds === 0) return ready ? 0 : undefined;
  return Math.max(0, Date.parse(ready.lastTransitionTime ?? '') + minReadySeconds * 1000 - nowMs);
}

/** Those that are least missed come first: not bound, not running, not ready, young. */
function deletionOrder(pods: readonly Pod[]): Pod[] {
  const rank = (pod: Pod): number =>
    !pod.spec.nodeName ? 0 : pod.status?.phase === 'Pending' ? 1 : isReady(pod) ? 3 : 2;
  const madeAt = ({ metadata }: Pod): string => metadata.creationTimestamp ?? '';
  return pods.toSorted((a, b) => rank(a) - rank(b) || madeAt(b).localeCompare(madeAt(a)));
}

export function createReplicaSetController(world: World) {
  const { client, clock, pods, replicaSets } = world;
  const controller = world.controller('ReplicaSet', reconcile);
  replicaSets.onChange(({ key }) => controller.wake(key));
  pods.wakeOwners('ReplicaSet', controller);

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const set = replicaSets.get(key);
    if (!set) return;
    const active = pods.ownedBy(set).filter(isActive);
    const difference = set.metadata.deletionTimestamp ? 0 : (set.spec.replicas ?? 1) - active.length;
    if (difference > 0) await grow(set, Math.min(difference, mostAtOnce), signal);
    else if (difference < 0) await shrink(deletionOrder(active).slice(0, Math.min(-difference, mostAtOnce)), signal);
    await writeStatus(set, signal);
  }

  async function grow(set: ReplicaSet, count: number, signal: AbortSignal): Promise<void> {
    const { metadata: { labels = {}, annotations = {}, finalizers = [] } = {}, spec } = set.spec.template;
    const { name, namespace = '' } = set.metadata;
    const own = { name: '', generateName: `${name}-`, namespace, ownerReferences: [replicaSets.ownerReference(set)] };
    const pod: Pod = { metadata: { ...own, labels, annotations, finalizers }, spec };
    const made = await Promise.all(Array.from({ length: count }, () => client.create(resources.pods, pod, { signal })));
    // The cache must have them before the next count, or there would be too many.
    await pods.until(() => made.every((one) => pods.get(keyOf(one))), signal);
  }

  async function shrink(doomed: readonly Pod[], signal: AbortSignal): Promise<void> {
    const remove = ({ metadata }: Pod): Promise<void> =>
      client
        .delete(resources.pods, metadata, { preconditions: { uid: metadata.uid! }, signal })
        .catch(unless(isNotFound));
    await Promise.all(doomed.map(remove));
    await pods.until(() => {
      const now = doomed.map((pod) => ({ pod, there: pods.get(keyOf(pod)) }));
      return now.every(({ pod, there }) => there?.metadata.uid !== pod.metadata.uid || !isActive(there!));
    }, signal);
  }

  async function writeStatus(set: ReplicaSet, signal: AbortSignal): Promise<void> {
    const owned = pods.ownedBy(set);
    const active = owned.filter(isActive);
    const waits = active.map((pod) => availableIn(pod, set.spec.minReadySeconds ?? 0, clock.now()));
    const soonest = Math.min(...waits.filter((ms) => ms !== undefined && ms > 0).map(Number));
    if (Number.isFinite(soonest)) controller.wakeAfter(keyOf(set), soonest + 5);
    const status = {
      replicas: active.length,
      fullyLabeledReplicas: active.length,
      readyReplicas: active.filter(isReady).length,
      availableReplicas: waits.filter((ms) => ms === 0).length,
      terminatingReplicas: owned.filter(({ metadata }) => metadata.deletionTimestamp).length,
      observedGeneration: set.metadata.generation ?? 0,
    };
    const now = set.status ?? {};
    if (Object.entries(status).every(([name, value]) => (now[name as keyof typeof status] ?? 0) === value)) return;
    const patch = { metadata: { uid: set.metadata.uid }, status };
    await client.patch(replicaSets.resource, set.metadata, patch, { type: 'merge', subresource: 'status', signal });
  }

  return controller;
}
