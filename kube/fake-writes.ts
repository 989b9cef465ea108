// What the fake client's writes do to its store: generated names, conflicts, the status subresource, patches, graceful deletion.
import type { Clock } from '../lib/clock.ts';
import { objectPath } from './api-path.ts';
import type { ObjectName, PatchOptions, WriteOptions } from './client.ts';
import { ApiError } from './errors.ts';
import { type FakeStore, secondsOf } from './fake-store.ts';
import type { Resource } from './resources.ts';
import { applyJsonPatch, applyMergePatch, applyStrategicMergePatch, PatchError } from './strategic-merge.ts';
import type { KubeObject } from './types/meta.ts';

export const refuse = (
  code: ApiError['code'],
  status: number,
  reason: string,
  what: string,
  message: string,
): ApiError => new ApiError(code, `${what}: ${message} (HTTP ${status})`, { status, reason });

export const keyOfName = (resource: Resource, name: ObjectName): string =>
  resource.namespaced && name.namespace ? `${name.namespace}/${name.name}` : name.name;

export const withName = (object: unknown, name: ObjectName): KubeObject => {
  const value = object as KubeObject;
  return { ...value, metadata: { ...value.metadata, ...name } };
};

export const conflict = (verb: string, resource: Resource, name: ObjectName, why: string): ApiError =>
  refuse(
    'conflict',
    409,
    'Conflict',
    `${verb} ${objectPath(resource, name)}`,
    `Operation cannot be fulfilled on ${resource.plural} "${name.name}": ${why}`,
  );

// Virtual resources answer and store nothing; the answer is what a test says by `answer`, or the object itself.
const virtual: ReadonlySet<string> = new Set(['tokenreviews', 'subjectaccessreviews', 'selfsubjectaccessreviews']);

export function createObject(store: FakeStore, resource: Resource, object: KubeObject, opts: WriteOptions): KubeObject {
  if (opts.subresource !== undefined || virtual.has(resource.plural)) return object;
  const name =
    object.metadata.name ||
    `${object.metadata.generateName ?? ''}${Math.random().toString(36).slice(2, 7).padEnd(5, 'x')}`;
  const named = { ...object, metadata: { ...object.metadata, name, generation: 1 } };
  if (store.get(resource, keyOfName(resource, named.metadata)))
    throw refuse(
      'already-exists',
      409,
      'AlreadyExists',
      `create ${objectPath(resource, named.metadata)}`,
      `${resource.plural} "${name}" already exists`,
    );
  return store.put(resource, named);
}

const withStatus: ReadonlySet<string> = new Set(
  'pods nodes services namespaces persistentvolumes persistentvolumeclaims deployments replicasets certificatesigningrequests'.split(
    ' ',
  ),
);

type Loose = KubeObject & { spec?: unknown; status?: unknown };

export function writeObject(
  store: FakeStore,
  verb: 'update' | 'patch',
  resource: Resource,
  before: Loose,
  next: Loose,
  opts: WriteOptions,
): KubeObject {
  const { resourceVersion, uid } = next.metadata;
  if (uid !== undefined && uid !== before.metadata.uid)
    throw conflict(
      verb,
      resource,
      before.metadata,
      `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${before.metadata.uid}`,
    );
  if (resourceVersion && resourceVersion !== before.metadata.resourceVersion)
    throw conflict(
      verb,
      resource,
      before.metadata,
      'the object has been modified; please apply your changes to the latest version and try again',
    );
  let after: Loose = { ...next };
  if (opts.subresource === 'status')
    // Labels and annotations go with the status, as on the real one; the spec does not.
    after = {
      ...before,
      metadata: {
        ...before.metadata,
        ...(next.metadata.labels ? { labels: next.metadata.labels } : {}),
        ...(next.metadata.annotations ? { annotations: next.metadata.annotations } : {}),
      },
      ...(next.status === undefined ? {} : { status: next.status }),
    };
  else if (withStatus.has(resource.plural)) {
    delete after.status;
    if (before.status !== undefined) after.status = before.status;
  }
  const { deletionTimestamp, deletionGracePeriodSeconds, creationTimestamp, generation = 1 } = before.metadata;
  const changed = JSON.stringify(before.spec) !== JSON.stringify(after.spec);
  after.metadata = {
    ...after.metadata,
    ...(creationTimestamp === undefined ? {} : { creationTimestamp }),
    ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    ...(deletionGracePeriodSeconds === undefined ? {} : { deletionGracePeriodSeconds }),
    generation: changed ? generation + 1 : generation,
  };
  if (sameContent(before, after)) return before;
  const stored = store.put(resource, after);
  const { finalizers, deletionGracePeriodSeconds: grace } = stored.metadata;
  if (stored.metadata.deletionTimestamp && !finalizers?.length && before.metadata.finalizers?.length && !grace)
    store.drop(resource, keyOfName(resource, stored.metadata));
  return stored;
}

// A write that changes nothing leaves the resourceVersion as it is.
function sameContent(a: KubeObject, b: KubeObject): boolean {
  const bare = (object: KubeObject): unknown => {
    const { resourceVersion: _, managedFields: __, ...metadata } = object.metadata;
    return { ...object, metadata };
  };
  return JSON.stringify(sorted(bare(a))) === JSON.stringify(sorted(bare(b)));
}

const sorted = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(sorted)
    : typeof value === 'object' && value !== null
      ? Object.fromEntries(
          Object.entries(value)
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .map(([key, field]) => [key, sorted(field)]),
        )
      : value;

export function patchObject(
  before: KubeObject,
  patch: unknown,
  resource: Resource,
  name: ObjectName,
  opts: PatchOptions,
): KubeObject {
  try {
    if (opts.type === 'json') return applyJsonPatch(before, patch) as KubeObject;
    // Server-side apply merges lists by their keys, as the strategic patch does; ownership of fields is not kept.
    const apply =
      opts.type === 'merge' ? applyMergePatch(before, patch) : applyStrategicMergePatch(before, patch, resource.kind);
    return apply as KubeObject;
  } catch (error) {
    if (!(error instanceof PatchError)) throw error;
    throw refuse('invalid', 422, 'Invalid', `patch ${objectPath(resource, name, opts.subresource)}`, error.message);
  }
}

export function removeObject(
  store: FakeStore,
  clock: Clock,
  resource: Resource,
  object: KubeObject,
  asked: number | undefined,
): void {
  const key = keyOfName(resource, object.metadata);
  const { deletionGracePeriodSeconds: running, finalizers } = object.metadata;
  const grace = resource.plural === 'pods' ? podGrace(object, asked) : 0;
  if (grace === 0 && !finalizers?.length) {
    store.drop(resource, key);
    return;
  }
  if (object.metadata.deletionTimestamp && (running ?? 0) <= grace) return;
  const metadata = {
    ...object.metadata,
    deletionTimestamp: secondsOf(clock.now() + grace * 1000),
    deletionGracePeriodSeconds: grace,
  };
  store.put(resource, { ...object, metadata });
}

// A pod that no node runs, or that has ended, goes at once.
function podGrace(object: KubeObject, asked: number | undefined): number {
  const pod = object as KubeObject & {
    spec?: { nodeName?: string; terminationGracePeriodSeconds?: number };
    status?: { phase?: string };
  };
  if (!pod.spec?.nodeName || pod.status?.phase === 'Failed' || pod.status?.phase === 'Succeeded') return 0;
  return asked ?? pod.spec.terminationGracePeriodSeconds ?? 30;
}
