// WebSocket connections with Kubernetes' channels: the first byte of each message names the channel (a digit and base64 in the text
// protocols). Nothing is read ahead of what was taken: a slow side holds the other back.
import type { IncomingMessage } from 'node:http';
import { type WebSocket, WebSocketServer } from 'ws';
import type { UpgradeCall } from './routes.ts';

export interface Channels {
  /** Of the protocols offered, the one that was agreed on; empty where the client offered none. */
  readonly protocol: string;
  /** Calls `take` with each message, one after the other; resolves when the client is gone. */
  receive(take: (channel: number, data: Buffer) => Promise<void> | void): Promise<void>;
  /** Resolves when there is room for more. Rejects where the client is gone. */
  send(channel: number, data: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

const maxMessageBytes = 4 * 1024 * 1024;
const highWaterBytes = 1024 * 1024;
const closeMs = 5_000;

/** The protocols that a WebSocket client offers, in its order. */
export const offeredProtocols = (header: string | undefined): string[] =>
  (header ?? '').split(',').map((protocol) => protocol.trim());

/** The client's first protocol that we know. */
export function chooseSubprotocol(offered: Iterable<string>, ours: readonly string[]): string | false {
  for (const protocol of offered) if (ours.includes(protocol)) return protocol;
  return false;
}

function accept(call: UpgradeCall, ours: readonly string[]): Promise<WebSocket> {
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    handleProtocols: (offered) => chooseSubprotocol(offered, ours),
  });
  return new Promise((resolve, reject) => {
    // ws answers a handshake that is wrong by itself, and then ends the connection.
    call.socket.once('close', () => reject(new Error('the WebSocket handshake failed')));
    server.handleUpgrade(call.request as IncomingMessage, call.socket, call.head, (socket) => resolve(socket));
  });
}

/** Rejects where the handshake fails; the client has its answer by then. */
export async function openChannels(call: UpgradeCall, ours: readonly string[]): Promise<Channels> {
  const socket = await accept(call, ours);
  call.stands();
  const { protocol } = socket;
  const text = protocol.includes('base64');
  const queue: { channel: number; data: Buffer }[] = [];
  let queued = 0;
  let gone = false;
  let wake: (() => void) | undefined;
  const closed = new Promise<void>((resolve) => {
    socket.on('close', () => {
      gone = true;
      wake?.();
      resolve();
    });
  });
  socket.on('error', () => socket.terminate());
  socket.on('message', (message: Buffer, binary: boolean) => {
    if (message.length === 0) return;
    const channel = text && !binary ? message[0]! - 0x30 : message[0]!;
    const data = text && !binary ? Buffer.from(message.toString('latin1', 1), 'base64') : message.subarray(1);
    queue.push({ channel, data });
    queued += data.length + 64;
    if (queued > highWaterBytes) socket.pause();
    wake?.();
  });

  return {
    protocol,
    async receive(take) {
      for (;;) {
        const next = queue.shift();
        if (next) {
          await take(next.channel, next.data);
          queued -= next.data.length + 64;
          if (queued <= highWaterBytes && socket.isPaused) socket.resume();
          continue;
        }
        if (gone) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    async send(channel, data) {
      if (gone) throw new Error('the client is gone');
      const message = text
        ? String.fromCharCode(0x30 + channel) + Buffer.from(data).toString('base64')
        : Buffer.concat([Buffer.from([channel]), data]);
      await new Promise<void>((resolve, reject) => {
        const sent = (error?: Error | null): void => (error ? reject(error) : resolve());
        // Small messages need not wait for the wire, as long as not too many are on their way.
        if (socket.bufferedAmount < highWaterBytes) {
          socket.send(message, (error) => error && reject(error));
          resolve();
        } else socket.send(message, sent);
      });
    },
    async close() {
      socket.resume();
      socket.close(1000);
      const late = setTimeout(() => socket.terminate(), closeMs);
      await closed;
      clearTimeout(late);
    },
  };
}
