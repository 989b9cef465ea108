// The verbs of the API on any kind: get, list, create, update, patch, delete. Watches have a file of their own.
import type { History } from '../kube/history.ts';
import type { Clock } from '../lib/clock.ts';
import { badRequest, expired } from './failure.ts';
import type { Obj } from './kinds.ts';
import { isApply, patchObject, patchOf } from './patches.ts';
import type { DeletionRequest, Registry, WriteOptions } from './registry.ts';
import { type ApiRequest, readBody, readObject, type Target } from './request.ts';
import { selectionOf } from './selection.ts';
import { encodeList, encodeObject, formatOf, stripped } from './wire.ts';

export interface Answer {
  readonly status: number;
  readonly body: string;
  readonly contentType?: string;
}

export interface HandlerDeps {
  readonly clock: Clock;
  readonly storage: History<Obj>;
  readonly registry: Registry;
}

export type Handler = (deps: HandlerDeps, request: ApiRequest, target: Target) => Answer | Promise<Answer>;

export const writeOptionsOf = ({ query }: ApiRequest, part?: string): WriteOptions => ({
  dryRun: query.getAll('dryRun').includes('All'),
  part,
});

const answer = (deps: HandlerDeps, request: ApiRequest, { kind }: Target, object: Obj, status = 200): Answer => ({
  status,
  body: encodeObject(kind, object, formatOf(request, deps.clock.now())),
});

export const statusText = (status: object): string =>
  JSON.stringify({ kind: 'Status', apiVersion: 'v1', metadata: {}, ...status });

/** Throws 400 for what is no number. */
export function parseVersion(text: string | null): number {
  if (text && !/^\d+$/.test(text)) throw badRequest(`resourceVersion: Invalid value: "${text}": must be a number`);
  return Number(text ?? 0);
}

/** All there is, as it is now: a limit may be left unheeded, and the past is not kept. */
function list({ clock, storage, registry }: HandlerDeps, request: ApiRequest, target: Target): Answer {
  const { kind, namespace, name } = target;
  const { query } = request;
  const asked = parseVersion(query.get('resourceVersion'));
  const newest = storage.version();
  if (query.get('continue') || (query.get('resourceVersionMatch') === 'Exact' && asked < newest))
    throw expired(`The resourceVersion for the provided list is too old: ${asked}. Start a new list.`);
  const found = registry
    .collectionOf(kind)
    .list(namespace)
    .filter(selectionOf(kind, query, name));
  return { status: 200, body: encodeList(kind, found, String(newest), formatOf(request, clock.now())) };
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
  const wanted = stripped((await readObject(request)) as Obj);
  const options = writeOptionsOf(request, subresource);
  const updated = deps.registry.update(kind, namespace, name!, options, () => wanted);
  return answer(deps, request, target, updated);
}

async function patch(deps: HandlerDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const { registry, clock } = deps;
  const { kind, namespace, name, subresource } = target;
  const asked = await patchOf(request, clock.now());
  if (isApply(asked) && !subresource && !registry.find(kind.resource.plural, namespace, name!)) {
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

async function deletionOf(request: ApiRequest): Promise<DeletionRequest> {
  const grace = request.query.get('gracePeriodSeconds');
  const body = (await readBody(request)) as DeletionRequest | undefined;
  return { ...body, ...(grace === null ? {} : { gracePeriodSeconds: Number(grace) }) };
}

export const handlers = {
  get: (deps, request, target) =>
    answer(deps, request, target, deps.registry.read(target.kind, target.namespace, target.name!)),
  list,
  create,
  update,
  patch,
  delete: remove,
} satisfies Record<string, Handler>;
