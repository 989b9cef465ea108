// Joins a client's connection that asked for an upgrade to the server that shall serve it: the request goes on as it came, that server's 101
// comes back as it is, and from then on bytes flow both ways at the pace of the slower side. What protocol they speak is between the two.
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';

export interface SplicedCall {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  /** What the client sent right behind its request. */
  readonly head: Buffer;
  readonly signal: AbortSignal;
  /** Called when the stream stands. */
  stands?(): void;
}

/** What the other server answered instead of the upgrade, or 500 where it could not be reached. */
export class SpliceError extends Error {
  override name = 'SpliceError';
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface SpliceOptions {
  /** A stream on which nothing moved for this long is ended. Default 4 hours (`streamingConnectionIdleTimeout`); 0: never. */
  readonly idleMs: number;
  /** What the other side is called in an error. */
  readonly server: string;
  /** The client certificate it is shown; PEM. */
  readonly client?: { readonly cert: string; readonly key: string };
}

/** Headers of one hop, but for the upgrade itself; and our own, which name us and carry the caller's credentials. */
const kept = new Set(['authorization', 'host', 'content-length', 'transfer-encoding', 'keep-alive', 'te', 'trailer']);
const dialMs = 30_000;
const lingerMs = 10 * 60_000;
const maxRefusalBytes = 64 * 1024;

function forwardedHeaders(request: IncomingMessage): string[] {
  const headers: string[] = [];
  for (let index = 0; index + 1 < request.rawHeaders.length; index += 2) {
    const name = request.rawHeaders[index]!;
    if (!kept.has(name.toLowerCase())) headers.push(name, request.rawHeaders[index + 1]!);
  }
  return headers;
}

const hostOf = (url: URL): string => url.hostname.replace(/^\[|\]$/g, '');

type Reply =
  | { readonly kind: 'upgraded'; readonly response: IncomingMessage; readonly socket: Socket; readonly head: Buffer }
  | { readonly kind: 'refused'; readonly response: IncomingMessage };

interface UpgradeRequest {
  readonly method: string;
  /** Names and values in turn. */
  readonly headers: readonly string[];
  readonly signal: AbortSignal;
}

function dial(url: URL, { method, headers, signal }: UpgradeRequest, client: SpliceOptions['client']): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const common = {
      method,
      path: `${url.pathname}${url.search}`,
      headers: [...headers, 'Host', url.host, 'Content-Length', '0'],
      signal,
      timeout: dialMs,
    };
    const outgoing: ClientRequest =
      url.protocol === 'https:'
        ? // A certificate that the server made itself: its address is known from it, by a way that is trusted.
          httpsRequest({
            ...common,
            ...client,
            host: hostOf(url),
            port: url.port,
            rejectUnauthorized: false,
            agent: false,
          })
        : httpRequest({
            ...common,
            createConnection: () =>
              connect({
                host: hostOf(url),
                port: Number(url.port || 80),
                allowHalfOpen: true,
                noDelay: true,
              }),
          });
    outgoing.on('upgrade', (response, socket, head) => resolve({ kind: 'upgraded', response, socket, head }));
    outgoing.on('response', (response) => resolve({ kind: 'refused', response }));
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${dialMs} ms`)));
    outgoing.on('error', reject);
    outgoing.end();
  });
}

function rawHead(response: IncomingMessage): string {
  const lines = [`HTTP/1.1 ${response.statusCode} ${response.statusMessage}`];
  for (let index = 0; index + 1 < response.rawHeaders.length; index += 2)
    lines.push(`${response.rawHeaders[index]}: ${response.rawHeaders[index + 1]}`);
  return `${lines.join('\r\n')}\r\n\r\n`;
}

async function refusalOf(response: IncomingMessage, server: string): Promise<SpliceError> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > maxRefusalBytes) break;
    parts.push(part);
  }
  response.destroy();
  const status = response.statusCode ?? 500;
  const text = Buffer.concat(parts).toString('utf8');
  return new SpliceError(status >= 400 ? status : 502, text || `${server} answered ${status} without an upgrade`);
}

/**
 * A write that fails does not take the stream's other half with it: a runtime hangs up as soon as it has said all, and what it said is
 * still to be read though the client goes on sending. What is written from then on goes nowhere.
 */
function outliveFailedWrites(stream: Duplex): void {
  let deaf = false;
  const through = (): void => {
    if (deaf && stream.readableEnded) stream.destroy();
  };
  stream.on('end', through);
  const forgiving =
    (done: (error?: Error | null) => void) =>
    (error?: Error | null): void => {
      if (error) deaf = true;
      done();
      through();
    };
  const write = stream._write.bind(stream);
  const writev = stream._writev?.bind(stream);
  const final = (stream._final as Duplex['_final'] | undefined)?.bind(stream);
  stream._write = (chunk, encoding, done) => (deaf ? done() : write(chunk, encoding, forgiving(done)));
  if (writev) stream._writev = (chunks, done) => (deaf ? done() : writev(chunks, forgiving(done)));
  if (final) stream._final = (done) => (deaf ? done() : final(forgiving(done)));
}

/** Resolves when both sides are done. */
export function joinStreams(one: Duplex, other: Duplex, idleMs: number): Promise<void> {
  return new Promise((resolve) => {
    let open = 2;
    const end = (): void => {
      one.destroy();
      other.destroy();
    };
    const watch = (stream: Duplex, opposite: Duplex): void => {
      outliveFailedWrites(stream);
      // A side that broke closes by itself, and what it sent before still gets to the other one.
      stream.on('error', () => undefined);
      // Who has heard the end has a moment to hang up.
      if (idleMs > 0)
        stream.on(
          'end',
          () => 'setTimeout' in opposite && (opposite as Socket).setTimeout(Math.min(idleMs, lingerMs), end),
        );
      stream.on('close', () => {
        // A side that is gone can neither send nor hear; what it sent is flushed to the other by then.
        if (opposite.writableEnded && opposite.writableFinished) opposite.destroy();
        else opposite.end(() => opposite.destroy());
        if (--open === 0) resolve();
      });
      if (idleMs > 0 && 'setTimeout' in stream) (stream as Socket).setTimeout(idleMs, end);
    };
    watch(one, other);
    watch(other, one);
    one.pipe(other);
    other.pipe(one);
  });
}

export interface Upgraded {
  readonly response: IncomingMessage;
  readonly socket: Socket;
  /** What came right behind the answer. */
  readonly head: Buffer;
}

/** Asks a server for an upgrade. Rejects with a SpliceError where it does not give it, or with the signal's reason. */
export async function dialUpgrade(
  target: string,
  request: UpgradeRequest,
  options: Omit<SpliceOptions, 'idleMs'>,
): Promise<Upgraded> {
  let reply: Reply;
  try {
    reply = await dial(new URL(target), request, options.client);
  } catch (error) {
    request.signal.throwIfAborted();
    throw new SpliceError(500, `cannot connect to ${options.server}: ${(error as Error).message}`);
  }
  if (reply.kind === 'refused') throw await refusalOf(reply.response, options.server);
  reply.socket.setTimeout(0);
  return reply;
}

/** Rejects with a SpliceError as long as nothing was sent to the client; resolves when the stream has ended. */
export async function splice(target: string, call: SplicedCall, options: SpliceOptions): Promise<void> {
  const { socket, head, request, signal } = call;
  const asked = { method: request.method ?? 'POST', headers: forwardedHeaders(request), signal };
  const { response, socket: upstream, head: first } = await dialUpgrade(target, asked, options);
  if (signal.aborted || socket.destroyed) {
    upstream.destroy();
    return;
  }
  call.stands?.();
  socket.write(rawHead(response));
  if (first.length > 0) socket.write(first);
  if (head.length > 0) upstream.write(head);
  await joinStreams(socket, upstream, options.idleMs);
}
