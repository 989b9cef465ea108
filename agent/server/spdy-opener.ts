// exec and attach by the runtime's streaming URL, spoken in SPDY by us: for clients whose protocol the runtime does not know (version 5 of the
// WebSocket channels, which alone can close stdin). As the kubelet translates; whom the runtime understands is spliced to it instead.
import { dialUpgrade, SpliceError } from '../../lib/splice.ts';
import { createSpdySession } from '../../lib/spdy/session.ts';
import type { SpdyStream } from '../../lib/spdy/stream.ts';
import type { StreamChannels, StreamOpener } from '../../cri/types.ts';
import { expectedStreams } from './spdy-command.ts';
import { type CommandStatus, StatusError } from './stream-protocol.ts';
import type { CommandQuery } from './streams.ts';

const protocol = 'v4.channel.k8s.io';
const server = "the runtime's streaming server";
/** After the runtime told how it ended, so long its output may still come. */
const lastWordsMs = 10_000;

/** A SPDY connection to the runtime. Rejects with a SpliceError. */
export const dialSpdy = (url: string, streamProtocol: string, signal: AbortSignal) =>
  dialUpgrade(
    url,
    {
      method: 'POST',
      headers: ['Connection', 'Upgrade', 'Upgrade', 'SPDY/3.1', 'X-Stream-Protocol-Version', streamProtocol],
      signal,
    },
    { server },
  );

async function pour(from: SpdyStream, into: WritableStream<Uint8Array>): Promise<void> {
  const writer = into.getWriter();
  for (let chunk = await from.read(); chunk; chunk = await from.read()) await writer.write(chunk);
}

async function feed(from: ReadableStream<Uint8Array>, into: SpdyStream): Promise<void> {
  for await (const chunk of from) await into.write(chunk);
  into.end();
}

async function sendSizes(sizes: StreamChannels['resize'], into: SpdyStream): Promise<void> {
  for await (const { width, height } of sizes)
    await into.write(Buffer.from(`${JSON.stringify({ Width: width, Height: height })}\n`));
}

async function statusOf(stream: SpdyStream): Promise<CommandStatus> {
  const parts: Buffer[] = [];
  try {
    for (let chunk = await stream.read(); chunk; chunk = await stream.read()) parts.push(chunk);
  } catch (error) {
    // Runtimes reset their streams when they have said all.
    if (parts.length === 0) throw error;
  }
  const text = Buffer.concat(parts).toString('utf8');
  if (text === '') return { metadata: {}, status: 'Success' };
  try {
    return JSON.parse(text) as CommandStatus;
  } catch {
    throw new Error(`${server} told the end in words that make no sense: ${text.slice(0, 200)}`);
  }
}

/** Resolves with the exit code. Rejects with a StatusError where the runtime tells of a failure, else with what went wrong on the way. */
export const spdyOpener =
  (url: string, query: CommandQuery): StreamOpener =>
  async (channels, signal) => {
    const { socket, head, response } = await dialSpdy(url, protocol, signal);
    const chosen = String(response.headers['x-stream-protocol-version'] ?? '');
    if (chosen !== protocol) {
      socket.destroy();
      throw new SpliceError(
        502,
        `${server} speaks ${chosen || 'no version of its protocol that it names'}, not ${protocol}`,
      );
    }
    const session = createSpdySession(socket, head, { role: 'client' });
    const leave = (): void => void socket.destroy();
    signal.addEventListener('abort', leave, { once: true });
    try {
      const streams = new Map(
        expectedStreams(query, protocol).map((streamtype) => [streamtype, session.open({ streamtype })] as const),
      );
      const of = (kind: 'stdin' | 'stdout' | 'stderr' | 'resize') => streams.get(kind);
      const [stdin, stdout, stderr, resize] = [of('stdin'), of('stdout'), of('stderr'), of('resize')];
      // What is not heard any more is no fault of the command.
      const quiet = (work: Promise<void>): Promise<void> => work.catch(() => undefined);
      if (stdin && channels.stdin) void quiet(feed(channels.stdin, stdin));
      if (resize) void quiet(sendSizes(channels.resize, resize));
      const output: Promise<void>[] = [];
      if (stdout && channels.stdout) output.push(quiet(pour(stdout, channels.stdout)));
      if (stderr && channels.stderr) output.push(quiet(pour(stderr, channels.stderr)));
      const status = await statusOf(streams.get('error')!);
      let late: NodeJS.Timeout | undefined;
      const enough = new Promise<void>((resolve) => {
        late = setTimeout(resolve, lastWordsMs);
      });
      await Promise.race([Promise.all(output), enough]);
      clearTimeout(late);
      if (status.status === 'Success') return 0;
      throw new StatusError(status);
    } finally {
      signal.removeEventListener('abort', leave);
      await session.close();
    }
  };
