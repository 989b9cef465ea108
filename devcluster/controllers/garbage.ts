// Removes what belongs to owners that are gone.
import { apiVersionOf } from '../../kube/api-path.ts';
import { isConflict, isNotFound } from '../../kube/errors.ts';
import type { Resource } from '../../kube/resources.ts';
import type { KubeObject, OwnerReference } from '../../kube/types/meta.ts';
import { unless, type World } from './world.ts';

export function createGarbageCollector(world: World) {
  const { client } = world;
  const byUid = new Map<string, { readonly resource: Resource; readonly object: KubeObject }>();
  const controller = world.controller('garbage', reconcile);

  for (const { resource, onChange } of world.all)
    onChange(({ before, after }) => {
      const { uid = '', ownerReferences } = after?.metadata ?? {};
      if (before && before.metadata.uid !== uid) {
        byUid.delete(before.metadata.uid!);
        for (const { ownedBy } of world.all) for (const { metadata } of ownedBy(before)) controller.wake(metadata.uid!);
      }
      if (after) byUid.set(uid, { resource, object: after });
      if (ownerReferences?.length) controller.wake(uid);
    });

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const found = byUid.get(key);
    if (!found || found.object.metadata.deletionTimestamp) return;
    const { uid = '', name, namespace, ownerReferences = [] } = found.object.metadata;
    for (const owner of ownerReferences) if (await exists(owner, namespace, signal)) return;
    const options = { preconditions: { uid }, propagationPolicy: 'Background', signal } as const;
    const gone = unless((error) => isNotFound(error) || isConflict(error));
    if (ownerReferences.length > 0)
      await client.delete(found.resource, { name, ...(namespace ? { namespace } : {}) }, options).catch(gone);
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

  return controller;
}
