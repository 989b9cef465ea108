// The server: one TLS port that speaks HTTP/2 and HTTP/1.1, knows who is asking and whether they may, and hands each request to its handler.
import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { describeError, type Log } from '../lib/log.ts';
import type { Authenticate } from './authenticate.ts';
import type { Authorize } from './authorize.ts';
import { Failure, forbidden, unauthorized } from './failure.ts';
import { type Answer, statusText } from './handlers.ts';
import type { User } from './registry.ts';
import { type ApiRequest, attributesOf, parseTarget, type Target } from './request.ts';
import type { Sink } from './watch.ts';

export interface ServerDeps {
  readonly log: Log;
  readonly authenticate: Authenticate;
  readonly authorize: Authorize;
  /** Answers a request, or streams into the sink and returns nothing. */
  dispatch(request: ApiRequest, target: Target | undefined, open: OpenStream): Promise<Answer | undefined>;
  /** Takes over the connection of a request that asked to be upgraded. Returns a refusal instead where it cannot. */
  upgrade(request: ApiRequest, target: Target, message: IncomingMessage, socket: Duplex, head: Buffer): Promise<void>;
}

export type OpenStream = (contentType: string) => Sink;

export interface ServerOptions {
  readonly host: string;
  readonly port: number;
  readonly certPem: string;
  readonly keyPem: string;
  readonly caPem: string;
}

export interface ApiServer {
  readonly port: number;
  /** Stops listening and breaks every connection. */
  close(): Promise<void>;
}

type Incoming = IncomingMessage | Http2ServerRequest;
type Outgoing = ServerResponse | Http2ServerResponse;

const mostBodyBytes = 3 * 1024 * 1024;
const mostBufferedBytes = 32 * 1024 * 1024;

export async function startServer(deps: ServerDeps, options: ServerOptions): Promise<ApiServer> {
  const server: Http2SecureServer = createSecureServer({
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
  server.on(
    'upgrade',
    (message: IncomingMessage, socket: Duplex, head: Buffer) => void serveUpgrade(deps, message, socket, head),
  );
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

function asRequest(deps: ServerDeps, message: Incoming, socket: TLSSocket): ApiRequest {
  const url = new URL(message.url ?? '/', 'https://server');
  const header = (name: string): string | undefined => {
    const value = message.headers[name];
    return Array.isArray(value) ? value.join(',') : value;
  };
  const impersonation = {
    user: header('impersonate-user'),
    groups: (header('impersonate-group') ?? '')
      .split(',')
      .filter((group) => group !== '')
      .map((group) => group.trim()),
  };
  const user = deps.authenticate(socket, header('authorization'), impersonation);
  if (!user) throw unauthorized();
  const path = url.pathname.length > 1 ? url.pathname.replace(/\/+$/, '') : url.pathname;
  return {
    method: message.method ?? 'GET',
    path,
    query: url.searchParams,
    user,
    header,
    bytes: () => readBytes(message),
  };
}

async function readBytes(message: Incoming): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > mostBodyBytes)
      throw new Failure(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${mostBodyBytes}`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Who and what: throws 401, 403 or 404. */
function admit(deps: ServerDeps, request: ApiRequest): Target | undefined {
  const target = parseTarget(request.path);
  const attributes = attributesOf(request, target);
  if (!deps.authorize(request.user, attributes)) throw forbidden(refusal(request.user, attributes));
  return target;
}

function refusal(user: User, asked: ReturnType<typeof attributesOf>): string {
  if (asked.path !== undefined) return `forbidden: User "${user.name}" cannot ${asked.verb} path "${asked.path}"`;
  const resource = `${asked.resource}${asked.group ? `.${asked.group}` : ''}`;
  const what = asked.name ? `${resource} "${asked.name}" is forbidden` : `${resource} is forbidden`;
  const where = asked.namespace ? ` in the namespace "${asked.namespace}"` : ' at the cluster scope';
  const part = asked.subresource ? `${asked.resource}/${asked.subresource}` : asked.resource;
  return `${what}: User "${user.name}" cannot ${asked.verb} resource "${part}" in API group "${asked.group ?? ''}"${where}`;
}

async function serve(deps: ServerDeps, message: Incoming, response: Outgoing): Promise<void> {
  response.on('error', () => undefined);
  try {
    const request = asRequest(deps, message, message.socket as TLSSocket);
    const target = admit(deps, request);
    const answer = await deps.dispatch(request, target, (contentType) => openStream(response, contentType));
    if (answer) send(response, answer);
  } catch (error) {
    send(response, failureAnswer(deps.log, message, error));
  }
}

function failureAnswer(log: Log, message: Incoming, error: unknown): Answer {
  if (error instanceof Failure) return { status: error.status.code ?? 500, body: statusText(error.status) };
  log.error('the control plane failed to answer a request', {
    method: message.method,
    url: message.url,
    error,
    stack: (error as Error)?.stack,
  });
  const text = `Internal error occurred: ${describeError(error)}`;
  return { status: 500, body: statusText({ status: 'Failure', message: text, reason: 'InternalError', code: 500 }) };
}

function send(response: Outgoing, answer: Answer): void {
  if (response.headersSent || response.destroyed) {
    response.end();
    return;
  }
  const body = Buffer.from(answer.body, 'utf8');
  const headers = {
    'content-type': answer.contentType ?? 'application/json',
    'content-length': body.length,
    'cache-control': 'no-cache, private',
  };
  (response as ServerResponse).writeHead(answer.status, headers);
  response.end(body);
}

function openStream(response: Outgoing, contentType: string): Sink {
  (response as ServerResponse).writeHead(200, { 'content-type': contentType, 'cache-control': 'no-cache, private' });
  (response as ServerResponse).flushHeaders();
  return {
    write(text) {
      if (response.destroyed || response.writableEnded) return;
      (response as ServerResponse).write(text);
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
    const request = asRequest(deps, message, message.socket as TLSSocket);
    const target = admit(deps, request);
    if (!target) throw new Failure(400, 'BadRequest', 'this path cannot be upgraded');
    await deps.upgrade(request, target, message, socket, head);
  } catch (error) {
    const { status, body } = failureAnswer(deps.log, message, error);
    refuseUpgrade(socket, status, body);
  }
}

export function refuseUpgrade(socket: Duplex, status: number, body: string): void {
  if (socket.destroyed || !socket.writable) return;
  socket.end(
    `HTTP/1.1 ${status} Refused\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
}
