// What a request of the API asks for, read from its method, path, query and headers.
import { parse as parseYaml } from 'yaml';
import type { Attributes, User } from './authorize.ts';
import { badRequest, Failure, noSuchPath, unsupportedType } from './failure.ts';
import { type Kind, kinds } from './kinds.ts';

export interface ApiRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly user: User;
  header(name: string): string | undefined;
  bytes(): Promise<Buffer>;
}

export interface Target {
  readonly kind: Kind;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
}

/** Undefined where the path is not below a group and version. Throws 404 for a kind that is not served. */
export function parseTarget(path: string): Target | undefined {
  const [root, ...parts] = path.split('/').filter(Boolean).map(decodeURIComponent);
  if (root !== 'api' && root !== 'apis') return undefined;
  const [group, version, ...rest] = root === 'api' ? ['', ...parts] : parts;
  if (rest.length === 0) return undefined;
  const inside = rest[0] === 'namespaces' && rest.length >= 3 && rest[2] !== 'status';
  const [namespace] = inside ? rest.splice(0, 2).slice(1) : [];
  const [plural, name, subresource, ...more] = rest;
  const kind = kinds.find(
    ({ resource }) => resource.plural === plural && resource.group === group && resource.version === version,
  );
  const nowhere = namespace !== undefined && !kind?.resource.namespaced;
  if (!kind || nowhere || more.length > 0 || (subresource && !kind.subresources[subresource])) throw noSuchPath();
  return { kind, namespace, name, subresource };
}

export type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete';

/** Throws 405 for what a target does not take at all. */
export function verbOf({ method, query }: ApiRequest, { kind, name, subresource }: Target): Verb {
  const named = name !== undefined;
  const reading = isTrue(query.get('watch')) ? 'watch' : named ? 'get' : 'list';
  const verbs: Readonly<Record<string, Verb | undefined>> = {
    GET: reading,
    HEAD: reading,
    POST: named && subresource === undefined ? undefined : 'create',
    PUT: named ? 'update' : undefined,
    PATCH: named ? 'patch' : undefined,
    DELETE: named ? 'delete' : undefined,
  };
  const verb = verbs[method];
  if (!verb || !(subresource ? kind.subresources[subresource]! : kind).verbs.includes(verb))
    throw new Failure(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource');
  return verb;
}

export function attributesOf(request: ApiRequest, target: Target | undefined): Attributes {
  if (!target) return { verb: request.method.toLowerCase(), path: request.path };
  const { kind, namespace, subresource } = target;
  const single = /^metadata\.name=([^,!]+)$/.exec(request.query.get('fieldSelector') ?? '')?.[1];
  const { group, plural: resource } = kind.resource;
  return { verb: verbOf(request, target), group, resource, subresource, namespace, name: target.name ?? single };
}

export const isTrue = (value: string | null): boolean => value === 'true' || value === '1';

/** Throws 400 or 415. */
export async function readObject(request: ApiRequest): Promise<Record<string, unknown>> {
  const value = await readBody(request);
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw badRequest('the body is not an object');
  return value as Record<string, unknown>;
}

/** From JSON or YAML. */
export async function readBody(request: ApiRequest): Promise<unknown> {
  const type = request.header('content-type')?.split(';')[0]?.trim() ?? 'application/json';
  const bytes = await request.bytes();
  if (bytes.length === 0) return undefined;
  if (/protobuf|cbor/.test(type))
    throw unsupportedType(`this control plane reads JSON and YAML, not ${type}: for example from kubectl apply -f`);
  const text = bytes.toString('utf8');
  try {
    return type.endsWith('yaml') ? parseYaml(text) : JSON.parse(text);
  } catch (error) {
    throw badRequest(`error decoding the body: ${(error as Error).message}`);
  }
}
