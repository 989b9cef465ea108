// exec and attach for a SPDY client: waits for the streams it announced and hands them on.
import { CancelledError } from '../../lib/abort.ts';
import type { SpdySession } from '../../lib/spdy/session.ts';
import type { SpdyStream } from '../../lib/spdy/stream.ts';
import type { UpgradeCall } from './routes.ts';
import { chooseProtocol, readableOf, upgradeToSpdy, writableOf } from './spdy-upgrade.ts';
import { type CommandConnection, createSizeParser, createSizeQueue, plainStatus } from './stream-protocol.ts';
import type { CommandQuery } from './streams.ts';

const protocols = ['v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io'];
const creationMs = 30_000;

type Kind = 'error' | 'stdin' | 'stdout' | 'stderr' | 'resize';

/** The streams that the client must open, by what it asked for. Clients before v3 know no resize. */
export function expectedStreams(query: CommandQuery, protocol: string): Kind[] {
  const resizes = protocol === 'v4.channel.k8s.io' || protocol === 'v3.channel.k8s.io';
  return [
    'error',
    ...(query.stdin ? (['stdin'] as const) : []),
    ...(query.stdout ? (['stdout'] as const) : []),
    ...(query.stderr ? (['stderr'] as const) : []),
    ...(query.tty && resizes ? (['resize'] as const) : []),
  ];
}

async function gather(session: SpdySession, expected: readonly Kind[]): Promise<Map<Kind, SpdyStream> | undefined> {
  const found = new Map<Kind, SpdyStream>();
  const late = setTimeout(() => void session.close(), creationMs);
  try {
    for await (const stream of session.incoming()) {
      const kind = stream.headers.streamtype as Kind;
      if (!expected.includes(kind) || found.has(kind)) stream.reset();
      else found.set(kind, stream);
      if (found.size === expected.length) return found;
    }
    return undefined;
  } finally {
    clearTimeout(late);
  }
}

async function readSizes(stream: SpdyStream, queue: ReturnType<typeof createSizeQueue>): Promise<void> {
  const parser = createSizeParser();
  try {
    for (let chunk = await stream.read(); chunk; chunk = await stream.read())
      for (const size of parser.push(chunk)) queue.push(size);
  } catch {
    // The client is gone; the command's end is another's business.
  } finally {
    queue.end();
  }
}

/** Undefined where the client left, or did not open its streams in time: nothing was started then. Rejects with an HttpError. */
export async function spdyCommand(query: CommandQuery, call: UpgradeCall): Promise<CommandConnection | undefined> {
  const protocol = chooseProtocol(call.request, protocols, 'channel.k8s.io');
  const session = upgradeToSpdy(call, protocol);
  const expected = expectedStreams(query, protocol);
  const streams = await gather(session, expected);
  if (!streams) return undefined;
  // What else it opens, nobody waits for.
  void (async () => {
    for await (const stream of session.incoming()) stream.reset();
  })();
  const gone = new AbortController();
  void session.closed.then(() => gone.abort(new CancelledError('the client is gone')));
  const queue = createSizeQueue();
  const resize = streams.get('resize');
  if (resize) void readSizes(resize, queue);
  else queue.end();
  const of = (kind: Kind): SpdyStream | undefined => streams.get(kind);
  const [stdin, stdout, stderr] = [of('stdin'), of('stdout'), of('stderr')];
  const error = streams.get('error')!;
  return {
    signal: gone.signal,
    channels: {
      stdin: stdin && readableOf(stdin),
      stdout: stdout && writableOf(stdout),
      stderr: stderr && writableOf(stderr),
      resize: queue.sizes,
    },
    async sendStatus(status) {
      const text = protocol === 'v4.channel.k8s.io' ? JSON.stringify(status) : plainStatus(status);
      await error.write(Buffer.from(text));
    },
    async close() {
      for (const stream of [stdout, stderr, error]) stream?.end();
      await session.close();
    },
  };
}
