// Keeps as many pods as a ReplicaSet asks for.
import { isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { selectorText } from '../names.ts';
import type { ReplicaSet } from '../workload.ts';
import { unless, type World } from './world.ts';

export const isReady = (pod: Pod): boolean =>
  pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
export const isFinished = ({ status }: Pod): boolean => status?.phase === 'Succeeded' || status?.phase === 'Failed';
const isActive = (pod: Pod): boolean => !pod.metadata.deletionTimestamp && !isFinished(pod);

/** Those that are least missed come first: not bound, not running, not ready, young. */
function deletionOrder(pods: readonly Pod[]): Pod[] {
  const rank = (pod: Pod): number =>
    !pod.spec.nodeName ? 0 : pod.status?.phase === 'Pending' ? 1 : isReady(pod) ? 3 : 2;
  const madeAt = ({ metadata }: Pod): string => metadata.creationTimestamp ?? '';
  return pods.toSorted((a, b) => rank(a) - rank(b) || madeAt(b).localeCompare(madeAt(a)));
}

export function createReplicaSetController(world: World) {
  const { client, pods, replicaSets } = world;
  const controller = world.controller('ReplicaSet', reconcile);
  replicaSets.onChange(({ key }) => controller.wake(key));
  pods.wakeOwners('ReplicaSet', controller);

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const set = replicaSets.get(key);
    if (!set) return;
    const wanted = set.spec.replicas ?? 1;
    if (!set.metadata.deletionTimestamp && pods.ownedBy(set).filter(isActive).length !== wanted)
      await adjust(set, wanted, signal);
    await writeStatus(set, signal);
  }

  /** By what the API server has: the cache may not have seen yet what was made or deleted just now. */
  async function adjust(set: ReplicaSet, wanted: number, signal: AbortSignal): Promise<void> {
    const { name, namespace = '', uid } = set.metadata;
    const labelSelector = selectorText(set.spec.selector);
    const { items } = await client.list(resources.pods, { namespace, labelSelector, signal });
    const own = items.filter(({ metadata }) => metadata.ownerReferences?.some((owner) => owner.uid === uid));
    const active = own.filter(isActive);
    const { metadata: { labels = {}, annotations = {}, finalizers = [] } = {}, spec } = set.spec.template;
    const ownerReferences = [replicaSets.ownerReference(set)];
    const more = { name: '', generateName: `${name}-`, namespace, ownerReferences, labels, annotations, finalizers };
    const make = () => client.create(resources.pods, { metadata: more, spec }, { signal });
    await Promise.all(Array.from({ length: Math.max(0, wanted - active.length) }, make));
    for (const { metadata } of deletionOrder(active).slice(0, Math.max(0, active.length - wanted)))
      await client
        .delete(resources.pods, metadata, { preconditions: { uid: metadata.uid! }, signal })
        .catch(unless(isNotFound));
  }

  async function writeStatus(set: ReplicaSet, signal: AbortSignal): Promise<void> {
    const owned = pods.ownedBy(set);
    const active = owned.filter(isActive);
    const ready = active.filter(isReady).length;
    const status = {
      replicas: active.length,
      fullyLabeledReplicas: active.length,
      readyReplicas: ready,
      availableReplicas: ready,
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
