// The server: one TLS port that speaks HTTP/2 and HTTP/1.1, knows who is asking and whether they may, and hands each request to its handler.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createSecureServer, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { TLSSocket } from 'node:tls';
import type { KeyPair } from '../lib/certificates.ts';
import { describeError, type Log } from '../lib/log.ts';
import { authenticate, authorize, refusalOf } from './authorize.ts';
import { dispatch, type DispatchDeps } from './dispatch.ts';
import { Failure, forbidden, noSuchPath } from './failure.ts';
import { type Answer, statusText } from './handlers.ts';
import { spliceUpgrade } from './node-link.ts';
import { type ApiRequest, attributesOf, parseTarget, type Target } from './request.ts';
import type { Sink } from './watch.ts';

export interface ServerDeps extends DispatchDeps {
  readonly log: Log;
}

export type ServerOptions = KeyPair & { readonly host: string; readonly port: number; readonly caPem: string };
export type ApiServer = Awaited<ReturnType<typeof startServer>>;

type Incoming = IncomingMessage | Http2ServerRequest;
type Outgoing = ServerResponse | Http2ServerResponse;

const mostBufferedBytes = 32 * 1024 * 1024;

export async function startServer(deps: ServerDeps, options: ServerOptions) {
  const server = createSecureServer({
    allowHTTP1: true,
    cert: options.certPem,
    key: options.keyPem,
    ca: options.caPem,
    requestCert: true,
    rejectUnauthorized: false,
    minVersion: 'TLSv1.2',
    settings: { maxConcurrentStreams: 2000, initialWindowSize: 1 << 20 },
  });
  const sockets = new Set<TLSSocket>();
  server.on('secureConnection', (socket: TLSSocket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
  });
  server.on('sessionError', () => undefined);
  server.on('request', (message: Incoming, response: Outgoing) => void serve(deps, message, response));
  server.on('upgrade', (message, socket, head) => void serveUpgrade(deps, message, socket, head));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  return {
    port: (server.address() as AddressInfo).port,
    /** Stops listening and breaks every connection. */
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/** Who asks for what: throws 401, 403 or 404. */
function admit(deps: ServerDeps, message: Incoming): { request: ApiRequest; target: Target | undefined } {
  const url = new URL(message.url ?? '/', 'https://server');
  const header = (name: string): string | undefined => {
    const value = message.headers[name];
    return Array.isArray(value) ? value.join(',') : value;
  };
  const user = authenticate(deps.tokens, message.socket as TLSSocket, header('authorization'));
  if (!user) throw new Failure(401, 'Unauthorized', 'Unauthorized');
  const path = url.pathname.replace(/(.)\/+$/, '$1');
  const method = message.method ?? 'GET';
  const request = { method, path, query: url.searchParams, user, header, bytes: () => buffer(message) };
  const target = parseTarget(path);
  const attributes = attributesOf(request, target);
  if (!authorize(user, attributes)) throw forbidden(refusalOf(user, attributes));
  return { request, target };
}

async function serve(deps: ServerDeps, message: Incoming, response: Outgoing): Promise<void> {
  response.on('error', () => undefined);
  try {
    const { request, target } = admit(deps, message);
    const answer = await dispatch(deps, request, target, (type) => openStream(response as ServerResponse, type));
    if (answer) send(response as ServerResponse, answer);
  } catch (error) {
    send(response as ServerResponse, failureAnswer(deps.log, message, error));
  }
}

function failureAnswer(log: Log, { method, url }: Incoming, error: unknown): Answer {
  if (error instanceof Failure) return { status: error.status.code ?? 500, body: statusText(error.status) };
  const { stack } = error as Error;
  log.error('the control plane failed to answer a request', { method, url, error, stack });
  const text = `Internal error occurred: ${describeError(error)}`;
  return { status: 500, body: statusText({ status: 'Failure', message: text, reason: 'InternalError', code: 500 }) };
}

const uncached = { 'cache-control': 'no-cache, private' };

function send(response: ServerResponse, { status, body, contentType = 'application/json' }: Answer): void {
  if (response.headersSent || response.destroyed) return void response.end();
  const bytes = Buffer.from(body, 'utf8');
  response.writeHead(status, { 'content-type': contentType, 'content-length': bytes.length, ...uncached });
  response.end(bytes);
}

function openStream(response: ServerResponse, contentType: string): Sink {
  response.writeHead(200, { 'content-type': contentType, ...uncached });
  response.flushHeaders();
  return {
    write(text) {
      if (response.destroyed || response.writableEnded) return;
      response.write(text);
      // A client that does not read is cut off; it lists again when it comes back.
      if (response.writableLength > mostBufferedBytes) response.destroy();
    },
    end: () => void response.end(),
    onClose: (closed) => void response.once('close', closed),
  };
}

async function serveUpgrade(deps: ServerDeps, message: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
  socket.on('error', () => undefined);
  try {
    const { request, target } = admit(deps, message);
    if (!target) throw noSuchPath();
    await spliceUpgrade(deps, request, target, message, socket, head);
  } catch (error) {
    const { status, body } = failureAnswer(deps.log, message, error);
    if (socket.destroyed || !socket.writable) return;
    const headers = `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close`;
    socket.end(`HTTP/1.1 ${status} Refused\r\n${headers}\r\n\r\n${body}`);
  }
}
