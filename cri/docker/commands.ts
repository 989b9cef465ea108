// exec and attach: Docker's hijacked connections as the port's streams, exit codes, and commands that end when their time is up.
import { readFile } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import type Docker from 'dockerode';
import type { Clock } from '../../lib/clock.ts';
import { RuntimeError } from '../errors.ts';
import type { CallOptions } from '../runtime.ts';
import type * as t from '../types.ts';
import type { DockerConnection } from './connection.ts';
import { createFrameParser } from './streams.ts';

export interface CommandsDeps {
  readonly connection: DockerConnection;
  readonly clock: Clock;
}

export interface Commands {
  execSync(id: t.ContainerId, command: readonly string[], options?: CallOptions): Promise<t.ExecSyncResult>;
  exec(request: t.ExecRequest, options?: CallOptions): Promise<t.StreamEndpoint>;
  attach(request: t.AttachRequest, options?: CallOptions): Promise<t.StreamEndpoint>;
}

const quickMs = 30_000;
/** As much of each stream as a probe or hook may say; containerd's bound too. */
const mostBytes = 16 * 1024 * 1024;
// Docker looks for keys that detach in what is typed into a terminal, by default ctrl-p ctrl-q: shells need those. Nobody types these.
const detachKeys = 'ctrl-_,ctrl-^,ctrl-_,ctrl-^,ctrl-_,ctrl-^';

export function createCommands(deps: CommandsDeps): Commands {
  const { connection, clock } = deps;
  const container = (id: string): Docker.Container => connection.docker.getContainer(id);

  async function createExec(call: string, request: t.ExecRequest, options: CallOptions | undefined) {
    return connection.call(call, without(options), quickMs, (abortSignal) =>
      container(request.containerId).exec({
        Cmd: [...request.command],
        AttachStdin: request.stdin,
        AttachStdout: request.stdout,
        AttachStderr: request.stderr && !request.tty,
        Tty: request.tty,
        DetachKeys: detachKeys,
        abortSignal,
      }),
    );
  }

  const startExec = (call: string, exec: Docker.Exec, request: t.ExecRequest): Promise<Duplex> =>
    connection.call(call, undefined, quickMs, () =>
      exec.start({ hijack: true, stdin: request.stdin, Tty: request.tty }),
    );

  /** The stream may end long before the process does, or a little before Docker has noted its exit. */
  async function exitCode(
    call: string,
    exec: Docker.Exec,
    signal: AbortSignal | undefined,
  ): Promise<Docker.ExecInspectInfo> {
    for (let delayMs = 1; ; delayMs = Math.min(250, delayMs * 2)) {
      const seen = await connection.call(call, undefined, quickMs, () => exec.inspect());
      if (!seen.Running && seen.ExitCode !== null) return seen;
      await clock.sleep(delayMs, signal);
    }
  }

  async function kill(exec: Docker.Exec): Promise<void> {
    const { Running, Pid } = await exec.inspect();
    if (Running && Pid > 1) await killTree(Pid);
  }

  return {
    async execSync(id, command, options) {
      const call = 'ExecSync';
      const request = { containerId: id, command, tty: false, stdin: false, stdout: true, stderr: true };
      const timeoutMs = options?.timeoutMs ?? 0;
      const ending = new AbortController();
      const onAbort = (): void => ending.abort(new RuntimeError('aborted', call, 'cancelled'));
      if (options?.signal?.aborted) throw new RuntimeError('aborted', call, 'not called: cancelled');
      options?.signal?.addEventListener('abort', onAbort, { once: true });
      const timer =
        timeoutMs > 0
          ? clock.setTimer(timeoutMs, () =>
              ending.abort(new RuntimeError('deadline', call, `command timed out: timeout ${timeoutMs} ms exceeded`)),
            )
          : undefined;
      try {
        const exec = await createExec(call, request, undefined);
        const stream = await startExec(call, exec, request);
        const onEnding = (): void => void stream.destroy();
        ending.signal.addEventListener('abort', onEnding, { once: true });
        try {
          if (ending.signal.aborted) throw ending.signal.reason;
          const output = await collect(stream);
          const { ExitCode, Pid } = await exitCode(call, exec, ending.signal);
          if (ending.signal.aborted) throw ending.signal.reason;
          refuseUnstarted(call, ExitCode, Pid, output.stdout);
          return { ...output, exitCode: ExitCode ?? 0 };
        } catch (error) {
          if (!ending.signal.aborted) throw error;
          // Docker lets go of a command that nobody listens to any more, but does not end it.
          await kill(exec).catch(() => undefined);
          throw ending.signal.reason;
        } finally {
          stream.destroy();
        }
      } finally {
        timer?.cancel();
        options?.signal?.removeEventListener('abort', onAbort);
      }
    },

    async exec(request, options) {
      const call = 'Exec';
      await running(connection, call, request.containerId, options);
      return {
        kind: 'duplex',
        open: async (channels, signal) => {
          const exec = await createExec(call, request, undefined);
          const stream = await startExec(call, exec, request);
          const resizing = resizes(channels.resize, signal, (size) => exec.resize(size));
          try {
            const said = await carry(stream, channels, { tty: request.tty, ends: !request.tty }, signal);
            const { ExitCode, Pid } = await exitCode(call, exec, signal);
            refuseUnstarted(call, ExitCode, Pid, said);
            return ExitCode ?? 0;
          } finally {
            stream.destroy();
            resizing.stop();
          }
        },
      };
    },

    async attach(request, options) {
      const call = 'Attach';
      const config = await running(connection, call, request.containerId, options);
      return {
        kind: 'duplex',
        open: async (channels, signal) => {
          const stream = await connection.call(call, undefined, quickMs, () =>
            container(request.containerId).attach({
              hijack: true,
              stream: true,
              stdin: request.stdin,
              stdout: request.stdout,
              stderr: request.stderr && !request.tty,
              detachKeys,
            }),
          );
          const resizing = resizes(channels.resize, signal, (size) => container(request.containerId).resize(size));
          try {
            await carry(
              stream as Duplex,
              channels,
              { tty: request.tty, ends: config.StdinOnce && !config.Tty },
              signal,
            );
            return 0;
          } finally {
            (stream as Duplex).destroy();
            resizing.stop();
          }
        },
      };
    },
  };
}

const without = (options: CallOptions | undefined): CallOptions | undefined =>
  options?.signal ? { signal: options.signal } : undefined;

async function running(connection: DockerConnection, call: string, id: string, options: CallOptions | undefined) {
  const { State, Config } = await connection.call(call, options, quickMs, (abortSignal) =>
    connection.docker.getContainer(id).inspect({ abortSignal }),
  );
  if (!State.Running)
    throw new RuntimeError('invalid', call, `container is in ${State.Status} state: ${id} is not running`);
  return Config;
}

/** A command that could not be started at all is Docker's exit 126 or 127, its words in the place of the command's. */
function refuseUnstarted(call: string, code: number | null, pid: number, said: Uint8Array): void {
  if ((code === 126 || code === 127) && pid === 0)
    throw new RuntimeError('invalid', call, `failed to exec in container: ${Buffer.from(said).toString().trim()}`);
}

async function collect(stream: Duplex): Promise<{ stdout: Buffer; stderr: Buffer }> {
  const parser = createFrameParser();
  const kept = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  const sizes = { stdout: 0, stderr: 0 };
  const raw: Buffer[] = [];
  let framed: boolean | undefined;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    // Words of Docker's own come without frames.
    framed ??= (chunk[0] ?? 9) <= 2;
    if (!framed) {
      raw.push(chunk);
      continue;
    }
    for (const frame of parser.push(chunk)) {
      if (sizes[frame.stream] >= mostBytes) continue;
      sizes[frame.stream] += frame.data.length;
      kept[frame.stream].push(frame.data);
    }
  }
  return { stdout: Buffer.concat([...kept.stdout, ...raw]), stderr: Buffer.concat(kept.stderr) };
}

interface Terms {
  readonly tty: boolean;
  /**
   * Whether the end of the client's input is the end of the process's. Where it is not (terminals, and containers whose input stays open)
   * Docker would take it as the end of the whole stream.
   */
  readonly ends: boolean;
}

/** Joins the connection and the client's channels to the end of the output. Resolves with its first bytes, for messages. */
async function carry(
  stream: Duplex,
  channels: t.StreamChannels,
  { tty, ends }: Terms,
  signal: AbortSignal,
): Promise<Buffer> {
  const onAbort = (): void => void stream.destroy();
  if (signal.aborted) throw signal.reason;
  signal.addEventListener('abort', onAbort, { once: true });
  const input = pour(channels.stdin, stream, ends);
  const out = channels.stdout?.getWriter();
  const err = channels.stderr?.getWriter();
  const parser = createFrameParser();
  let first: Buffer = Buffer.alloc(0);
  let framed: boolean | undefined = tty ? false : undefined;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      if (first.length < 1024) first = Buffer.concat([first, chunk.subarray(0, 1024)]);
      framed ??= (chunk[0] ?? 9) <= 2;
      if (!framed) await out?.write(chunk);
      else for (const { stream: name, data } of parser.push(chunk)) await (name === 'stdout' ? out : err)?.write(data);
    }
    if (signal.aborted) throw signal.reason;
    return first;
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
    input.stop();
    out?.releaseLock();
    err?.releaseLock();
  }
}

/** What the client types goes in, at the pace at which it is taken; its end closes the command's input. */
function pour(stdin: ReadableStream<Uint8Array> | undefined, stream: Duplex, ends: boolean): { stop(): void } {
  stream.on('error', () => undefined);
  if (!stdin) return { stop: () => undefined };
  const reader = stdin.getReader();
  const pump = async (): Promise<void> => {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (stream.destroyed) return;
      if (!stream.write(value))
        await new Promise<void>((resolve) => {
          stream.once('drain', resolve);
          stream.once('close', resolve);
        });
    }
    if (ends) stream.end();
  };
  pump().catch(() => undefined);
  return { stop: () => void reader.cancel().catch(() => undefined) };
}

function resizes(
  sizes: AsyncIterable<{ width: number; height: number }>,
  parent: AbortSignal,
  resize: (size: { w: number; h: number }) => Promise<unknown>,
): { stop(): void } {
  let stopped = false;
  const iterator = sizes[Symbol.asyncIterator]();
  const follow = async (): Promise<void> => {
    while (!stopped && !parent.aborted) {
      const { done, value } = await iterator.next();
      if (done || stopped) return;
      // The terminal may not be there yet, or not any more.
      await resize({ w: value.width, h: value.height }).catch(() => undefined);
    }
  };
  follow().catch(() => undefined);
  return {
    stop() {
      stopped = true;
      void Promise.resolve(iterator.return?.()).catch(() => undefined);
    },
  };
}

/** Ends a process and what it started, the leaves last: a parent that is gone starts no more. */
async function killTree(pid: number): Promise<void> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended meanwhile.
  }
  for (const child of children.split(' ').filter((text) => text.trim() !== '')) await killTree(Number(child));
}
