// portForward where the runtime connects to ports itself. A SPDY client opens a data and an error stream for each connection, tied by a
// request id, perhaps inside a WebSocket; another WebSocket client has one pair of channels for each port it named.
import { CancelledError } from '../../lib/abort.ts';
import { createSpdySession, type SpdySession } from '../../lib/spdy/session.ts';
import type { SpdyStream } from '../../lib/spdy/stream.ts';
import type { PortOpener } from '../../cri/types.ts';
import type { UpgradeCall } from './routes.ts';
import { chooseProtocol, isWebSocket, readableOf, upgradeToSpdy, writableOf } from './spdy-upgrade.ts';
import { isTunnel, openTunnel } from './tunnel.ts';
import { openChannels } from './web-socket.ts';

const pairMs = 30_000;

interface Pair {
  data?: SpdyStream;
  error?: SpdyStream;
  late?: NodeJS.Timeout;
}

/** Why a stream of a port-forward client cannot be served; undefined where it can. */
export function refusalOfStream(headers: Readonly<Record<string, string>>): string | undefined {
  const { port, streamtype } = headers;
  if (port === undefined || port === '') return '"port" header is required';
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535) return `unable to parse ${JSON.stringify(port)} as a port`;
  if (Number(port) < 1) return `port ${JSON.stringify(port)} must be > 0`;
  if (streamtype === undefined || streamtype === '') return '"streamType" header is required';
  if (streamtype !== 'data' && streamtype !== 'error') return `invalid stream type ${JSON.stringify(streamtype)}`;
  return undefined;
}

/** Clients that give no request id open the error stream first, and its data stream right after. */
export const requestIdOf = (stream: Pick<SpdyStream, 'id' | 'headers'>): string =>
  stream.headers.requestid || String(stream.headers.streamtype === 'error' ? stream.id : stream.id - 2);

/** Carries one connection to its end; resolves with why it failed, if it did. */
async function carry(
  open: PortOpener,
  port: number,
  client: { readable: ReadableStream<Uint8Array>; writable: WritableStream<Uint8Array> },
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    const { readable, writable } = await open(port, signal);
    // The client may close its half long before the answer ends; the answer's end is the end.
    const up = client.readable.pipeTo(writable, { signal }).catch(() => undefined);
    await readable.pipeTo(client.writable, { signal });
    void up;
    return undefined;
  } catch (error) {
    return signal.aborted ? undefined : (error as Error).message;
  }
}

async function serveSpdy(open: PortOpener, call: UpgradeCall): Promise<void> {
  const protocol = chooseProtocol(call.request, ['portforward.k8s.io'], 'portforward.k8s.io');
  await serveSession(open, upgradeToSpdy(call, protocol), call);
}

async function serveSession(open: PortOpener, session: SpdySession, call: UpgradeCall): Promise<void> {
  const gone = new AbortController();
  void session.closed.then(() => gone.abort(new CancelledError('the client is gone')));
  const signal = AbortSignal.any([gone.signal, call.signal]);
  const pairs = new Map<string, Pair>();
  const pod = call.params.pod ?? '';

  const run = async (data: SpdyStream, error: SpdyStream): Promise<void> => {
    const port = Number(data.headers.port);
    const failed = await carry(open, port, { readable: readableOf(data), writable: writableOf(data) }, signal);
    if (failed !== undefined) {
      const text = `error forwarding port ${port} to pod ${pod}, uid ${call.params.uid ?? ''}: ${failed}`;
      await error.write(Buffer.from(text)).catch(() => undefined);
      error.end();
      data.reset();
      return;
    }
    data.end();
    error.end();
  };

  for await (const stream of session.incoming()) {
    if (refusalOfStream(stream.headers) !== undefined) {
      stream.reset(3);
      continue;
    }
    const id = requestIdOf(stream);
    const pair = pairs.get(id) ?? {};
    const kind = stream.headers.streamtype as 'data' | 'error';
    if (pair[kind]) {
      stream.reset(1);
      continue;
    }
    pair[kind] = stream;
    pairs.set(id, pair);
    if (pair.data && pair.error) {
      clearTimeout(pair.late);
      pairs.delete(id);
      void run(pair.data, pair.error);
    } else {
      pair.late = setTimeout(() => {
        pairs.delete(id);
        (pair.data ?? pair.error)?.reset();
      }, pairMs);
    }
  }
  for (const pair of pairs.values()) clearTimeout(pair.late);
}

async function serveWebSocket(open: PortOpener, ports: readonly number[], call: UpgradeCall): Promise<void> {
  const channels = await openChannels(call, ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io']);
  const gone = new AbortController();
  const signal = AbortSignal.any([gone.signal, call.signal]);
  const inputs = new Map<number, WritableStreamDefaultWriter<Uint8Array>>();
  const carried = ports.map(async (port, index) => {
    const [data, error] = [index * 2, index * 2 + 1];
    const name = Buffer.alloc(2);
    name.writeUInt16LE(port);
    await channels.send(data, name);
    await channels.send(error, name);
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    inputs.set(data, writable.getWriter());
    const out = new WritableStream<Uint8Array>({ write: async (chunk) => await channels.send(data, chunk) });
    const failed = await carry(open, port, { readable, writable: out }, signal);
    inputs.delete(data);
    if (failed !== undefined) {
      const text = `error forwarding port ${port} to pod ${call.params.pod}, uid ${call.params.uid ?? ''}: ${failed}`;
      await channels.send(error, Buffer.from(text)).catch(() => undefined);
    }
  });
  const received = channels
    .receive(
      async (channel, data) =>
        await inputs
          .get(channel)
          ?.write(data)
          .catch(() => undefined),
    )
    .finally(() => gone.abort(new CancelledError('the client is gone')));
  await Promise.allSettled(carried);
  await channels.close();
  await received;
}

/** Resolves when the stream has ended. Rejects with an HttpError as long as the client got no answer. */
export async function serveForward(open: PortOpener, ports: readonly number[], call: UpgradeCall): Promise<void> {
  if (!isWebSocket(call.request)) await serveSpdy(open, call);
  else if (isTunnel(call.request)) {
    const session = createSpdySession(await openTunnel(call), Buffer.alloc(0), { role: 'server' });
    await serveSession(open, session, call);
  } else await serveWebSocket(open, ports, call);
}
