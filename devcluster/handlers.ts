// The verbs of the API on any kind: get, list, watch, create, update, patch, delete, deletecollection.
import type { Clock } from '../lib/clock.ts';
import {
  type FieldRequirement,
  matchesFieldSelector,
  matchesRequirements,
  parseFieldSelector,
  parseLabelSelector,
  type Requirement,
  SelectorError,
} from '../kube/selectors.ts';
import { badRequest, expired, invalid, notAllowed, tooNew } from './failure.ts';
import { at, type Kind, kinds } from './kinds.ts';
import { isApply, patchObject } from './patches.ts';
import type { DeletionRequest, Registry, WriteContext } from './registry.ts';
import { type ApiRequest, isTrue, readBody, readObject, type Target } from './request.ts';
import type { Obj, Storage } from './store.ts';
import { encodeList, encodeObject, type Format, formatOf, fromView } from './wire.ts';

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

export type Selected = (object: Obj) => boolean;

export function createHandlers(deps: HandlerDeps) {
  const { clock, storage, registry } = deps;
  const formatFor = (request: ApiRequest): Format =>
    formatOf(request.header('accept'), request.query.get('includeObject'));
  const answer = (request: ApiRequest, target: Target, object: Obj, status = 200): Answer => ({
    status,
    body: encodeObject(target.kind, object, formatFor(request), clock.now()),
  });
  const contextOf = (request: ApiRequest): WriteContext => ({
    user: request.user,
    dryRun: request.query.getAll('dryRun').includes('All'),
  });

  const list = (request: ApiRequest, { kind, namespace, name }: Target): Answer => {
    const { query } = request;
    const collection = registry.collectionOf(kind);
    const selected = selection(kind, query, name);
    const token = query.get('continue');
    const from = token ? decodeContinue(token) : undefined;
    const asked = query.get('resourceVersion');
    const exact = query.get('resourceVersionMatch') === 'Exact';
    const version = from?.version ?? (exact ? parseVersion(asked) : storage.version());
    if (!from && asked && parseVersion(asked) > storage.version()) throw tooNew(parseVersion(asked), storage.version());
    const then = version === storage.version() ? collection.list(namespace) : collection.listAt(version, namespace);
    if (!then)
      throw expired(
        from
          ? 'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.'
          : `The resourceVersion for the provided list is too old: ${version}`,
      );
    const all = then.filter(selected).filter((object) => !from || sortKey(object) > from.after);
    const limit = Number(query.get('limit') ?? 0);
    const page = limit > 0 ? all.slice(0, limit) : all;
    const more = all.length - page.length;
    const metadata = {
      resourceVersion: String(version),
      ...(more > 0 ? { continue: encodeContinue(version, sortKey(page.at(-1)!)), remainingItemCount: more } : {}),
    };
    return { status: 200, body: encodeList(kind, page, metadata, formatFor(request), clock.now()) };
  };

  return {
    contextOf,
    answer,
    get(request: ApiRequest, target: Target): Answer {
      return answer(request, target, registry.read(target.kind, target.namespace, target.name!));
    },
    list,
    async create(request: ApiRequest, target: Target): Promise<Answer> {
      const object = fromView(target.kind, (await readObject(request)) as Obj);
      object.metadata = { ...object.metadata };
      if (target.kind.resource.namespaced) {
        const said = object.metadata.namespace;
        if (said && said !== target.namespace)
          throw badRequest(`the namespace of the provided object does not match the namespace sent on the request`);
        object.metadata.namespace = target.namespace!;
      } else delete object.metadata.namespace;
      return answer(request, target, registry.create(target.kind, object, contextOf(request)), 201);
    },
    async update(request: ApiRequest, target: Target): Promise<Answer> {
      const object = fromView(target.kind, (await readObject(request)) as Obj);
      const context = { ...contextOf(request), part: target.subresource };
      return answer(
        request,
        target,
        registry.update(target.kind, target.namespace, target.name!, context, () => object),
      );
    },
    async patch(request: ApiRequest, target: Target): Promise<Answer> {
      const { kind, namespace, name } = target;
      const contentType = request.header('content-type') ?? '';
      const patch = {
        contentType,
        body: await readBody(request),
        fieldManager: request.query.get('fieldManager') ?? '',
        force: isTrue(request.query.get('force')),
        now: clock.now(),
      };
      const there = registry.collectionOf(kind).get(namespace, name!);
      if (!there && isApply(contentType) && target.subresource === undefined) {
        const object = patchObject(kind, undefined, patch);
        object.metadata = { ...object.metadata, name: name!, ...(namespace ? { namespace } : {}) };
        return answer(request, target, registry.create(kind, object, contextOf(request)), 201);
      }
      const context = { ...contextOf(request), part: target.subresource };
      return answer(
        request,
        target,
        registry.update(kind, namespace, name!, context, (current) => patchObject(kind, current, patch)),
      );
    },
    async remove(request: ApiRequest, target: Target): Promise<Answer> {
      const { kind, namespace, name } = target;
      const { object, gone } = registry.remove(kind, namespace, name!, await deletionOf(request), contextOf(request));
      if (!gone || kind.resource.kind === 'Pod') return answer(request, target, object);
      const { uid } = object.metadata;
      const details = {
        name,
        kind: kind.resource.plural,
        uid,
        ...(kind.resource.group ? { group: kind.resource.group } : {}),
      };
      return { status: 200, body: statusText({ status: 'Success', details }) };
    },
    async removeAll(request: ApiRequest, target: Target): Promise<Answer> {
      const { kind, namespace } = target;
      const selected = selection(kind, request.query, undefined);
      const asked = await deletionOf(request);
      for (const object of registry.collectionOf(kind).list(namespace).filter(selected))
        registry.remove(kind, object.metadata.namespace, object.metadata.name, asked, contextOf(request));
      return list(request, target);
    },
  };
}

export type Handlers = ReturnType<typeof createHandlers>;

export const statusText = (status: object): string =>
  JSON.stringify({ kind: 'Status', apiVersion: 'v1', metadata: {}, ...status });

export function parseVersion(text: string | null): number {
  if (!text) return 0;
  if (!/^\d+$/.test(text))
    throw invalid(kinds[0]!.resource, '', [
      { reason: 'FieldValueInvalid', field: 'resourceVersion', message: `Invalid value: "${text}": must be a number` },
    ]);
  return Number(text);
}

const sortKey = ({ metadata }: Obj): string =>
  metadata.namespace ? `${metadata.namespace}/${metadata.name}` : metadata.name;

const encodeContinue = (version: number, after: string): string =>
  Buffer.from(JSON.stringify({ v: version, after })).toString('base64url');

function decodeContinue(token: string): { version: number; after: string } {
  try {
    const { v, after } = JSON.parse(Buffer.from(token, 'base64url').toString('utf8')) as { v: number; after: string };
    if (typeof v === 'number' && typeof after === 'string') return { version: v, after };
  } catch {}
  throw badRequest('continue key is not valid');
}

/** Label and field selectors of the query as one test. Throws 400 for what makes no sense. */
export function selection(kind: Kind, query: URLSearchParams, name: string | undefined): Selected {
  let labels: readonly Requirement[];
  let fields: readonly FieldRequirement[];
  try {
    labels = parseLabelSelector(query.get('labelSelector') ?? '');
    fields = parseFieldSelector(query.get('fieldSelector') ?? '');
  } catch (error) {
    if (error instanceof SelectorError) throw badRequest(error.message);
    throw error;
  }
  const known = ['metadata.name', 'metadata.namespace', ...kind.fields];
  // The Event API of its own group calls the same fields otherwise.
  const asKept = fields.map((field) => ({ ...field, field: field.field.replace(/^regarding\./, 'involvedObject.') }));
  const odd = asKept.find(({ field }) => !known.includes(field));
  if (odd)
    throw badRequest(
      `Unable to find "${kind.resource.plural}" that match label selector "", field selector "${query.get('fieldSelector')}": field label not supported: ${odd.field}`,
    );
  return (object) =>
    (name === undefined || object.metadata.name === name) &&
    (labels.length === 0 || matchesRequirements(labels, object.metadata.labels)) &&
    (asKept.length === 0 || matchesFieldSelector(asKept, selectable(object)));
}

// What a field selector sees differs from the object in few places: booleans that are absent are false, an event's source is its component.
const selectable = (object: Obj): unknown => ({
  ...object,
  spec: { unschedulable: false, hostNetwork: false, ...(object.spec as object) },
  ...(object.source === undefined ? {} : { source: at(object, 'source.component') ?? '' }),
});

async function deletionOf(request: ApiRequest): Promise<DeletionRequest> {
  const body = ((await readBody(request)) ?? {}) as DeletionRequest;
  const { query } = request;
  const grace = query.get('gracePeriodSeconds');
  const policy = query.get('propagationPolicy');
  return {
    ...body,
    ...(grace === null ? {} : { gracePeriodSeconds: Number(grace) }),
    ...(policy === null ? {} : { propagationPolicy: policy }),
  };
}

/** Which verbs a target takes at all; 405 otherwise. */
export function checkVerb(target: Target, verb: string): void {
  const { kind, name, subresource } = target;
  const wrong =
    (kind.virtual && verb !== 'create') ||
    (verb === 'create' && name !== undefined && subresource === undefined) ||
    (['update', 'patch'].includes(verb) && name === undefined);
  if (wrong) throw notAllowed('the server does not allow this method on the requested resource');
}
