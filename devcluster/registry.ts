// Creates, updates and deletes objects of any kind by the API's rules: versions, generations, preconditions, finalizers, grace.
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../lib/clock.ts';
import type { Pod } from '../kube/types/pod.ts';
import { alreadyExists, badRequest, conflict, Failure, invalid, notFound } from './failure.ts';
import { collectionNameOf, type Kind } from './kinds.ts';
import { newUid, randomSuffix, timestamp } from './names.ts';
import type { Collection, Obj, Storage } from './store.ts';
import { checkNamespace, type StrategyContext, strategyOf } from './strategies.ts';
import { validateName } from './validate.ts';

export interface User {
  readonly name: string;
  readonly groups: readonly string[];
  readonly uid?: string;
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

export interface WriteContext {
  readonly user: User;
  readonly dryRun: boolean;
}

export interface DeletionRequest {
  readonly gracePeriodSeconds?: number;
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string };
  readonly propagationPolicy?: string;
  readonly orphanDependents?: boolean;
}

export interface Registry {
  collectionOf(kind: Kind): Collection;
  read(kind: Kind, namespace: string | undefined, name: string): Obj;
  create(kind: Kind, object: Obj, context: WriteContext): Obj;
  /** `change` is given what is there and returns what shall be; `part` limits the write to a subresource. */
  update(
    kind: Kind,
    namespace: string | undefined,
    name: string,
    context: WriteContext & { readonly part?: string | undefined },
    change: (current: Obj) => Obj,
  ): Obj;
  /** `gone` says whether the object is there no more. */
  remove(
    kind: Kind,
    namespace: string | undefined,
    name: string,
    request: DeletionRequest,
    context: WriteContext,
  ): { object: Obj; gone: boolean };
}

export interface RegistryDeps {
  readonly clock: Clock;
  readonly storage: Storage;
  random(): number;
}

export function createRegistry(deps: RegistryDeps, options: { readonly serviceCidrs: readonly string[] }): Registry {
  const { clock, storage } = deps;
  const collectionOf = (kind: Kind): Collection => storage.collection(collectionNameOf(kind));
  const contextFor = (user: User): StrategyContext => ({
    storage,
    serviceCidrs: options.serviceCidrs,
    now: clock.now(),
    user,
    random: deps.random,
  });

  const read = (kind: Kind, namespace: string | undefined, name: string): Obj => {
    const found = collectionOf(kind).get(namespace, name);
    if (!found) throw notFound(kind.resource, name);
    return found;
  };

  const commit = (kind: Kind, object: Obj, dryRun: boolean): Obj => {
    dropEmpty(object);
    const { deletionTimestamp, finalizers, deletionGracePeriodSeconds } = object.metadata;
    const done = deletionTimestamp && !finalizers?.length && !deletionGracePeriodSeconds && !held(kind, object);
    if (dryRun) return object;
    return done ? collectionOf(kind).remove(object) : collectionOf(kind).put(object);
  };

  return {
    collectionOf,
    read,
    create(kind, object, { user, dryRun }) {
      const { resource } = kind;
      const { metadata } = object;
      if (metadata.resourceVersion) throw badRequest('resourceVersion should not be set on objects to be created');
      if (!metadata.name && metadata.generateName) metadata.name = `${metadata.generateName}${randomSuffix()}`;
      if (!metadata.name)
        throw invalid(resource, '', [
          {
            reason: 'FieldValueRequired',
            field: 'metadata.name',
            message: 'Required value: name or generateName is required',
          },
        ]);
      const context = contextFor(user);
      if (resource.namespaced && checkNamespace(context, metadata.namespace!) === 'terminating')
        throw new Failure(
          403,
          'Forbidden',
          `${resource.plural} "${metadata.name}" is forbidden: unable to create new content in namespace ${metadata.namespace} because it is being terminated`,
          {
            causes: [
              {
                reason: 'NamespaceTerminating',
                message: `namespace ${metadata.namespace} is being terminated`,
                field: 'metadata.namespace',
              },
            ],
          },
        );
      if (collectionOf(kind).get(metadata.namespace, metadata.name)) throw alreadyExists(resource, metadata.name);
      metadata.uid = newUid();
      metadata.creationTimestamp = timestamp(clock.now());
      delete metadata.deletionTimestamp;
      delete metadata.deletionGracePeriodSeconds;
      if (kind.counts) metadata.generation = 1;
      if (kind.hasStatus && resource.kind !== 'Node') delete object.status;
      if (kind.hasStatus) object.status ??= {};
      const causes = [
        ...validateName(resource.kind, resource.group, metadata.name),
        ...(strategyOf(kind).create?.(context, object) ?? []),
      ];
      if (causes.length > 0) throw invalid(resource, metadata.name, causes);
      dropEmpty(object);
      return dryRun ? { ...object, metadata: { ...metadata, resourceVersion: '' } } : collectionOf(kind).put(object);
    },
    update(kind, namespace, name, { user, dryRun, part }, change) {
      const current = read(kind, namespace, name);
      const wanted = change(current);
      checkIdentity(kind, name, current, wanted);
      const next = structuredClone(take(kind, part, current, wanted));
      if (part === undefined || part === 'resize') {
        const causes = part ? [] : (strategyOf(kind).update?.(contextFor(user), next, current) ?? []);
        if (causes.length > 0) throw invalid(kind.resource, name, causes);
      }
      if (kind.counts && part !== 'status' && !isDeepStrictEqual(plainSpec(next), plainSpec(current)))
        next.metadata.generation = (current.metadata.generation ?? 0) + 1;
      if (isDeepStrictEqual(plain(next), plain(current))) return current;
      return commit(kind, next, dryRun);
    },
    remove(kind, namespace, name, request, { dryRun }) {
      const current = read(kind, namespace, name);
      checkPreconditions(kind, current, request);
      const { metadata } = current;
      const finalizers = new Set(metadata.finalizers ?? []);
      if (request.propagationPolicy === 'Foreground') finalizers.add('foregroundDeletion');
      else if (request.propagationPolicy === 'Orphan' || request.orphanDependents) finalizers.add('orphan');
      const grace = graceOf(kind, current, request);
      if (metadata.deletionTimestamp) {
        // A second deletion can only shorten the time that is left.
        const left = metadata.deletionGracePeriodSeconds ?? 0;
        const shorter = grace < left;
        if (!shorter && (left > 0 || finalizers.size > 0 || held(kind, current)))
          return { object: current, gone: false };
      }
      if (grace === 0 && finalizers.size === 0 && !held(kind, current)) {
        const last = {
          ...current,
          metadata: {
            ...metadata,
            ...(kind.resource.kind === 'Pod'
              ? {
                  deletionGracePeriodSeconds: 0,
                  deletionTimestamp: metadata.deletionTimestamp ?? timestamp(clock.now()),
                }
              : {}),
          },
        };
        return { object: dryRun ? current : collectionOf(kind).remove(last), gone: true };
      }
      const next: Obj = {
        ...current,
        metadata: {
          ...metadata,
          deletionTimestamp: timestamp(clock.now() + grace * 1000),
          deletionGracePeriodSeconds: grace,
          ...(finalizers.size > 0 ? { finalizers: [...finalizers] } : {}),
          ...(kind.counts && !metadata.deletionTimestamp ? { generation: (metadata.generation ?? 0) + 1 } : {}),
        },
      };
      if (kind.resource.kind === 'Namespace') next.status = { ...(next.status as object), phase: 'Terminating' };
      return { object: dryRun ? next : collectionOf(kind).put(next), gone: false };
    },
  };
}

// A namespace is there until its own finalizer, which is in its spec, is taken away.
const held = (kind: Kind, object: Obj): boolean =>
  kind.resource.kind === 'Namespace' && ((object.spec as { finalizers?: string[] })?.finalizers?.length ?? 0) > 0;

function graceOf(kind: Kind, object: Obj, request: DeletionRequest): number {
  if (kind.resource.kind !== 'Pod') return 0;
  const pod = object as unknown as Pod;
  if (!pod.spec.nodeName || pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') return 0;
  const asked = request.gracePeriodSeconds ?? pod.spec.terminationGracePeriodSeconds ?? 30;
  return asked < 0 ? 1 : asked;
}

function checkPreconditions(kind: Kind, current: Obj, { preconditions }: DeletionRequest): void {
  const { uid, resourceVersion, name } = current.metadata;
  if (preconditions?.uid && preconditions.uid !== uid)
    throw conflict(
      kind.resource,
      name,
      `Precondition failed: UID in precondition: ${preconditions.uid}, UID in object meta: ${uid}`,
    );
  if (preconditions?.resourceVersion && preconditions.resourceVersion !== resourceVersion)
    throw conflict(
      kind.resource,
      name,
      `Precondition failed: ResourceVersion in precondition: ${preconditions.resourceVersion}, ResourceVersion in object meta: ${resourceVersion}`,
    );
}

function checkIdentity(kind: Kind, name: string, current: Obj, wanted: Obj): void {
  if (!wanted.metadata) throw badRequest('metadata is missing');
  const { resourceVersion, uid } = wanted.metadata;
  if (wanted.metadata.name !== undefined && wanted.metadata.name !== name)
    throw badRequest(`the name of the object (${wanted.metadata.name}) does not match the name on the URL (${name})`);
  if (uid && uid !== current.metadata.uid)
    throw conflict(
      kind.resource,
      name,
      `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${current.metadata.uid}`,
    );
  if (resourceVersion && resourceVersion !== current.metadata.resourceVersion) throw conflict(kind.resource, name);
}

// What of the wanted object counts, depending on the subresource that is written.
function take(kind: Kind, part: string | undefined, current: Obj, wanted: Obj): Obj {
  const kept = current.metadata;
  const metadata = { ...wanted.metadata, name: kept.name };
  for (const field of [
    'uid',
    'namespace',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
    'generation',
    'generateName',
    'resourceVersion',
  ] as const) {
    if (kept[field] === undefined) delete metadata[field];
    else Object.assign(metadata, { [field]: kept[field] });
  }
  const added = (metadata.finalizers ?? []).filter((one) => !kept.finalizers?.includes(one));
  if (kept.deletionTimestamp && added.length > 0)
    throw new Failure(
      422,
      'Invalid',
      `${kind.resource.kind} "${kept.name}" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`,
    );
  const spec = current.spec as Record<string, unknown>;
  const wantedSpec = wanted.spec as Record<string, unknown> | undefined;
  switch (part) {
    case undefined:
      return kind.hasStatus ? { ...wanted, metadata, status: current.status } : { ...wanted, metadata };
    case 'status':
      return {
        ...current,
        metadata: { ...metadata, ...(kept.ownerReferences ? { ownerReferences: kept.ownerReferences } : {}) },
        status: wanted.status ?? {},
      };
    case 'approval':
      return {
        ...current,
        status: { ...(current.status as object), conditions: (wanted.status as { conditions?: unknown })?.conditions },
      };
    case 'finalize':
      return { ...current, spec: wantedSpec ?? {} };
    case 'ephemeralcontainers':
      return { ...current, spec: { ...spec, ephemeralContainers: wantedSpec?.ephemeralContainers } };
    case 'resize':
      return { ...current, spec: resized(spec, wantedSpec ?? {}) };
    default:
      throw badRequest(`cannot write ${part} of ${kind.resource.plural}`);
  }
}

function resized(spec: Record<string, unknown>, wanted: Record<string, unknown>): Record<string, unknown> {
  type Named = { name: string; resources?: unknown; resizePolicy?: unknown };
  const merge = (field: string): Named[] | undefined => {
    const now = spec[field] as Named[] | undefined;
    const next = wanted[field] as Named[] | undefined;
    return now?.map((container) => {
      const found = next?.find(({ name }) => name === container.name);
      return found ? { ...container, resources: found.resources ?? {} } : container;
    });
  };
  const initContainers = merge('initContainers');
  return {
    ...spec,
    containers: merge('containers'),
    ...(initContainers ? { initContainers } : {}),
    ...(wanted.resources ? { resources: wanted.resources } : {}),
  };
}

// The API leaves out what is empty.
function dropEmpty({ metadata }: Obj): void {
  for (const field of ['labels', 'annotations', 'finalizers', 'ownerReferences', 'managedFields'] as const) {
    const value = metadata[field];
    if (value !== undefined && (value === null || Object.keys(value).length === 0)) delete metadata[field];
  }
}

const plain = (object: Obj): unknown => JSON.parse(JSON.stringify(object));
const plainSpec = ({ metadata: _, status: __, ...rest }: Obj): unknown => JSON.parse(JSON.stringify(rest));
