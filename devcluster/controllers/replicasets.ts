// Keeps as many pods as a ReplicaSet asks for.
import { labelSelectorRequirements, matchesRequirements } from '../../kube/selectors.ts';
import { isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { ReplicaSet } from '../default-workload.ts';
import { type Controller, createController } from './loop.ts';
import { ownerIndex, ownerKey, replicaSetResource, type ControllerDeps, type World } from './world.ts';

export const isReady = (pod: Pod): boolean =>
  pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;

export const isFinished = (pod: Pod): boolean => pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
const isActive = (pod: Pod): boolean => !pod.metadata.deletionTimestamp && !isFinished(pod);

const mostAtOnce = 50;

/** Milliseconds until a ready pod counts as available; 0 where it does, undefined where it is not ready. */
export function availableIn(pod: Pod, minReadySeconds: number, nowMs: number): number | undefined {
  const ready = pod.status?.conditions?.find(({ type }) => type === 'Ready');
  if (ready?.status !== 'True') return undefined;
  if (minReadySeconds === 0) return 0;
  const since = Date.parse(ready.lastTransitionTime ?? '');
  return Number.isNaN(since) ? undefined : Math.max(0, since + minReadySeconds * 1000 - nowMs);
}

/** Those that are least missed come first: not bound, not running, not ready, young. */
export function deletionOrder(pods: readonly Pod[]): Pod[] {
  const rank = (pod: Pod): number =>
    !pod.spec.nodeName ? 0 : pod.status?.phase === 'Pending' ? 1 : isReady(pod) ? 3 : 2;
  return [...pods].sort(
    (a, b) =>
      rank(a) - rank(b) || (b.metadata.creationTimestamp ?? '').localeCompare(a.metadata.creationTimestamp ?? ''),
  );
}

export function createReplicaSetController(deps: ControllerDeps, world: World): Controller {
  const { client, clock } = deps;
  const controller = createController(deps, 'ReplicaSet', reconcile);
  world.replicaSets.onChange(({ key }) => controller.queue.wake(key));
  world.pods.onChange(({ before, after }) => {
    for (const pod of [before, after]) {
      const key = pod && ownerKey(pod, 'ReplicaSet');
      if (key) controller.queue.wake(key);
    }
  });

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const set = world.replicaSets.store.get(key);
    if (!set?.metadata.uid) return;
    await adopt(set, signal);
    const owned = world.pods.store.byIndex(ownerIndex, set.metadata.uid);
    const active = owned.filter(isActive);
    const difference = (set.spec.replicas ?? 1) - active.length;
    if (!set.metadata.deletionTimestamp && difference > 0) await grow(set, Math.min(difference, mostAtOnce), signal);
    else if (!set.metadata.deletionTimestamp && difference < 0) await shrink(active, -difference, signal);
    await writeStatus(set, signal);
  }

  async function adopt(set: ReplicaSet, signal: AbortSignal): Promise<void> {
    if (set.metadata.deletionTimestamp) return;
    const selects = labelSelectorRequirements(set.spec.selector);
    const orphans = world.pods.store
      .byIndex('namespace', set.metadata.namespace ?? '')
      .filter(
        (pod) =>
          isActive(pod) &&
          !pod.metadata.ownerReferences?.some(({ controller: is }) => is) &&
          matchesRequirements(selects, pod.metadata.labels),
      );
    for (const { metadata } of orphans)
      await client.patch(
        resources.pods,
        metadata,
        { metadata: { uid: metadata.uid, ownerReferences: [ownedBy(set)] } },
        { type: 'merge', signal },
      );
  }

  async function grow(set: ReplicaSet, count: number, signal: AbortSignal): Promise<void> {
    const { template } = set.spec;
    const pod = {
      metadata: {
        name: '',
        generateName: `${set.metadata.name}-`,
        namespace: set.metadata.namespace!,
        ...(template.metadata?.labels ? { labels: template.metadata.labels } : {}),
        ...(template.metadata?.annotations ? { annotations: template.metadata.annotations } : {}),
        ...(template.metadata?.finalizers ? { finalizers: template.metadata.finalizers } : {}),
        ownerReferences: [ownedBy(set)],
      },
      spec: template.spec,
    };
    const made = await Promise.all(Array.from({ length: count }, () => client.create(resources.pods, pod, { signal })));
    // The cache must have them before the next count, or there would be too many.
    await world.pods.until(
      (store) => made.every(({ metadata }) => store.get(`${metadata.namespace}/${metadata.name}`)),
      signal,
    );
  }

  async function shrink(active: readonly Pod[], count: number, signal: AbortSignal): Promise<void> {
    const doomed = deletionOrder(active).slice(0, Math.min(count, mostAtOnce));
    await Promise.all(
      doomed.map(async ({ metadata }) => {
        try {
          await client.delete(resources.pods, metadata, { preconditions: { uid: metadata.uid! }, signal });
        } catch (error) {
          if (!isNotFound(error)) throw error;
        }
      }),
    );
    await world.pods.until(
      (store) =>
        doomed.every(({ metadata }) => {
          const now = store.get(`${metadata.namespace}/${metadata.name}`);
          return !now || now.metadata.uid !== metadata.uid || now.metadata.deletionTimestamp !== undefined;
        }),
      signal,
    );
  }

  async function writeStatus(set: ReplicaSet, signal: AbortSignal): Promise<void> {
    const owned = world.pods.store.byIndex(ownerIndex, set.metadata.uid!);
    const active = owned.filter(isActive);
    const minReady = set.spec.minReadySeconds ?? 0;
    const waits = active.map((pod) => availableIn(pod, minReady, clock.now()));
    const labels = Object.entries(set.spec.template.metadata?.labels ?? {});
    const soonest = Math.min(...waits.filter((ms) => ms !== undefined && ms > 0).map(Number));
    if (Number.isFinite(soonest))
      controller.queue.wakeAfter(`${set.metadata.namespace}/${set.metadata.name}`, soonest + 5);
    const status = {
      replicas: active.length,
      fullyLabeledReplicas: active.filter(({ metadata }) =>
        labels.every(([name, value]) => metadata.labels?.[name] === value),
      ).length,
      readyReplicas: active.filter(isReady).length,
      availableReplicas: waits.filter((ms) => ms === 0).length,
      terminatingReplicas: owned.filter(({ metadata }) => metadata.deletionTimestamp).length,
      observedGeneration: set.metadata.generation ?? 0,
    };
    const now = set.status ?? {};
    if (Object.entries(status).every(([name, value]) => (now[name as keyof typeof status] ?? 0) === value)) return;
    await client.patch(
      replicaSetResource,
      set.metadata,
      { metadata: { uid: set.metadata.uid }, status },
      { type: 'merge', subresource: 'status', signal },
    );
  }

  return controller;
}

const ownedBy = ({ metadata }: ReplicaSet) => ({
  apiVersion: 'apps/v1',
  kind: 'ReplicaSet',
  name: metadata.name,
  uid: metadata.uid!,
  controller: true,
  blockOwnerDeletion: true,
});
