// Creates, updates and deletes objects of any kind by the API's rules: versions, generations, preconditions, finalizers, grace.
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Collection, History } from '../kube/history.ts';
import type { Pod } from '../kube/types/pod.ts';
import type { Clock } from '../lib/clock.ts';
import { alreadyExists, badRequest, conflict, invalid, notFound, required } from './failure.ts';
import { type Kind, kindByName, kinds, type Obj } from './kinds.ts';
import { randomSuffix, timestamp } from './names.ts';
import { plain, prepare, type StrategyContext } from './strategies.ts';
import { validateName } from './validate.ts';

export interface WriteOptions {
  readonly dryRun?: boolean;
  /** The subresource that is written; absent: the object itself. */
  readonly part?: string | undefined;
}

export interface DeletionRequest {
  readonly gracePeriodSeconds?: number;
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string };
  readonly propagationPolicy?: string;
}

export interface RegistryDeps {
  readonly clock: Clock;
  readonly storage: History<Obj>;
  random(): number;
}

export type Registry = ReturnType<typeof createRegistry>;

export function createRegistry(deps: RegistryDeps, options: { readonly serviceCidr: string }) {
  const { clock, storage } = deps;
  const collectionOf = ({ resource }: Kind): Collection<Obj> => storage.collection(resource.plural);
  const find = <T>(plural: string, namespace: string | undefined, name: string): T | undefined =>
    storage.collection(plural).get(namespace ? `${namespace}/${name}` : name) as T | undefined;
  const all = <T>(plural: string): readonly T[] =>
    storage.collection(plural).list() as readonly unknown[] as readonly T[];
  const context: StrategyContext = { serviceCidr: options.serviceCidr, find, all, random: deps.random };

  const read = (kind: Kind, namespace: string | undefined, name: string): Obj => {
    const found = find<Obj>(kind.resource.plural, namespace, name);
    if (!found) throw notFound(kind.resource, name);
    return found;
  };

  function create(kind: Kind, object: Obj, { dryRun }: WriteOptions = {}): Obj {
    const { resource } = kind;
    const { metadata } = object;
    if (metadata.resourceVersion) throw badRequest('resourceVersion should not be set on objects to be created');
    if (!metadata.name && metadata.generateName) metadata.name = `${metadata.generateName}${randomSuffix()}`;
    if (!metadata.name) throw invalid(resource, '', [required('metadata.name', 'name or generateName is required')]);
    if (resource.namespaced) read(kindByName('namespaces'), undefined, metadata.namespace!);
    if (find(resource.plural, metadata.namespace, metadata.name)) throw alreadyExists(resource, metadata.name);
    Object.assign(metadata, { uid: randomUUID(), creationTimestamp: timestamp(clock.now()) });
    delete metadata.deletionTimestamp;
    delete metadata.deletionGracePeriodSeconds;
    if (kind.counts) metadata.generation = 1;
    if (kind.hasStatus) object.status = resource.kind === 'Node' ? (object.status ?? {}) : {};
    const causes = [...validateName(resource.kind, metadata.name), ...prepare(kind, object, undefined, context)];
    if (causes.length > 0) throw invalid(resource, metadata.name, causes);
    dropEmpty(object);
    return dryRun ? object : collectionOf(kind).put(object);
  }

  /** `change` is given what is there and returns what shall be. */
  function update(
    kind: Kind,
    namespace: string | undefined,
    name: string,
    { dryRun, part }: WriteOptions,
    change: (current: Obj) => Obj,
  ): Obj {
    const current = read(kind, namespace, name);
    const wanted = change(current);
    checkIdentity(kind, name, current, wanted);
    const next = structuredClone(take(kind, part, current, wanted));
    const causes = part ? [] : prepare(kind, next, current, context);
    if (causes.length > 0) throw invalid(kind.resource, name, causes);
    if (kind.counts && part !== 'status' && !isDeepStrictEqual(desired(next), desired(current)))
      next.metadata.generation = (current.metadata.generation ?? 0) + 1;
    if (isDeepStrictEqual(plain(next), plain(current))) return current;
    dropEmpty(next);
    if (dryRun) return next;
    const { deletionTimestamp, deletionGracePeriodSeconds, finalizers } = next.metadata;
    const done = deletionTimestamp && !deletionGracePeriodSeconds && !finalizers?.length;
    return done ? collectionOf(kind).remove(next) : collectionOf(kind).put(next);
  }

  /** `gone` says whether the object is there no more. */
  function remove(
    kind: Kind,
    namespace: string | undefined,
    name: string,
    request: DeletionRequest,
    { dryRun }: WriteOptions = {},
  ): { object: Obj; gone: boolean } {
    const current = read(kind, namespace, name);
    const { metadata } = current;
    checkPreconditions(kind, current, request.preconditions);
    if (request.propagationPolicy === 'Orphan')
      throw badRequest('this control plane deletes what belongs to an object with it: it cannot orphan');
    const grace = graceOf(kind, current, request);
    const held = (metadata.finalizers?.length ?? 0) > 0;
    const left = metadata.deletionGracePeriodSeconds ?? 0;
    // A second deletion can only shorten the time that is left.
    if (metadata.deletionTimestamp && grace >= left && (left > 0 || held)) return { object: current, gone: false };
    const gone = grace === 0 && !held;
    if (dryRun) return { object: current, gone };
    // What is in a namespace goes with it: pods in their own time.
    if (gone && kind.resource.kind === 'Namespace')
      for (const inside of kinds.filter(({ resource }) => resource.namespaced))
        for (const one of collectionOf(inside).list(name)) remove(inside, name, one.metadata.name, {});
    const generation = (metadata.generation ?? 0) + (kind.counts && !metadata.deletionTimestamp ? 1 : 0);
    const deletionTimestamp = timestamp(clock.now() + grace * 1000);
    const marks = { deletionTimestamp, deletionGracePeriodSeconds: grace, ...(kind.counts ? { generation } : {}) };
    const next = { ...current, metadata: { ...metadata, ...marks } };
    if (!gone) return { object: collectionOf(kind).put(next), gone };
    return { object: collectionOf(kind).remove(kind.resource.kind === 'Pod' ? next : current), gone };
  }

  return { collectionOf, find, all, read, create, update, remove };
}

function graceOf(kind: Kind, object: Obj, request: DeletionRequest): number {
  const { spec, status } = object as unknown as Pod;
  if (kind.resource.kind !== 'Pod' || !spec.nodeName) return 0;
  if (status?.phase === 'Succeeded' || status?.phase === 'Failed') return 0;
  const asked = request.gracePeriodSeconds ?? spec.terminationGracePeriodSeconds ?? 30;
  return asked < 0 ? 1 : asked;
}

function checkPreconditions(kind: Kind, { metadata }: Obj, wanted: DeletionRequest['preconditions']): void {
  const fields = { uid: 'UID', resourceVersion: 'ResourceVersion' } as const;
  for (const [field, words] of Object.entries(fields) as ['uid' | 'resourceVersion', string][]) {
    const why = `${words} in precondition: ${wanted?.[field]}, ${words} in object meta: ${metadata[field]}`;
    const differs = wanted?.[field] && wanted[field] !== metadata[field];
    if (differs) throw conflict(kind.resource, metadata.name, `Precondition failed: ${why}`);
  }
}

function checkIdentity(kind: Kind, name: string, current: Obj, wanted: Obj): void {
  if (!wanted.metadata) throw badRequest('metadata is missing');
  const { resourceVersion, uid, name: said = name } = wanted.metadata;
  if (said !== name) throw badRequest(`the name of the object (${said}) does not match the name on the URL (${name})`);
  checkPreconditions(kind, current, uid ? { uid } : {});
  if (resourceVersion && resourceVersion !== current.metadata.resourceVersion) throw conflict(kind.resource, name);
}

// What of the wanted object counts, depending on the subresource that is written.
function take(kind: Kind, part: string | undefined, current: Obj, wanted: Obj): Obj {
  const kept = current.metadata;
  // The rest of the metadata is the server's own.
  const { labels, annotations, finalizers, ownerReferences, managedFields } = wanted.metadata;
  const metadata = { ...kept, labels, annotations, finalizers, ownerReferences, managedFields } as Obj['metadata'];
  const spec = current.spec as Pod['spec'];
  const asked = (wanted.spec ?? {}) as Pod['spec'];
  switch (part) {
    case 'status':
      return { ...current, metadata, status: wanted.status ?? {} };
    case 'ephemeralcontainers':
      return { ...current, spec: { ...spec, ephemeralContainers: asked.ephemeralContainers } };
    default:
      return kind.hasStatus ? { ...wanted, metadata, status: current.status } : { ...wanted, metadata };
  }
}

// The API leaves out what is empty.
function dropEmpty({ metadata }: Obj): void {
  for (const field of ['labels', 'annotations', 'finalizers', 'ownerReferences', 'managedFields'] as const)
    if (Object.keys(metadata[field] ?? {}).length === 0) delete metadata[field];
}

const desired = ({ metadata: _, status: __, ...rest }: Obj): unknown => plain(rest);
