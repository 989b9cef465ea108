// The verbs of the API on any kind: get, list, create, update, patch, delete, deletecollection. Watches have a file of their own.
import type { Clock } from '../lib/clock.ts';
import { badRequest, expired, Failure, fault, invalid } from './failure.ts';
import type { Kind } from './kinds.ts';
import { isApply, patchObject, patchOf } from './patches.ts';
import type { DeletionRequest, Registry, WriteOptions } from './registry.ts';
import { type ApiRequest, readBody, readObject, type Target } from './request.ts';
import { selectionOf } from './selection.ts';
import { keyOf, type Obj, type Storage } from './store.ts';
import { encodeList, encodeObject, type Format, formatOf, stripped } from './wire.ts';

export interface Answer {
  readonly status: number;
  readonly body: string;
  readonly contentType?: string;
}

export interface HandlerDeps {
  readonly clock: Clock;
  readonly storage: Storage;
  readonly registry: Registry;
}

export type Handler = (deps: HandlerDeps, request: ApiRequest, target: Target) => Answer | Promise<Answer>;

export const formatFor = (request: ApiRequest): Format =>
  formatOf(request.header('accept'), request.query.get('includeObject'));

export const writeOptionsOf = ({ query }: ApiRequest, part?: string): WriteOptions => ({
  dryRun: query.getAll('dryRun').includes('All'),
  part,
});

const answer = (deps: HandlerDeps, request: ApiRequest, { kind }: Target, object: Obj, status = 200): Answer => ({
  status,
  body: encodeObject(kind, object, formatFor(request), deps.clock.now()),
});

export const statusText = (status: object): string =>
  JSON.stringify({ kind: 'Status', apiVersion: 'v1', metadata: {}, ...status });

/** Throws 422 for what is no number. */
export function parseVersion(kind: Kind, text: string | null): number {
  if (text && !/^\d+$/.test(text))
    throw invalid(kind.resource, '', [fault('resourceVersion', `Invalid value: "${text}": must be a number`)]);
  return Number(text ?? 0);
}

function list({ clock, storage, registry }: HandlerDeps, request: ApiRequest, target: Target): Answer {
  const { kind, namespace, name } = target;
  const { query } = request;
  const collection = registry.collectionOf(kind);
  const selected = selectionOf(kind, query, name);
  const token = query.get('continue');
  const from = token ? decodeContinue(token) : undefined;
  const asked = parseVersion(kind, query.get('resourceVersion'));
  const newest = storage.version();
  if (!from && asked > newest)
    throw new Failure(504, 'Timeout', `Too large resource version: ${asked}, current: ${newest}`, {
      retryAfterSeconds: 1,
      causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
    });
  const version = from?.version ?? (query.get('resourceVersionMatch') === 'Exact' ? asked : newest);
  const then = version === newest ? collection.list(namespace) : collection.listAt(version, namespace);
  if (!then) throw expired(`The resourceVersion for the provided list is too old: ${version}. Start a new list.`);
  const sortKey = ({ metadata }: Obj): string => keyOf(metadata.namespace, metadata.name);
  const all = then.filter(selected).filter((object) => !from || sortKey(object) > from.after);
  const page = all.slice(0, Number(query.get('limit') ?? 0) || all.length);
  const more = all.length - page.length;
  const next = more > 0 ? encodeContinue({ version, after: sortKey(page.at(-1)!) }) : undefined;
  const metadata = { resourceVersion: String(version), ...(next ? { continue: next, remainingItemCount: more } : {}) };
  return { status: 200, body: encodeList(kind, page, metadata, formatFor(request), clock.now()) };
}

interface Continue {
  readonly version: number;
  readonly after: string;
}

const encodeContinue = (from: Continue): string => Buffer.from(JSON.stringify(from)).toString('base64url');

function decodeContinue(token: string): Continue {
  try {
    return JSON.parse(Buffer.from(token, 'base64url').toString('utf8')) as Continue;
  } catch {
    throw badRequest('continue key is not valid');
  }
}

async function create(deps: HandlerDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const object = stripped((await readObject(request)) as Obj);
  object.metadata = { ...object.metadata };
  if (target.kind.resource.namespaced) {
    object.metadata.namespace ??= target.namespace!;
    if (object.metadata.namespace !== target.namespace)
      throw badRequest('the namespace of the provided object does not match the namespace sent on the request');
  } else delete object.metadata.namespace;
  return answer(deps, request, target, deps.registry.create(target.kind, object, writeOptionsOf(request)), 201);
}

async function update(deps: HandlerDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const { kind, namespace, name, subresource } = target;
  const object = stripped((await readObject(request)) as Obj);
  const options = writeOptionsOf(request, subresource);
  return answer(
    deps,
    request,
    target,
    deps.registry.update(kind, namespace, name!, options, () => object),
  );
}

async function patch(deps: HandlerDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const { registry, clock } = deps;
  const { kind, namespace, name, subresource } = target;
  const asked = await patchOf(request, clock.now());
  if (isApply(asked) && !subresource && !registry.collectionOf(kind).get(namespace, name!)) {
    const object = patchObject(kind, undefined, asked);
    object.metadata = { ...object.metadata, name: name!, ...(namespace ? { namespace } : {}) };
    return answer(deps, request, target, registry.create(kind, object, writeOptionsOf(request)), 201);
  }
  const options = writeOptionsOf(request, subresource);
  const change = (current: Obj): Obj => patchObject(kind, current, asked);
  return answer(deps, request, target, registry.update(kind, namespace, name!, options, change));
}

async function remove(deps: HandlerDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const { kind, namespace, name } = target;
  const asked = await deletionOf(request);
  const { object, gone } = deps.registry.remove(kind, namespace, name!, asked, writeOptionsOf(request));
  if (!gone || kind.resource.kind === 'Pod') return answer(deps, request, target, object);
  const { group, plural } = kind.resource;
  const details = { name, kind: plural, uid: object.metadata.uid, ...(group ? { group } : {}) };
  return { status: 200, body: statusText({ status: 'Success', details }) };
}

async function removeAll(deps: HandlerDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const { kind, namespace } = target;
  const asked = await deletionOf(request);
  const doomed = deps.registry.collectionOf(kind).list(namespace);
  for (const { metadata } of doomed.filter(selectionOf(kind, request.query, undefined)))
    deps.registry.remove(kind, metadata.namespace, metadata.name, asked, writeOptionsOf(request));
  return list(deps, request, target);
}

async function deletionOf(request: ApiRequest): Promise<DeletionRequest> {
  const grace = request.query.get('gracePeriodSeconds');
  const policy = request.query.get('propagationPolicy');
  return {
    ...((await readBody(request)) as DeletionRequest | undefined),
    ...(grace === null ? {} : { gracePeriodSeconds: Number(grace) }),
    ...(policy === null ? {} : { propagationPolicy: policy }),
  };
}

export const handlers = {
  get: (deps, request, target) =>
    answer(deps, request, target, deps.registry.read(target.kind, target.namespace, target.name!)),
  list,
  create,
  update,
  patch,
  delete: remove,
  deletecollection: removeAll,
} satisfies Record<string, Handler>;
