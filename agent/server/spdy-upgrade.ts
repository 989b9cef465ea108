// Agrees with a client on SPDY/3.1 and a stream protocol, and answers its upgrade.
import type { IncomingMessage } from 'node:http';
import { createSpdySession, type SpdySession } from '../../lib/spdy/session.ts';
import type { SpdyStream } from '../../lib/spdy/stream.ts';
import { HttpError, type UpgradeCall } from './routes.ts';

const listed = (request: IncomingMessage, header: string): string[] =>
  [request.headers[header] ?? []]
    .flat()
    .flatMap((value) => value.split(','))
    .map((value) => value.trim())
    .filter((value) => value !== '');

/** The first of the client's protocols that we speak; a client that names none gets `fallback`. Throws an HttpError (403). */
export function chooseProtocol(request: IncomingMessage, ours: readonly string[], fallback: string): string {
  const theirs = listed(request, 'x-stream-protocol-version');
  if (theirs.length === 0) return fallback;
  const chosen = theirs.find((protocol) => ours.includes(protocol));
  if (chosen !== undefined) return chosen;
  throw new HttpError(
    403,
    `unable to upgrade: unable to negotiate protocol: client supports [${theirs.join(' ')}], server accepts [${ours.join(' ')}]`,
    { 'x-accepted-stream-protocol-versions': ours.join(', ') },
  );
}

export const isWebSocket = (request: IncomingMessage): boolean =>
  listed(request, 'upgrade').some((value) => value.toLowerCase() === 'websocket');

/** Answers 101. Throws an HttpError (400) where the client wants another protocol than SPDY/3.1. */
export function upgradeToSpdy(call: UpgradeCall, protocol: string): SpdySession {
  const { request, socket, head } = call;
  if (!listed(request, 'upgrade').some((value) => value.toLowerCase() === 'spdy/3.1'))
    throw new HttpError(400, `unable to upgrade: missing upgrade headers in request: ${request.headers.upgrade ?? ''}`);
  call.stands();
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ${protocol}\r\n\r\n`,
  );
  return createSpdySession(socket, head, { role: 'server' });
}

/** The stream's bytes as the runtime port wants them. A reset looks like the end: there is nobody to tell. */
export const readableOf = (stream: SpdyStream): ReadableStream<Uint8Array> =>
  new ReadableStream(
    {
      async pull(controller) {
        const chunk = await stream.read().catch(() => undefined);
        if (chunk) controller.enqueue(chunk);
        else controller.close();
      },
      cancel: () => stream.reset(),
    },
    { highWaterMark: 0 },
  );

export const writableOf = (stream: SpdyStream): WritableStream<Uint8Array> =>
  new WritableStream(
    {
      write: async (chunk) => await stream.write(chunk),
      close: () => stream.end(),
      abort: () => stream.reset(),
    },
    { highWaterMark: 1 },
  );
