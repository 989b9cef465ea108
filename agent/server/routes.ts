// The paths of the node's server. One way of reading a path, used both to authorize a request and to find its handler, so that the two
// can never see different things.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { User } from './identity.ts';

export interface RequestPath {
  /** Decoded, with empty segments kept out: `/containerLogs/default/web/app`. */
  readonly path: string;
  readonly segments: readonly string[];
  readonly query: URLSearchParams;
}

/** Undefined where the target is no path at all, or holds bytes no path has. */
export function parseTarget(target: string | undefined): RequestPath | undefined {
  if (!target?.startsWith('/')) return undefined;
  const [raw = '', ...rest] = target.split('?');
  try {
    const segments = raw
      .split('/')
      .filter((segment) => segment !== '')
      .map((segment) => decodeURIComponent(segment));
    if (segments.some((segment) => segment === '.' || segment === '..' || /[/\0]/.test(segment))) return undefined;
    return { path: `/${segments.join('/')}`, segments, query: new URLSearchParams(rest.join('?')) };
  } catch {
    return undefined;
  }
}

export interface Call {
  readonly request: IncomingMessage;
  readonly at: RequestPath;
  /** The `{names}` of the route's pattern. */
  readonly params: Readonly<Record<string, string>>;
  readonly user: User;
  /** Aborts when the client is gone or the server closes. */
  readonly signal: AbortSignal;
}

export interface PageCall extends Call {
  readonly response: ServerResponse;
}

export interface UpgradeCall extends Call {
  readonly socket: Duplex;
  /** What the client sent right behind its request. */
  readonly head: Buffer;
  /** To be called when the stream stands: until then the listener's patience is short. */
  stands(): void;
}

/** What to answer instead of what was asked, as plain text. */
export class HttpError extends Error {
  override name = 'HttpError';
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}, cause?: unknown) {
    super(message, { cause });
    this.status = status;
    this.headers = headers;
  }
}

interface Pattern {
  readonly methods: readonly string[];
  /** `/exec/{namespace}/{pod}/{container}`; a last `{name*}` takes the rest, which may be empty. */
  readonly pattern: string;
}

/** A path that is answered with a page, and one whose connection becomes a stream. */
export type Route =
  | (Pattern & { readonly kind: 'page'; serve(call: PageCall): Promise<void> | void })
  | (Pattern & { readonly kind: 'stream'; serve(call: UpgradeCall): Promise<void> });

export type Found =
  | { readonly kind: 'found'; readonly route: Route; readonly params: Readonly<Record<string, string>> }
  | { readonly kind: 'wrong-method'; readonly allow: readonly string[] }
  | { readonly kind: 'not-found' };

function match(pattern: readonly string[], segments: readonly string[]): Record<string, string> | undefined {
  const params: Record<string, string> = {};
  for (const [index, part] of pattern.entries()) {
    const rest = /^\{(\w+)\*\}$/.exec(part);
    if (rest) {
      params[rest[1]!] = segments.slice(index).join('/');
      return params;
    }
    const segment = segments[index];
    if (segment === undefined) return undefined;
    const name = /^\{(\w+)\}$/.exec(part);
    if (name) params[name[1]!] = segment;
    else if (part !== segment) return undefined;
  }
  return pattern.length === segments.length ? params : undefined;
}

export function findRoute(routes: readonly Route[], method: string, at: RequestPath): Found {
  const allow = new Set<string>();
  for (const route of routes) {
    const params = match(
      route.pattern.split('/').filter((part) => part !== ''),
      at.segments,
    );
    if (!params) continue;
    if (route.methods.includes(method)) return { kind: 'found', route, params };
    for (const other of route.methods) allow.add(other);
  }
  return allow.size > 0 ? { kind: 'wrong-method', allow: [...allow] } : { kind: 'not-found' };
}

export function sendText(
  response: ServerResponse,
  status: number,
  text: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(text),
    'x-content-type-options': 'nosniff',
  });
  response.end(text);
}

export const sendJson = (response: ServerResponse, value: unknown, status = 200): void =>
  sendText(response, status, JSON.stringify(value), 'application/json');
