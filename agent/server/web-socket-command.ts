// exec and attach for a WebSocket client: stdin 0, stdout 1, stderr 2, error 3, resize 4; from v5 on, message 255 closes a channel.
import type { IncomingMessage } from 'node:http';
import { CancelledError } from '../../lib/abort.ts';
import type { UpgradeCall } from './routes.ts';
import { type CommandConnection, createSizeParser, createSizeQueue, plainStatus } from './stream-protocol.ts';
import type { CommandQuery } from './streams.ts';
import { offeredProtocols, openChannels } from './web-socket.ts';

const closingProtocol = 'v5.channel.k8s.io';
const protocols = [
  closingProtocol,
  'v4.channel.k8s.io',
  'v4.base64.channel.k8s.io',
  'channel.k8s.io',
  'base64.channel.k8s.io',
];
const [stdinChannel, stdoutChannel, stderrChannel, errorChannel, resizeChannel] = [0, 1, 2, 3, 4] as const;
const closeSignal = 255;

/** Whether a WebSocket client offers the version that can close stdin, which runtimes do not speak. */
export const canCloseStdin = ({ headers }: IncomingMessage): boolean =>
  offeredProtocols(headers['sec-websocket-protocol']).includes(closingProtocol);

/** Bytes that are pushed, held until they are taken. */
function createPushed(): {
  readonly stream: ReadableStream<Uint8Array>;
  /** Resolves when the bytes were taken. */
  push(data: Buffer): Promise<void>;
  end(): void;
} {
  let wanted: (() => void) | undefined;
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  let ended = false;
  const stream = new ReadableStream<Uint8Array>(
    {
      start: (given) => {
        controller = given;
      },
      pull: () => wanted?.(),
      cancel: () => {
        ended = true;
        wanted?.();
      },
    },
    { highWaterMark: 1 },
  );
  return {
    stream,
    async push(data) {
      while (!ended && (controller?.desiredSize ?? 0) <= 0)
        await new Promise<void>((resolve) => {
          wanted = resolve;
        });
      if (!ended) controller?.enqueue(data);
    },
    end() {
      if (ended) return;
      ended = true;
      controller?.close();
      wanted?.();
    },
  };
}

export async function webSocketCommand(query: CommandQuery, call: UpgradeCall): Promise<CommandConnection> {
  const channels = await openChannels(call, protocols);
  const { protocol } = channels;
  const structured = protocol.startsWith('v4.') || protocol.startsWith('v5.');
  const gone = new AbortController();
  const stdin = query.stdin ? createPushed() : undefined;
  const sizes = createSizeQueue();
  const sizeParser = createSizeParser();
  const received = channels.receive(async (channel, data) => {
    if (channel === stdinChannel) await stdin?.push(data);
    else if (channel === resizeChannel) for (const size of sizeParser.push(data)) sizes.push(size);
    else if (channel === closeSignal && data[0] === stdinChannel) stdin?.end();
  });
  void received.finally(() => {
    gone.abort(new CancelledError('the client is gone'));
    stdin?.end();
    sizes.end();
  });
  const output = (channel: number): WritableStream<Uint8Array> =>
    new WritableStream({ write: async (chunk) => await channels.send(channel, chunk) });
  // An empty message tells the client that its connection stands.
  await channels.send(query.stdout ? stdoutChannel : query.stderr ? stderrChannel : errorChannel, Buffer.alloc(0));
  return {
    signal: gone.signal,
    channels: {
      stdin: stdin?.stream,
      stdout: query.stdout ? output(stdoutChannel) : undefined,
      stderr: query.stderr ? output(stderrChannel) : undefined,
      resize: sizes.sizes,
    },
    async sendStatus(status) {
      await channels.send(errorChannel, Buffer.from(structured ? JSON.stringify(status) : plainStatus(status)));
    },
    close: () => channels.close(),
  };
}
