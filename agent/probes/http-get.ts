// GET as probes and hooks do it: a connection of its own, no verification of certificates, no proxy. Errors read as Go's, for they
// end up in Events. Written on plain sockets since hundreds of these run every second.
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { Container, HttpGetAction } from '../../kube/types/pod.ts';
import { describeSocketError, hostPort } from './addresses.ts';
import { createResponseReader, type HttpResponse, MalformedResponseError } from './http-response.ts';
import { resolvePort } from './ports.ts';

export interface HttpTarget {
  readonly scheme: 'http' | 'https';
  readonly host: string;
  readonly port: number;
  /** With the query, encoded. */
  readonly path: string;
  /** As sent, without Host and Connection. */
  readonly headers: readonly (readonly [string, string])[];
  /** The Host header where it is not the address. */
  readonly hostHeader?: string | undefined;
}

/** No HTTP response was had. */
export class HttpGetError extends Error {
  override name = 'HttpGetError';
  /** `plain-http`: an HTTPS request met a server that speaks HTTP. */
  readonly code: 'failed' | 'plain-http';
  constructor(code: HttpGetError['code'], message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

export const urlOf = (target: HttpTarget): string =>
  `${target.scheme}://${hostPort(target.host, target.port)}${target.path}`;

function encodePath(path: string): string {
  const [before = ''] = path.split('#', 1);
  const rooted = before.startsWith('/') ? before : `/${before}`;
  // What is encoded stays so; spaces, controls and what is not ASCII may not stand in a request line.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to encode
  return rooted.toWellFormed().replace(/[\u0000-\u0020\u007f-\u{10ffff}"<>\\^`{|}]/gu, encodeURIComponent);
}

const tokenForm = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to refuse
const controls = /[\u0000-\u0008\u000a-\u001f\u007f]/;

/** What an httpGet action asks for. `purpose` names us in User-Agent (`kube-probe/1.36`). Throws an Error for ports and headers that are none. */
export function httpTarget(
  action: HttpGetAction,
  container: Container,
  podIp: string,
  purpose: 'probe' | 'lifecycle',
): HttpTarget {
  const headers: [string, string][] = [];
  let hostHeader: string | undefined;
  for (const { name, value } of action.httpHeaders ?? []) {
    if (!tokenForm.test(name)) throw new Error(`net/http: invalid header field name "${name}"`);
    if (controls.test(value)) throw new Error(`net/http: invalid header field value for "${name}"`);
    if (name.toLowerCase() === 'host') hostHeader ??= value;
    else headers.push([name, value]);
  }
  const has = (wanted: string): boolean => headers.some(([name]) => name.toLowerCase() === wanted);
  if (!has('user-agent')) headers.unshift(['User-Agent', `kube-${purpose}/1.36`]);
  if (!has('accept')) headers.push(['Accept', '*/*']);
  return {
    scheme: action.scheme?.toLowerCase() === 'https' ? 'https' : 'http',
    host: action.host || podIp,
    port: resolvePort(action.port, container),
    path: encodePath(action.path ?? ''),
    // An empty Accept or User-Agent means: send none.
    headers: headers.filter(([name, value]) => value !== '' || !['accept', 'user-agent'].includes(name.toLowerCase())),
    hostHeader,
  };
}

function requestOf(target: HttpTarget): string {
  const lines = [
    `GET ${target.path} HTTP/1.1`,
    `Host: ${target.hostHeader || hostPort(target.host, target.port)}`,
    ...target.headers.map(([name, value]) => `${name}: ${value}`),
    'Connection: close',
  ];
  return `${lines.join('\r\n')}\r\n\r\n`;
}

function open(target: HttpTarget): Socket {
  const where = { host: target.host, port: target.port };
  if (target.scheme === 'http') return connectTcp(where);
  const name = target.hostHeader?.replace(/:\d+$/, '') || target.host;
  return connectTls({ ...where, rejectUnauthorized: false, ...(isIP(name) ? {} : { servername: name }) });
}

/** One request, one response. Rejects with a HttpGetError, or with the signal's reason. */
function exchange(target: HttpTarget, signal: AbortSignal): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const reader = createResponseReader();
    const socket = open(target);
    let connected = false;
    const finish = (): void => {
      signal.removeEventListener('abort', onAbort);
      socket.destroy();
    };
    const fail = (detail: string, cause?: unknown, code: HttpGetError['code'] = 'failed'): void => {
      finish();
      reject(new HttpGetError(code, `Get "${urlOf(target)}": ${detail}`, cause));
    };
    const onAbort = (): void => {
      finish();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const take = (read: () => HttpResponse | undefined): boolean => {
      try {
        const response = read();
        if (!response) return false;
        finish();
        resolve(response);
      } catch (error) {
        fail(
          error instanceof MalformedResponseError
            ? `net/http: HTTP/1.x transport connection broken: ${error.message}`
            : String(error),
          error,
        );
      }
      return true;
    };
    socket.on(target.scheme === 'https' ? 'secureConnect' : 'connect', () => {
      connected = true;
      socket.write(requestOf(target), 'latin1');
    });
    socket.on('data', (chunk: Buffer) => void take(() => reader.push(chunk)));
    socket.on('end', () => {
      if (!take(() => reader.end())) fail('EOF');
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (target.scheme === 'https' && !connected && isPlainHttp(error))
        fail('http: server gave HTTP response to HTTPS client', error, 'plain-http');
      else fail(describeSocketError(error, target.host, target.port, connected), error);
    });
  });
}

// OpenSSL's words for a peer that does not speak TLS at all.
const isPlainHttp = (error: NodeJS.ErrnoException): boolean =>
  error.code === 'ERR_SSL_WRONG_VERSION_NUMBER' ||
  error.code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG' ||
  /wrong version number|http request|unknown protocol|packet length too long/i.test(error.message);

const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
const maxRedirects = 10;

function redirected(from: HttpTarget, location: string): HttpTarget | undefined {
  let url: URL;
  try {
    url = new URL(location, urlOf(from));
  } catch {
    return undefined;
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return undefined;
  const scheme = url.protocol === 'https:' ? 'https' : 'http';
  const absolute = /^[a-z][a-z0-9+.-]*:/i.test(location);
  return {
    scheme,
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? (scheme === 'https' ? 443 : 80) : Number(url.port),
    path: `${url.pathname}${url.search}`,
    headers: from.headers,
    hostHeader: absolute ? undefined : from.hostHeader,
  };
}

/**
 * GET, following redirects: all of them, or only those to the same host, and then the redirect itself is the response. Rejects with a
 * HttpGetError, or with the signal's reason.
 */
export async function httpGet(
  target: HttpTarget,
  follow: 'same-host' | 'any-host',
  signal: AbortSignal,
): Promise<HttpResponse> {
  for (let at = target, hops = 0; ; hops++) {
    const response = await exchange(at, signal);
    const location = redirects.has(response.status) ? response.headers.get('location') : undefined;
    if (!location) return response;
    const next = redirected(at, location);
    if (!next) throw new HttpGetError('failed', `Get "${urlOf(at)}": failed to parse Location header "${location}"`);
    if (follow === 'same-host' && next.host !== target.host) return response;
    if (hops + 1 >= maxRedirects) throw new HttpGetError('failed', `Get "${urlOf(next)}": stopped after 10 redirects`);
    at = next;
  }
}
