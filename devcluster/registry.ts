// Creates, updates and deletes objects of any kind by the API's rules: versions, generations, preconditions, finalizers, grace.
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../lib/clock.ts';
import type { Pod } from '../kube/types/pod.ts';
import {
  alreadyExists,
  badRequest,
  conflict,
  Failure,
  forbiddenField,
  invalid,
  notFound,
  required,
} from './failure.ts';
import { collectionNameOf, type Kind, kindByName } from './kinds.ts';
import { randomSuffix, timestamp } from './names.ts';
import type { Collection, Obj, Storage } from './store.ts';
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
  readonly orphanDependents?: boolean;
}

export interface RegistryDeps {
  readonly clock: Clock;
  readonly storage: Storage;
  random(): number;
}

export type Registry = ReturnType<typeof createRegistry>;

export function createRegistry(deps: RegistryDeps, options: { readonly serviceCidr: string }) {
  const { clock, storage } = deps;
  const collectionOf = (kind: Kind): Collection => storage.collection(collectionNameOf(kind));
  const find = <T>(plural: string, namespace: string | undefined, name: string): T | undefined =>
    collectionOf(kindByName(plural)).get(namespace, name) as T | undefined;
  const all = <T>(plural: string, namespace?: string): readonly T[] =>
    collectionOf(kindByName(plural)).list(namespace) as readonly unknown[] as readonly T[];
  const context: StrategyContext = { serviceCidr: options.serviceCidr, find, all, random: deps.random };

  const read = (kind: Kind, namespace: string | undefined, name: string): Obj => {
    const found = collectionOf(kind).get(namespace, name);
    if (!found) throw notFound(kind.resource, name);
    return found;
  };

  return {
    collectionOf,
    find,
    all,
    read,

    create(kind: Kind, object: Obj, { dryRun }: WriteOptions = {}): Obj {
      const { resource } = kind;
      const { metadata } = object;
      if (metadata.resourceVersion) throw badRequest('resourceVersion should not be set on objects to be created');
      if (!metadata.name && metadata.generateName) metadata.name = `${metadata.generateName}${randomSuffix()}`;
      if (!metadata.name) throw invalid(resource, '', [required('metadata.name', 'name or generateName is required')]);
      if (resource.namespaced) checkNamespace(kind, object, find('namespaces', undefined, metadata.namespace!));
      if (collectionOf(kind).get(metadata.namespace, metadata.name)) throw alreadyExists(resource, metadata.name);
      Object.assign(metadata, { uid: randomUUID(), creationTimestamp: timestamp(clock.now()) });
      delete metadata.deletionTimestamp;
      delete metadata.deletionGracePeriodSeconds;
      if (kind.counts) metadata.generation = 1;
      if (kind.hasStatus) object.status = resource.kind === 'Node' ? (object.status ?? {}) : {};
      const causes = validateName(resource.kind, resource.group, metadata.name);
      causes.push(...prepare(kind, object, undefined, context));
      if (causes.length > 0) throw invalid(resource, metadata.name, causes);
      dropEmpty(object);
      return dryRun ? { ...object, metadata: { ...metadata, resourceVersion: '' } } : collectionOf(kind).put(object);
    },

    /** `change` is given what is there and returns what shall be. */
    update(
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
      const { deletionTimestamp, deletionGracePeriodSeconds } = next.metadata;
      const done = deletionTimestamp && !deletionGracePeriodSeconds && !isHeld(kind, next);
      return done ? collectionOf(kind).remove(next) : collectionOf(kind).put(next);
    },

    /** `gone` says whether the object is there no more. */
    remove(
      kind: Kind,
      namespace: string | undefined,
      name: string,
      request: DeletionRequest,
      { dryRun }: WriteOptions = {},
    ): { object: Obj; gone: boolean } {
      const current = read(kind, namespace, name);
      const { metadata } = current;
      checkPreconditions(kind, current, request.preconditions);
      const finalizers = new Set(metadata.finalizers ?? []);
      if (request.propagationPolicy === 'Foreground') finalizers.add('foregroundDeletion');
      else if (request.propagationPolicy === 'Orphan' || request.orphanDependents) finalizers.add('orphan');
      const grace = graceOf(kind, current, request);
      const held = isHeld(kind, { ...current, metadata: { ...metadata, finalizers: [...finalizers] } });
      const left = metadata.deletionGracePeriodSeconds ?? 0;
      // A second deletion can only shorten the time that is left.
      if (metadata.deletionTimestamp && grace >= left && (left > 0 || held)) return { object: current, gone: false };
      const isPod = kind.resource.kind === 'Pod';
      const marks = { deletionTimestamp: timestamp(clock.now() + grace * 1000), deletionGracePeriodSeconds: grace };
      const generation =
        kind.counts && !metadata.deletionTimestamp ? { generation: (metadata.generation ?? 0) + 1 } : {};
      const marked = { ...current, metadata: { ...metadata, ...marks } };
      if (grace === 0 && !held) {
        const last = isPod ? marked : current;
        return { object: dryRun ? current : collectionOf(kind).remove(last), gone: true };
      }
      const kept = finalizers.size > 0 ? { finalizers: [...finalizers] } : {};
      const next: Obj = { ...marked, metadata: { ...marked.metadata, ...generation, ...kept } };
      if (kind.resource.kind === 'Namespace') next.status = { ...(next.status as object), phase: 'Terminating' };
      return { object: dryRun ? next : collectionOf(kind).put(next), gone: false };
    },
  };
}

/** Throws where the namespace is not there; one that is going away takes nothing new. */
function checkNamespace({ resource }: Kind, { metadata }: Obj, namespace: Obj | undefined): void {
  if (!namespace) throw notFound(kindByName('namespaces').resource, metadata.namespace!);
  if (!namespace.metadata.deletionTimestamp) return;
  const message = `namespace ${metadata.namespace} is being terminated`;
  throw new Failure(
    403,
    'Forbidden',
    `${resource.plural} "${metadata.name}" is forbidden: unable to create new content in namespace ${metadata.namespace} because it is being terminated`,
    { causes: [{ reason: 'NamespaceTerminating', message, field: 'metadata.namespace' }] },
  );
}

// An object is there until its finalizers are taken away; a namespace has one more in its spec.
const isHeld = (kind: Kind, { metadata, spec }: Obj): boolean =>
  (metadata.finalizers?.length ?? 0) > 0 ||
  (kind.resource.kind === 'Namespace' && ((spec as { finalizers?: string[] })?.finalizers?.length ?? 0) > 0);

function graceOf(kind: Kind, object: Obj, request: DeletionRequest): number {
  const { spec, status } = object as unknown as Pod;
  if (kind.resource.kind !== 'Pod' || !spec.nodeName) return 0;
  if (status?.phase === 'Succeeded' || status?.phase === 'Failed') return 0;
  const asked = request.gracePeriodSeconds ?? spec.terminationGracePeriodSeconds ?? 30;
  return asked < 0 ? 1 : asked;
}

function checkPreconditions(kind: Kind, { metadata }: Obj, wanted: DeletionRequest['preconditions']): void {
  for (const [field, words] of [
    ['uid', 'UID'],
    ['resourceVersion', 'ResourceVersion'],
  ] as const)
    if (wanted?.[field] && wanted[field] !== metadata[field]) {
      const why = `${words} in precondition: ${wanted[field]}, ${words} in object meta: ${metadata[field]}`;
      throw conflict(kind.resource, metadata.name, `Precondition failed: ${why}`);
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
  const added = (metadata.finalizers ?? []).filter((one) => !kept.finalizers?.includes(one));
  if (kept.deletionTimestamp && added.length > 0) {
    const why = `no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`;
    throw invalid(kind.resource, kept.name, [forbiddenField('metadata.finalizers', why)]);
  }
  const spec = current.spec as Record<string, unknown>;
  const asked = (wanted.spec ?? {}) as Record<string, unknown>;
  switch (part) {
    case undefined:
      return kind.hasStatus ? { ...wanted, metadata, status: current.status } : { ...wanted, metadata };
    case 'status':
      return { ...current, metadata, status: wanted.status ?? {} };
    case 'finalize':
      return { ...current, spec: asked };
    case 'ephemeralcontainers':
      return { ...current, spec: { ...spec, ephemeralContainers: asked.ephemeralContainers } };
    case 'resize':
      return { ...current, spec: resized(spec, asked) };
    default:
      return { ...wanted, metadata };
  }
}

type Named = { readonly name: string; readonly resources?: unknown };

function resized(spec: Record<string, unknown>, asked: Record<string, unknown>): Record<string, unknown> {
  const merged = ['containers', 'initContainers']
    .filter((field) => spec[field])
    .map((field) => {
      const next = (asked[field] ?? []) as readonly Named[];
      const resourcesOf = (one: Named): unknown =>
        next.find(({ name }) => name === one.name)?.resources ?? one.resources;
      return [field, (spec[field] as readonly Named[]).map((one) => ({ ...one, resources: resourcesOf(one) }))];
    });
  return { ...spec, ...Object.fromEntries(merged), ...(asked.resources ? { resources: asked.resources } : {}) };
}

// The API leaves out what is empty.
function dropEmpty({ metadata }: Obj): void {
  for (const field of ['labels', 'annotations', 'finalizers', 'ownerReferences', 'managedFields'] as const)
    if (Object.keys(metadata[field] ?? {}).length === 0) delete metadata[field];
}

const desired = ({ metadata: _, status: __, ...rest }: Obj): unknown => plain(rest);
