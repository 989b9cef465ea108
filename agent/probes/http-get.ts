// GET as probes and hooks do it: a connection of its own, no verification of certificates, no proxy. Errors read as Go's, for they
// end up in Events. Written on plain sockets, without a signal, a promise or a buffer of its own for each try, since hundreds of these run every second.
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { describeSocketError } from './addresses.ts';
import { createResponseReader, type HttpResponse, MalformedResponseError } from './http-response.ts';
import { type HttpTarget, requestOf, urlOf } from './http-target.ts';

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

/** Called once, with a HttpGetError or the response; never after the call was given up, and never before the function that takes it has returned. */
type Settle = (result: HttpResponse | HttpGetError) => void;

// What is read is taken in before the next read, so one buffer does for all connections.
const readBuffer = Buffer.allocUnsafeSlow(16 * 1024);

function open(target: HttpTarget, onBytes: (bytes: Buffer, length: number) => void): Socket {
  const where = { host: target.host, port: target.port };
  if (target.scheme === 'http') {
    const callback = (length: number, bytes: Uint8Array): boolean => {
      onBytes(bytes as Buffer, length);
      return true;
    };
    return connectTcp({ ...where, onread: { buffer: readBuffer, callback } });
  }
  const name = target.hostHeader?.replace(/:\d+$/, '') || target.host;
  const socket = connectTls({ ...where, rejectUnauthorized: false, ...(isIP(name) ? {} : { servername: name }) });
  socket.on('data', (chunk: Buffer) => onBytes(chunk, chunk.length));
  return socket;
}

const requests = new WeakMap<HttpTarget, string>();

/** The same target is asked again every period: its request is written once. */
function requestFor(target: HttpTarget): string {
  const known = requests.get(target);
  if (known !== undefined) return known;
  const request = requestOf(target);
  requests.set(target, request);
  return request;
}

/** One request, one response. Returns what gives it up. */
function exchange(target: HttpTarget, settle: Settle): () => void {
  const reader = createResponseReader();
  let connected = false;
  let over = false;
  const end = (result: HttpResponse | HttpGetError): void => {
    if (over) return;
    over = true;
    socket.destroy();
    settle(result);
  };
  const fail = (detail: string, cause?: unknown, code: HttpGetError['code'] = 'failed'): void =>
    end(new HttpGetError(code, `Get "${urlOf(target)}": ${detail}`, cause));
  const broken = (error: unknown): void =>
    fail(
      error instanceof MalformedResponseError
        ? `net/http: HTTP/1.x transport connection broken: ${error.message}`
        : String(error),
      error,
    );
  const socket = open(target, (bytes, length) => {
    if (over) return;
    try {
      const response = reader.push(bytes, length);
      if (response) end(response);
    } catch (error) {
      broken(error);
    }
  });
  socket.on(target.scheme === 'https' ? 'secureConnect' : 'connect', () => {
    connected = true;
    socket.write(requestFor(target), 'latin1');
  });
  socket.on('end', () => {
    if (over) return;
    try {
      const response = reader.end();
      if (response) end(response);
      else fail('EOF');
    } catch (error) {
      broken(error);
    }
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    if (target.scheme === 'https' && !connected && isPlainHttp(error))
      fail('http: server gave HTTP response to HTTPS client', error, 'plain-http');
    else fail(describeSocketError(error, target.host, target.port, connected), error);
  });
  return () => {
    over = true;
    socket.destroy();
  };
}

// OpenSSL's words for a peer that does not speak TLS at all.
const isPlainHttp = (error: NodeJS.ErrnoException): boolean =>
  error.code === 'ERR_SSL_WRONG_VERSION_NUMBER' ||
  error.code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG' ||
  /wrong version number|http request|unknown protocol|packet length too long/i.test(error.message);

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

/** GET, following redirects: all of them, or only those to the same host, and then the redirect itself is the response. Returns what gives it up. */
export function startHttpGet(target: HttpTarget, follow: 'same-host' | 'any-host', settle: Settle): () => void {
  let hops = 0;
  let giveUp: () => void;
  const ask = (at: HttpTarget): void => {
    giveUp = exchange(at, (result) => {
      const location = result instanceof HttpGetError ? undefined : result.location;
      if (!location) return settle(result);
      const next = redirected(at, location);
      if (!next)
        return settle(new HttpGetError('failed', `Get "${urlOf(at)}": failed to parse Location header "${location}"`));
      if (follow === 'same-host' && next.host !== target.host) return settle(result);
      if (++hops >= maxRedirects)
        return settle(new HttpGetError('failed', `Get "${urlOf(next)}": stopped after 10 redirects`));
      ask(next);
    });
  };
  ask(target);
  return () => giveUp();
}

/** The same for those who wait with a signal: rejects with a HttpGetError, or with the signal's reason. */
export function httpGet(
  target: HttpTarget,
  follow: 'same-host' | 'any-host',
  signal: AbortSignal,
): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const giveUp = startHttpGet(target, follow, (result) => {
      signal.removeEventListener('abort', onAbort);
      if (result instanceof HttpGetError) reject(result);
      else resolve(result);
    });
    const onAbort = (): void => {
      giveUp();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
  });
}
