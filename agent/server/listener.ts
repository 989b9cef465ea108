// The HTTPS listener: limits on what a client may cost before it is known, identity, authorization, then the routes. Nothing is said to
// who may not hear it: 401 and 403 come before 404.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { constants } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { CancelledError } from '../../lib/abort.ts';
import type { Log } from '../../lib/log.ts';
import type { CertificateAndKey } from '../tls/serving.ts';
import type { TlsSettings } from '../tls/settings.ts';
import type { Authorization } from './authorization.ts';
import type { Identity, User } from './identity.ts';
import { type Found, findRoute, HttpError, parseTarget, type RequestPath, type Route, sendText } from './routes.ts';
import { listenOn } from './listen.ts';

export interface ListenerDeps {
  readonly log: Log;
  readonly identity: Identity;
  readonly authorization: Authorization;
  readonly routes: readonly Route[];
  /** Told of each answered request, for metrics. `path` is the first segment of the route's pattern. */
  onServed?(method: string, path: string, status: number, durationMs: number, longRunning: boolean): void;
  onInflight?(method: string, path: string, change: 1 | -1, longRunning: boolean): void;
}

export interface ListenerOptions {
  readonly address: string;
  readonly port: number;
  readonly tls: TlsSettings;
  readonly pair: CertificateAndKey;
  readonly clientCa: string | undefined;
  readonly limits?: Partial<ListenerLimits>;
}

export interface Listener {
  listen(): Promise<{ port: number }>;
  /** What new connections see from now on. */
  setTls(pair: CertificateAndKey, clientCa: string | undefined): void;
  close(): Promise<void>;
}

/** What a client may cost before it is known. */
export interface ListenerLimits {
  /** For the handshake, for the headers, for the whole request (no path needs a body), and between two requests. */
  readonly handshakeMs: number;
  readonly headersMs: number;
  readonly requestMs: number;
  readonly idleMs: number;
  readonly maxHeaderBytes: number;
  readonly maxConnections: number;
  /** From an upgrade's request until its stream stands. */
  readonly upgradeMs: number;
}

const defaultLimits: ListenerLimits = {
  handshakeMs: 10_000,
  headersMs: 10_000,
  requestMs: 60_000,
  idleMs: 90_000,
  maxHeaderBytes: 64 * 1024,
  maxConnections: 4096,
  upgradeMs: 60_000,
};

const bucketOf = (found: Found): string => {
  if (found.kind !== 'found') return 'other';
  const [first = 'other', second] = found.route.pattern.split('/').filter((part) => part !== '');
  return first === 'metrics' && second ? `${first}/${second}` : first;
};

const longRunning = new Set(['exec', 'attach', 'portForward', 'debug']);

export function createListener(deps: ListenerDeps, options: ListenerOptions): Listener {
  const { log, identity, authorization, routes } = deps;
  const limits = { ...defaultLimits, ...options.limits };
  const closing = new AbortController();
  const upgraded = new Set<Duplex>();

  const admit = async (
    request: IncomingMessage,
    signal: AbortSignal,
  ): Promise<{ user: User; at: RequestPath; found: Found }> => {
    const at = parseTarget(request.url);
    const user = await identity.identify(request, signal);
    if (!user) throw new HttpError(401, 'Unauthorized');
    if (!at) throw new HttpError(400, 'Bad Request');
    const decision = await authorization.decide(user, request.method ?? '', at.path);
    signal.throwIfAborted();
    if (decision.kind === 'failed') {
      log.warn('cannot authorize a request of the node server', {
        user: user.name,
        path: at.path,
        error: decision.error,
      });
      throw new HttpError(500, decision.message);
    }
    if (decision.kind === 'forbidden') throw new HttpError(403, decision.message);
    return { user, at, found: findRoute(routes, request.method ?? '', at) };
  };

  const routeOf = (found: Found): Extract<Found, { kind: 'found' }> => {
    if (found.kind === 'found') return found;
    if (found.kind === 'not-found') throw new HttpError(404, '404: Page Not Found');
    throw new HttpError(405, '405: Method Not Allowed', { allow: found.allow.join(', ') });
  };

  const asHttpError = (error: unknown, request: IncomingMessage): HttpError => {
    if (error instanceof HttpError) return error;
    log.warn('a request of the node server failed', { method: request.method, url: request.url?.slice(0, 200), error });
    return new HttpError(500, error instanceof Error ? error.message : String(error));
  };

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const started = performance.now();
    const gone = new AbortController();
    const onClose = (): void => gone.abort(new CancelledError('the client is gone'));
    response.once('close', onClose);
    response.on('error', () => undefined);
    // No path reads a body.
    request.resume();
    const signal = AbortSignal.any([gone.signal, closing.signal]);
    const method = request.method ?? '';
    let bucket = 'other';
    let counted = false;
    try {
      const { user, at, found } = await admit(request, signal);
      bucket = bucketOf(found);
      deps.onInflight?.(method, bucket, 1, longRunning.has(bucket));
      counted = true;
      const { route, params } = routeOf(found);
      if (route.kind === 'stream') throw new HttpError(400, 'Upgrade request required');
      await route.serve({ request, response, at, params, user, signal });
    } catch (error) {
      if (!gone.signal.aborted) answer(response, closing.signal.aborted ? unavailable : asHttpError(error, request));
    } finally {
      if (counted) deps.onInflight?.(method, bucket, -1, longRunning.has(bucket));
      const ms = performance.now() - started;
      deps.onServed?.(method, bucket, response.statusCode, ms, longRunning.has(bucket));
    }
  };

  const upgrade = async (request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> => {
    const started = performance.now();
    const gone = new AbortController();
    upgraded.add(socket);
    socket.once('close', () => {
      upgraded.delete(socket);
      gone.abort(new CancelledError('the client is gone'));
    });
    socket.on('error', () => undefined);
    const late = setTimeout(() => socket.destroy(), limits.upgradeMs);
    const signal = AbortSignal.any([gone.signal, closing.signal]);
    const method = request.method ?? '';
    let bucket = 'other';
    let status = 101;
    let counted = false;
    try {
      const { user, at, found } = await admit(request, signal);
      bucket = bucketOf(found);
      deps.onInflight?.(method, bucket, 1, longRunning.has(bucket));
      counted = true;
      const { route, params } = routeOf(found);
      if (route.kind !== 'stream') throw new HttpError(400, 'this path does not upgrade');
      const stands = (): void => clearTimeout(late);
      await route.serve({ request, socket, head, at, params, user, signal, stands });
    } catch (error) {
      if (!gone.signal.aborted) {
        const known = closing.signal.aborted ? unavailable : asHttpError(error, request);
        status = known.status;
        answerRaw(socket, known);
      }
    } finally {
      clearTimeout(late);
      if (counted) deps.onInflight?.(method, bucket, -1, longRunning.has(bucket));
      deps.onServed?.(method, bucket, status, performance.now() - started, longRunning.has(bucket));
    }
  };

  const server: Server = createServer(
    {
      ...tlsOptions(options.pair, options.clientCa, options.tls),
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: limits.handshakeMs,
      headersTimeout: limits.headersMs,
      requestTimeout: limits.requestMs,
      keepAliveTimeout: limits.idleMs,
      connectionsCheckingInterval: Math.min(5_000, limits.headersMs),
      maxHeaderSize: limits.maxHeaderBytes,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: 30_000,
      // Only the streams' paths upgrade; elsewhere an Upgrade header (h2c, for one) is ignored, as HTTP wants it.
      shouldUpgradeCallback: (request) => {
        const at = parseTarget(request.url);
        const found = at && findRoute(routes, request.method ?? '', at);
        return found?.kind === 'found' && found.route.kind === 'stream';
      },
    },
    (request, response) => void serve(request, response),
  );
  server.maxConnections = limits.maxConnections;
  server.on('upgrade', (request, socket, head) => void upgrade(request, socket, head));
  server.on('tlsClientError', (error) => log.debug('a TLS handshake with the node server failed', { error }));
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    // Before the handshake is done nothing can be said, and an answer would keep the connection for ever.
    if (!socket.writable || /^ERR_(TLS|SSL)/.test(error.code ?? '')) {
      socket.destroy();
      return;
    }
    socket.end(
      `HTTP/1.1 ${error.code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : '400 Bad Request'}\r\nConnection: close\r\n\r\n`,
    );
    setTimeout(() => socket.destroy(), 1_000).unref();
  });
  // All of them, those that have not shaken hands too.
  const connections = new Set<Duplex>();
  server.on('connection', (socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
  });

  return {
    listen: () =>
      listenOn(server, { port: options.port, host: options.address }, (error) =>
        log.error('the node server failed', { error }),
      ),
    setTls: (pair, clientCa) => server.setSecureContext(tlsOptions(pair, clientCa, options.tls)),
    close: async () => {
      closing.abort(new CancelledError('the node server closes'));
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of upgraded) socket.destroy();
      server.closeIdleConnections();
      const hard = setTimeout(() => {
        for (const socket of connections) socket.destroy();
      }, 1_000);
      await closed;
      clearTimeout(hard);
    },
  };
}

const unavailable = new HttpError(503, 'the node server is shutting down');

function tlsOptions(pair: CertificateAndKey, clientCa: string | undefined, tls: TlsSettings): Record<string, unknown> {
  return {
    cert: pair.certificate,
    key: pair.key,
    minVersion: tls.minVersion,
    ciphers: tls.ciphers,
    // Without a bundle of our own Node would take the web's for client certificates.
    ca: clientCa ?? [],
    // A resumed session would carry an identity that was checked long ago.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    honorCipherOrder: true,
  };
}

function answer(response: ServerResponse, error: HttpError): void {
  if (response.headersSent) {
    // Half an answer is out: breaking the connection is the only way left to say that it is not whole.
    response.destroy();
    return;
  }
  for (const [name, value] of Object.entries(error.headers)) response.setHeader(name, value);
  sendText(response, error.status, error.message);
}

const phrases: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  429: 'Too Many Requests',
  503: 'Service Unavailable',
};

function answerRaw(socket: Duplex, error: HttpError): void {
  if (!socket.writable) return;
  const headers = Object.entries(error.headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const phrase = phrases[error.status] ?? 'Internal Server Error';
  const length = Buffer.byteLength(error.message);
  socket.end(
    `HTTP/1.1 ${error.status} ${phrase}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: ${length}\r\n${headers.join('')}connection: close\r\n\r\n${error.message}`,
  );
  // The client has a moment to read it; what it still sends is of no use.
  socket.resume();
  setTimeout(() => socket.destroy(), 2_000).unref();
}
