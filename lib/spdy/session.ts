// A SPDY/3.1 session over a connection that was upgraded to it. Made for the dialect that Kubernetes speaks (moby/spdystream): streams without
// :method and :path, and a peer that neither keeps to flow-control windows nor opens them. So windows bind us only once the peer has shown
// that it has any; against the others the connection's own back-pressure does: reading stops while too much waits to be taken.
import type { Duplex } from 'node:stream';
import { SpdyError } from './errors.ts';
import { createFrameParser, dataHead, encodeFrame, type Frame, resetStatus } from './frames.ts';
import {
  createHeaderDeflater,
  createHeaderInflater,
  decodeHeaderBlock,
  encodeHeaderBlock,
  type SpdyHeaders,
} from './headers.ts';
import { createStream, type SpdyStream, type StreamEntry } from './stream.ts';

export interface SpdySessionOptions {
  readonly role: 'server' | 'client';
  /** More at once than this are refused. Default 1,000. */
  readonly maxStreams?: number;
  /** Reading stops while more than this waits to be taken, in one stream or in all. Defaults 1 MiB and 8 MiB. */
  readonly streamBufferBytes?: number;
  readonly sessionBufferBytes?: number;
}

export interface SpdySession {
  /** The streams that the peer opens; ends when the session does. */
  incoming(): AsyncIterable<SpdyStream>;
  /** Opens one; does not wait for the peer's reply. Throws a SpdyError where the session has ended. */
  open(headers: SpdyHeaders): SpdyStream;
  /** Round trip to the peer. */
  ping(): Promise<void>;
  /** Says GOAWAY, lets what was written leave, and ends the connection. */
  close(): Promise<void>;
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
}

const initialWindow = 64 * 1024;
const settingInitialWindow = 7;
const maxFrameBytes = 32 * 1024;
const lingerMs = 10_000;
/** Window updates are sent when this much was taken. */
const updateBytes = initialWindow / 2;
/** So many control frames in a row that ask for an answer, with no reader on the other side, are an attack. */
const maxUnsentBytes = 4 * 1024 * 1024;

interface Flow {
  entry: StreamEntry;
  buffered: number;
  taken: number;
  sendWindow: number;
}

export function createSpdySession(connection: Duplex, head: Buffer, options: SpdySessionOptions): SpdySession {
  const { role, maxStreams = 1_000, streamBufferBytes = 1024 * 1024, sessionBufferBytes = 8 * 1024 * 1024 } = options;
  const parser = createFrameParser();
  const inflater = createHeaderInflater();
  const deflater = createHeaderDeflater();
  const streams = new Map<number, Flow>();
  const arrived: SpdyStream[] = [];
  const pings = new Map<number, () => void>();
  const ours = role === 'server' ? 0 : 1;
  let nextId = role === 'server' ? 2 : 1;
  let nextPing = role === 'server' ? 2 : 1;
  let lastSeen = 0;
  let buffered = 0;
  let taken = 0;
  let peerKeepsWindows = false;
  let peerInitialWindow = initialWindow;
  let sessionWindow = initialWindow;
  let ended: SpdyError | undefined;
  let wakeIncoming: (() => void) | undefined;
  let wakeReader: (() => void) | undefined;
  /** Reading stands still until something is taken. */
  let held = false;
  let windowWaiters: (() => void)[] = [];
  let drained: Promise<void> | undefined;
  let noteClosed: () => void = () => undefined;
  const closed = new Promise<void>((resolve) => {
    noteClosed = resolve;
  });

  const sendFrame = (frame: Frame): void => {
    if (ended || !connection.writable) return;
    connection.write(encodeFrame(frame));
    if (connection.writableLength > maxUnsentBytes)
      finish(new SpdyError('protocol', 'the peer asks and does not read'));
  };

  const finish = (why: SpdyError): void => {
    if (ended) return;
    ended = why;
    for (const { entry } of [...streams.values()]) entry.fail(why);
    inflater.close();
    connection.destroy();
    wakeIncoming?.();
    wakeReader?.();
    for (const wake of windowWaiters) wake();
    for (const resolve of pings.values()) resolve();
    noteClosed();
  };

  const room = (): Promise<void> => {
    // One listener serves all who wait: the next write after a full buffer.
    drained ??= new Promise<void>((resolve) => {
      const done = (): void => {
        drained = undefined;
        connection.off('drain', done);
        connection.off('close', done);
        resolve();
      };
      connection.on('drain', done);
      connection.on('close', done);
    });
    return drained;
  };

  const overfull = (): boolean =>
    buffered > sessionBufferBytes ||
    (buffered > streamBufferBytes && [...streams.values()].some((flow) => flow.buffered > streamBufferBytes));

  const wakeWindows = (): void => {
    const waiters = windowWaiters;
    windowWaiters = [];
    for (const wake of waiters) wake();
  };

  const send = async (flow: Flow, id: number, data: Uint8Array): Promise<void> => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    for (let at = 0; at < bytes.length; ) {
      if (ended) throw ended;
      if (!streams.has(id)) throw new SpdyError('closed', `stream ${id} is closed`);
      const allowed = peerKeepsWindows ? Math.min(flow.sendWindow, sessionWindow) : maxFrameBytes;
      if (allowed <= 0) {
        await new Promise<void>((resolve) => windowWaiters.push(resolve));
        continue;
      }
      const piece = bytes.subarray(at, at + Math.min(allowed, maxFrameBytes));
      at += piece.length;
      flow.sendWindow -= piece.length;
      sessionWindow -= piece.length;
      connection.cork();
      connection.write(dataHead(id, false, piece.length));
      const more = connection.write(piece);
      connection.uncork();
      if (!more) await room();
    }
    if (ended) throw ended;
  };

  const addStream = (id: number, headers: SpdyHeaders): StreamEntry => {
    const flow: Flow = {
      entry: undefined as unknown as StreamEntry,
      buffered: 0,
      taken: 0,
      sendWindow: peerInitialWindow,
    };
    flow.entry = createStream(id, headers, {
      send: (data) => send(flow, id, data),
      sendEnd: () => sendFrame({ type: 'data', streamId: id, fin: true, data: Buffer.alloc(0) }),
      sendReset: (status) => sendFrame({ type: 'reset', streamId: id, status }),
      consumed(bytes) {
        flow.buffered -= bytes;
        buffered -= bytes;
        flow.taken += bytes;
        taken += bytes;
        wakeReader?.();
        // A server that knows no windows may hang up when it has said all: what is written to it then would cost us what it said.
        if (role === 'client' && !peerKeepsWindows) return;
        if (flow.taken >= updateBytes && !flow.entry.remoteEnded && streams.has(id)) {
          sendFrame({ type: 'window-update', streamId: id, delta: flow.taken });
          flow.taken = 0;
        }
        if (taken >= updateBytes) {
          sendFrame({ type: 'window-update', streamId: 0, delta: taken });
          taken = 0;
        }
      },
      gone: () => void streams.delete(id),
    });
    streams.set(id, flow);
    return flow.entry;
  };

  const onSynStream = async (frame: Extract<Frame, { type: 'syn-stream' }>): Promise<void> => {
    const { streamId } = frame;
    // Inflated even where it is refused: the next block builds on it.
    const headers = decodeHeaderBlock(await inflater.inflate(frame.headers));
    if (ended) return;
    if (streamId === 0 || streamId % 2 === ours) throw new SpdyError('protocol', `the peer opens stream ${streamId}`);
    if (streams.has(streamId)) {
      sendFrame({ type: 'reset', streamId, status: resetStatus.protocolError });
      streams.get(streamId)!.entry.fail(new SpdyError('protocol', `stream ${streamId} was opened twice`));
      return;
    }
    if (streams.size >= maxStreams) {
      sendFrame({ type: 'reset', streamId, status: resetStatus.refusedStream });
      return;
    }
    lastSeen = Math.max(lastSeen, streamId);
    const entry = addStream(streamId, headers);
    sendFrame({ type: 'syn-reply', streamId, fin: false, headers: deflater.deflate(encodeHeaderBlock({})) });
    if (frame.fin) entry.receiveEnd();
    if (frame.unidirectional) entry.stream.end();
    arrived.push(entry.stream);
    wakeIncoming?.();
  };

  const onData = (frame: Extract<Frame, { type: 'data' }>): void => {
    const flow = streams.get(frame.streamId);
    if (!flow) {
      // Late bytes of a stream that is gone; of one that never was, they are an error.
      const known = frame.streamId % 2 === ours ? frame.streamId < nextId : frame.streamId <= lastSeen;
      if (!known) sendFrame({ type: 'reset', streamId: frame.streamId, status: resetStatus.invalidStream });
      return;
    }
    if (frame.data.length > 0) {
      flow.buffered += frame.data.length;
      buffered += frame.data.length;
      flow.entry.receive(frame.data);
    }
    if (frame.fin) flow.entry.receiveEnd();
  };

  const onWindow = (frame: Extract<Frame, { type: 'window-update' }>): void => {
    peerKeepsWindows = true;
    if (frame.streamId === 0) sessionWindow += frame.delta;
    else {
      const flow = streams.get(frame.streamId);
      if (flow) flow.sendWindow += frame.delta;
    }
    wakeWindows();
  };

  const handle = async (frame: Frame): Promise<void> => {
    switch (frame.type) {
      case 'syn-stream':
        return await onSynStream(frame);
      case 'syn-reply':
      case 'headers':
        await inflater.inflate(frame.headers);
        if (frame.fin) streams.get(frame.streamId)?.entry.receiveEnd();
        return;
      case 'data':
        return onData(frame);
      case 'reset': {
        const reset = new SpdyError('reset', `the peer reset stream ${frame.streamId}`, undefined, frame.status);
        streams.get(frame.streamId)?.entry.fail(reset);
        wakeWindows();
        return;
      }
      case 'settings':
        for (const { id, value } of frame.values) {
          if (id !== settingInitialWindow) continue;
          peerKeepsWindows = true;
          for (const flow of streams.values()) flow.sendWindow += value - peerInitialWindow;
          peerInitialWindow = value;
        }
        wakeWindows();
        return;
      case 'ping':
        if (frame.id % 2 !== ours) sendFrame(frame);
        else {
          pings.get(frame.id)?.();
          pings.delete(frame.id);
        }
        return;
      case 'goaway':
        // What is open goes on to its end; the peer ends the connection.
        return;
      case 'window-update':
        return onWindow(frame);
    }
  };

  const readAll = async (): Promise<void> => {
    const take = async (chunk: Buffer): Promise<void> => {
      for (const frame of parser.push(chunk)) {
        await handle(frame);
        if (ended) return;
      }
      while (!ended && overfull()) {
        held = true;
        await new Promise<void>((resolve) => {
          wakeReader = resolve;
        });
        held = false;
      }
    };
    try {
      if (head.length > 0) await take(head);
      for await (const chunk of connection as AsyncIterable<Buffer>) {
        await take(chunk);
        if (ended) return;
      }
      finish(new SpdyError('closed', 'the peer ended the connection'));
    } catch (error) {
      if (error instanceof SpdyError && connection.writable) {
        connection.write(encodeFrame({ type: 'goaway', lastStreamId: lastSeen, status: 1 }));
        finish(error);
      } else finish(new SpdyError('closed', 'the connection broke', error));
    }
  };
  connection.on('error', (error) => finish(new SpdyError('closed', 'the connection broke', error)));
  // The reader sees the end by itself, after all that came before it; unless it stands still.
  connection.on('close', () => held && finish(new SpdyError('closed', 'the connection has ended')));
  void readAll();

  return {
    closed,
    async *incoming() {
      for (;;) {
        const next = arrived.shift();
        if (next) {
          yield next;
          continue;
        }
        if (ended) return;
        await new Promise<void>((resolve) => {
          wakeIncoming = resolve;
        });
      }
    },
    open(headers) {
      if (ended) throw ended;
      const id = nextId;
      nextId += 2;
      const entry = addStream(id, headers);
      const block = deflater.deflate(encodeHeaderBlock(headers));
      sendFrame({
        type: 'syn-stream',
        streamId: id,
        associatedTo: 0,
        fin: false,
        unidirectional: false,
        headers: block,
      });
      return entry.stream;
    },
    ping() {
      const id = nextPing;
      nextPing += 2;
      return new Promise((resolve, reject) => {
        if (ended) {
          reject(ended);
          return;
        }
        pings.set(id, () => (ended ? reject(ended) : resolve()));
        sendFrame({ type: 'ping', id });
      });
    },
    async close() {
      if (!ended && connection.writable) {
        sendFrame({ type: 'goaway', lastStreamId: lastSeen, status: 0 });
        // The peer has a moment to take what is on its way, and to hang up: were the connection destroyed while something of the peer's is
        // unread, the kernel would throw away at the other end what is unread there.
        connection.end();
        await Promise.race([closed, new Promise<void>((resolve) => setTimeout(resolve, lingerMs).unref())]);
      }
      finish(new SpdyError('closed', 'the session was closed'));
    },
  };
}
