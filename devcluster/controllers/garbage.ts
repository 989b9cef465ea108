// Removes what belongs to owners that are gone, and what is in namespaces that are going.
import { isConflict, isNotFound } from '../../kube/errors.ts';
import { type Resource, resources } from '../../kube/resources.ts';
import type { KubeObject, OwnerReference } from '../../kube/types/meta.ts';
import { apiVersionOf } from '../kinds.ts';
import { unless, type World } from './world.ts';

interface Found {
  readonly resource: Resource;
  readonly object: KubeObject;
}

export function createGarbageCollector(world: World) {
  const { client } = world;
  const byUid = new Map<string, Found>();
  const controller = world.controller('garbage', reconcile);

  for (const { resource, onChange } of world.all)
    onChange(({ before, after }) => {
      const gone = before?.metadata.uid;
      if (gone && gone !== after?.metadata.uid) {
        byUid.delete(gone);
        for (const { object } of dependentsOf(before)) controller.wake(object.metadata.uid!);
      }
      for (const { uid } of before?.metadata.ownerReferences ?? [])
        if (byUid.get(uid)?.object.metadata.deletionTimestamp) controller.wake(uid);
      const { uid, ownerReferences, deletionTimestamp } = after?.metadata ?? {};
      if (!after || !uid) return;
      byUid.set(uid, { resource, object: after });
      if (ownerReferences?.length || deletionTimestamp) controller.wake(uid);
    });

  const dependentsOf = (owner: KubeObject): Found[] =>
    world.all.flatMap(({ resource, ownedBy }) => ownedBy(owner).map((object) => ({ resource, object })));

  async function reconcile(uid: string, signal: AbortSignal): Promise<void> {
    const found = byUid.get(uid);
    if (!found) return;
    const { metadata } = found.object;
    const owners = metadata.ownerReferences ?? [];
    if (metadata.deletionTimestamp) return finish(found, signal);
    for (const owner of owners) if (await exists(owner, metadata.namespace, signal)) return;
    if (owners.length > 0) await remove(found, 'Background', signal);
  }

  /** The cache may not have seen a new owner yet, so its absence is asked about. */
  async function exists(owner: OwnerReference, namespace: string | undefined, signal: AbortSignal): Promise<boolean> {
    const { kind, apiVersion, name, uid } = owner;
    const cache = world.all.find(({ resource }) => resource.kind === kind && apiVersionOf(resource) === apiVersion);
    // An owner of a kind nobody here knows is taken at its word.
    if (!cache || byUid.has(uid)) return true;
    const where = cache.resource.namespaced && namespace ? { name, namespace } : { name };
    const there = await client.get(cache.resource, where, { signal }).catch(unless(isNotFound));
    return there?.metadata.uid === uid;
  }

  async function finish(owner: Found, signal: AbortSignal): Promise<void> {
    const { finalizers = [], uid = '' } = owner.object.metadata;
    const dependents = dependentsOf(owner.object);
    const ownersOf = ({ object }: Found): OwnerReference[] => object.metadata.ownerReferences ?? [];
    if (finalizers.includes('orphan')) {
      for (const one of dependents) {
        const ownerReferences = ownersOf(one).filter((reference) => reference.uid !== uid);
        const patch = { metadata: { ownerReferences } };
        await client.patch(one.resource, one.object.metadata, patch, { type: 'merge', signal });
      }
      await dropFinalizer(owner, 'orphan', signal);
    } else if (finalizers.includes('foregroundDeletion')) {
      for (const one of dependents) if (!one.object.metadata.deletionTimestamp) await remove(one, 'Foreground', signal);
      const blocks = (reference: OwnerReference): boolean => reference.uid === uid && !!reference.blockOwnerDeletion;
      if (!dependents.some((one) => ownersOf(one).some(blocks)))
        await dropFinalizer(owner, 'foregroundDeletion', signal);
    }
  }

  async function dropFinalizer({ resource, object }: Found, finalizer: string, signal: AbortSignal): Promise<void> {
    const { uid, resourceVersion, finalizers = [] } = object.metadata;
    const left = finalizers.filter((one) => one !== finalizer);
    const patch = { metadata: { uid, resourceVersion, finalizers: left } };
    await client.patch(resource, object.metadata, patch, { type: 'merge', signal });
  }

  async function remove(
    { resource, object: { metadata } }: Found,
    propagationPolicy: 'Background' | 'Foreground',
    signal: AbortSignal,
  ): Promise<void> {
    const options = { preconditions: { uid: metadata.uid! }, propagationPolicy, signal };
    await client.delete(resource, metadata, options).catch(unless((error) => isNotFound(error) || isConflict(error)));
  }

  return controller;
}

/** Empties a namespace that is to go, then lets it go. */
export function createNamespaceCleaner(world: World) {
  const { client, namespaces } = world;
  const isGoing = (name: string): boolean => namespaces.get(name)?.metadata.deletionTimestamp !== undefined;
  const inside = world.all.filter(({ resource }) => resource.namespaced);
  const controller = world.controller('namespace', async (name, signal) => {
    const namespace = namespaces.get(name);
    if (!namespace || !isGoing(name)) return;
    const left = inside.flatMap(({ resource, inNamespace }) =>
      inNamespace(name).map(({ metadata }) => ({ resource, metadata })),
    );
    for (const { resource, metadata } of left)
      if (!metadata.deletionTimestamp)
        await client.delete(resource, metadata, { propagationPolicy: 'Background', signal }).catch(unless(isNotFound));
    if (left.length > 0) return;
    for (const resource of [resources.events, resources.leases] as readonly Resource[])
      for (const { metadata } of (await client.list(resource, { namespace: name, signal })).items)
        await client.delete(resource, metadata, { signal }).catch(unless(isNotFound));
    const finalizers = (namespace.spec?.finalizers ?? []).filter((one) => one !== 'kubernetes');
    const options = { subresource: 'finalize', signal };
    await client.update(resources.namespaces, { ...namespace, spec: { finalizers } }, options);
  });
  namespaces.onChange(({ key }) => controller.wake(key));
  for (const cache of inside)
    cache.onChange(({ before, after }) => {
      const name = (after ?? before)?.metadata.namespace ?? '';
      if (isGoing(name)) controller.wake(name);
    });
  return controller;
}
