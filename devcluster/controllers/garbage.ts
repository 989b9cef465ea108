// Removes what belongs to owners that are gone, and what is in namespaces that are going.
import { isConflict, isNotFound } from '../../kube/errors.ts';
import type { Resource } from '../../kube/resources.ts';
import { resources } from '../../kube/resources.ts';
import type { Namespace } from '../../kube/types/core.ts';
import type { KubeObject } from '../../kube/types/meta.ts';
import { kinds } from '../kinds.ts';
import { type Controller, createController } from './loop.ts';
import { type Cache, createCache, type ControllerDeps, namespaceIndex, ownerIndex } from './world.ts';

interface Tracked {
  readonly resource: Resource;
  readonly cache: Cache<KubeObject>;
}

const untracked = ['Event', 'Lease', 'Endpoints', 'ServiceCIDR'];

/** Watches every kind that may own or be owned. */
export const trackedKinds = (deps: ControllerDeps): Tracked[] =>
  kinds
    .filter(({ virtual, resource }) => !virtual && !untracked.includes(resource.kind))
    .map(({ resource }) => ({ resource, cache: createCache(deps, resource) }));

export function createGarbageCollector(deps: ControllerDeps, tracked: readonly Tracked[]): Controller {
  const { client } = deps;
  const byUid = new Map<string, { resource: Resource; object: KubeObject }>();
  const controller = createController(deps, 'garbage', reconcile);

  for (const { resource, cache } of tracked)
    cache.onChange(({ before, after }) => {
      const gone = before?.metadata.uid;
      if (gone && gone !== after?.metadata.uid) {
        byUid.delete(gone);
        for (const { object } of dependentsOf(gone)) controller.queue.wake(object.metadata.uid!);
      }
      for (const { uid } of before?.metadata.ownerReferences ?? [])
        if (byUid.get(uid)?.object.metadata.deletionTimestamp) controller.queue.wake(uid);
      const uid = after?.metadata.uid;
      if (!after || !uid) return;
      byUid.set(uid, { resource, object: after });
      if (after.metadata.ownerReferences?.length || after.metadata.deletionTimestamp) controller.queue.wake(uid);
    });

  const dependentsOf = (uid: string): { resource: Resource; object: KubeObject }[] =>
    tracked.flatMap(({ resource, cache }) =>
      cache.store.byIndex(ownerIndex, uid).map((object) => ({ resource, object })),
    );

  async function reconcile(uid: string, signal: AbortSignal): Promise<void> {
    const found = byUid.get(uid);
    if (!found) return;
    const { resource, object } = found;
    if (object.metadata.deletionTimestamp) return finish(resource, object, signal);
    const owners = object.metadata.ownerReferences ?? [];
    if (owners.length === 0) return;
    for (const owner of owners) if (await exists(owner, object.metadata.namespace, signal)) return;
    await remove(resource, object, signal);
  }

  /** The cache may not have seen a new owner yet, so its absence is asked about. */
  async function exists(
    owner: { apiVersion: string; kind: string; name: string; uid: string },
    namespace: string | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (byUid.has(owner.uid)) return true;
    const [version = '', group = ''] = owner.apiVersion.split('/').reverse();
    const kind = tracked.find(
      ({ resource }) => resource.group === group && resource.version === version && resource.kind === owner.kind,
    );
    // An owner of a kind nobody here knows is taken at its word.
    if (!kind) return true;
    try {
      const there = await client.get(
        kind.resource,
        { name: owner.name, ...(kind.resource.namespaced && namespace ? { namespace } : {}) },
        { signal },
      );
      return there.metadata.uid === owner.uid;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  async function finish(resource: Resource, object: KubeObject, signal: AbortSignal): Promise<void> {
    const { finalizers = [], uid } = object.metadata;
    const dependents = dependentsOf(uid!);
    if (finalizers.includes('orphan')) {
      for (const one of dependents) {
        const ownerReferences = (one.object.metadata.ownerReferences ?? []).filter((owner) => owner.uid !== uid);
        await client.patch(
          one.resource,
          one.object.metadata,
          { metadata: { ownerReferences } },
          { type: 'merge', signal },
        );
      }
      await dropFinalizer(resource, object, 'orphan', signal);
    } else if (finalizers.includes('foregroundDeletion')) {
      const blocking = dependents.filter((one) =>
        one.object.metadata.ownerReferences?.some((owner) => owner.uid === uid && owner.blockOwnerDeletion),
      );
      for (const one of dependents)
        if (!one.object.metadata.deletionTimestamp) await remove(one.resource, one.object, signal, 'Foreground');
      if (blocking.length === 0) await dropFinalizer(resource, object, 'foregroundDeletion', signal);
    }
  }

  async function dropFinalizer(
    resource: Resource,
    { metadata }: KubeObject,
    finalizer: string,
    signal: AbortSignal,
  ): Promise<void> {
    const finalizers = (metadata.finalizers ?? []).filter((one) => one !== finalizer);
    await client.patch(
      resource,
      metadata,
      { metadata: { uid: metadata.uid, resourceVersion: metadata.resourceVersion, finalizers } },
      { type: 'merge', signal },
    );
  }

  async function remove(
    resource: Resource,
    { metadata }: KubeObject,
    signal: AbortSignal,
    propagationPolicy: 'Background' | 'Foreground' = 'Background',
  ): Promise<void> {
    try {
      await client.delete(resource, metadata, { preconditions: { uid: metadata.uid! }, propagationPolicy, signal });
    } catch (error) {
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }

  return controller;
}

/** Empties a namespace that is to go, then lets it go. */
export function createNamespaceCleaner(
  deps: ControllerDeps,
  tracked: readonly Tracked[],
  namespaces: Cache<Namespace>,
): Controller {
  const { client } = deps;
  const namespaced = tracked.filter(({ resource }) => resource.namespaced);
  const controller = createController(deps, 'namespace', reconcile);
  namespaces.onChange(({ key, after }) => {
    if (after?.metadata.deletionTimestamp) controller.queue.wake(key);
  });
  for (const { cache } of namespaced)
    cache.onChange(({ before, after }) => {
      const name = (after ?? before)?.metadata.namespace ?? '';
      if (namespaces.store.get(name)?.metadata.deletionTimestamp) controller.queue.wake(name);
    });

  async function reconcile(name: string, signal: AbortSignal): Promise<void> {
    const namespace = namespaces.store.get(name);
    if (!namespace?.metadata.deletionTimestamp) return;
    let left = 0;
    for (const { resource, cache } of namespaced)
      for (const { metadata } of cache.store.byIndex(namespaceIndex, name)) {
        left += 1;
        if (metadata.deletionTimestamp) continue;
        await client.delete(resource, metadata, { propagationPolicy: 'Background', signal }).catch((error: unknown) => {
          if (!isNotFound(error)) throw error;
        });
      }
    if (left > 0) return;
    for (const resource of [resources.events, resources.leases] as const) {
      const { items } = await client.list<KubeObject>(resource, { namespace: name, signal });
      for (const { metadata } of items) await client.delete(resource, metadata, { signal }).catch(() => undefined);
    }
    const finalizers = (namespace.spec?.finalizers ?? []).filter((one) => one !== 'kubernetes');
    await client.update(
      resources.namespaces,
      { ...namespace, spec: { finalizers } },
      { subresource: 'finalize', signal },
    );
  }

  return controller;
}
