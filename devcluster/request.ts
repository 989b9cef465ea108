// What a request of the API asks for, read from its method, path, query and headers.
import { parse as parseYaml } from 'yaml';
import type { Attributes } from './authorize.ts';
import { badRequest, Failure, noSuchPath } from './failure.ts';
import { findKind, type Kind } from './kinds.ts';
import { decodeProtobuf } from './protobuf.ts';
import type { User } from './registry.ts';

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
  const parts = path
    .split('/')
    .filter((part) => part !== '')
    .map(decodeURIComponent);
  const core = parts[0] === 'api';
  if (!core && parts[0] !== 'apis') return undefined;
  const [group, version] = core ? ['', parts[1]] : [parts[1], parts[2]];
  const rest = parts.slice(core ? 2 : 3);
  if (!version || group === undefined || rest.length === 0) return undefined;
  let namespace: string | undefined;
  if (rest[0] === 'namespaces' && rest.length >= 3 && !['status', 'finalize'].includes(rest[2]!)) {
    namespace = rest[1];
    rest.splice(0, 2);
  }
  const [plural, name, ...sub] = rest;
  const kind = findKind(group, version, plural!);
  if (!kind || (namespace !== undefined && !kind.resource.namespaced) || sub.length > 1) throw noSuchPath();
  return { kind, namespace, name, subresource: sub[0] };
}

export function verbOf(method: string, target: Target, query: URLSearchParams): string {
  switch (method) {
    case 'GET':
    case 'HEAD':
      if (isTrue(query.get('watch'))) return 'watch';
      return target.name === undefined ? 'list' : 'get';
    case 'POST':
      return 'create';
    case 'PUT':
      return 'update';
    case 'PATCH':
      return 'patch';
    case 'DELETE':
      return target.name === undefined ? 'deletecollection' : 'delete';
    default:
      return method.toLowerCase();
  }
}

export function attributesOf(request: ApiRequest, target: Target | undefined): Attributes {
  if (!target) return { verb: request.method.toLowerCase(), path: request.path };
  const { kind, namespace, name, subresource } = target;
  const single = /^metadata\.name=([^,!]+)$/.exec(request.query.get('fieldSelector') ?? '')?.[1];
  const subject = name ?? single;
  return {
    verb: verbOf(request.method, target, request.query),
    group: kind.resource.group,
    resource: kind.resource.plural,
    ...(subresource ? { subresource } : {}),
    ...(namespace ? { namespace } : {}),
    ...(subject ? { name: subject } : {}),
  };
}

export const isTrue = (value: string | null): boolean => value === 'true' || value === '1';

/** The body as an object, from JSON or YAML. Throws 400 or 415. */
export async function readObject(request: ApiRequest): Promise<Record<string, unknown>> {
  const value = await readBody(request);
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw badRequest('the body is not an object');
  return value as Record<string, unknown>;
}

export async function readBody(request: ApiRequest): Promise<unknown> {
  const type = request.header('content-type')?.split(';')[0]?.trim() ?? 'application/json';
  const bytes = await request.bytes();
  if (bytes.length === 0) return undefined;
  if (type === 'application/vnd.kubernetes.protobuf') return decodeProtobuf(bytes);
  if (type.includes('cbor'))
    throw new Failure(
      415,
      'UnsupportedMediaType',
      'the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf',
    );
  const text = bytes.toString('utf8');
  try {
    return type.endsWith('yaml') ? parseYaml(text) : JSON.parse(text);
  } catch (error) {
    throw badRequest(`error decoding the body: ${(error as Error).message}`);
  }
}
