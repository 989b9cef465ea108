// Runs another program and collects what it says.
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { fitsShell, runInShell } from './shell-pool.ts';
import { type Run, type RunOptions, spawnRun } from './spawn.ts';

export interface ExecOptions {
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Ended with SIGKILL after this many milliseconds. Default 60,000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** More output than this, on either stream, ends the program. Default 64 MiB. */
  readonly maxOutputBytes?: number;
  /** Ends what the program started together with it: for tools that have another do the work, as mount(8) has mount.nfs. */
  readonly group?: boolean;
  /** Told the process id as soon as the program runs. */
  onSpawn?(pid: number): void;
}

export interface ExecResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** A program that could not be started, failed, was ended by a signal, or took too long. */
export class ExecError extends Error {
  override name = 'ExecError';
  readonly command: string;
  /** `not-found`: no such program. `failed`: it exited non-zero or by a signal. */
  readonly code: 'not-found' | 'failed' | 'timeout' | 'aborted' | 'output-too-large';
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  constructor(
    command: string,
    code: ExecError['code'],
    detail: string,
    result: { exitCode?: number | undefined; stdout?: string; stderr?: string; cause?: unknown } = {},
  ) {
    super(`${command}: ${detail}`, { cause: result.cause });
    this.command = command;
    this.code = code;
    this.exitCode = result.exitCode;
    this.stdout = result.stdout ?? '';
    this.stderr = result.stderr ?? '';
  }
}

/** The program's file, looked for as a shell would; undefined where there is none. */
export function findProgram(command: string): string | undefined {
  if (command.includes('/')) return isProgram(command) ? command : undefined;
  return (process.env.PATH ?? '')
    .split(':')
    .map((folder) => join(folder || '.', command))
    .find(isProgram);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

// Where no shell can or may, and where the program is not there, a plain spawn does, and says what is wrong.
async function start(command: string, args: readonly string[], options: RunOptions): Promise<Run> {
  const path = !options.group && fitsShell([command, ...args], options) ? findProgram(command) : undefined;
  const run = path === undefined ? undefined : await runInShell([path, ...args], options);
  return run ?? spawnRun(command, args, options);
}

/** Runs `command` with `args`; resolves with its output where it exits 0, else rejects with an ExecError. */
export async function exec(command: string, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  const { timeoutMs = 60_000, maxOutputBytes = 64 * 1024 * 1024, signal } = options;
  if (signal?.aborted) throw new ExecError(command, 'aborted', 'not started: cancelled', { cause: signal.reason });
  let bytes = 0;
  let ended: ExecError['code'] | undefined;
  let run: Run | undefined;
  const end = (why: ExecError['code']): void => {
    ended ??= why;
    run?.kill();
  };
  run = await start(command, args, {
    ...options,
    onOutput(more) {
      bytes += more;
      if (bytes > maxOutputBytes) end('output-too-large');
    },
  });
  const timer = setTimeout(() => end('timeout'), timeoutMs);
  const onAbort = (): void => end('aborted');
  signal?.addEventListener('abort', onAbort, { once: true });
  // It may have been cancelled while it waited for its turn.
  if (signal?.aborted) onAbort();
  try {
    const came = await run.done;
    const [stdout, stderr] = [came.stdout.toString('utf8'), came.stderr.toString('utf8')];
    if (came.exitCode === 0 && ended === undefined) return { stdout, stderr };
    throw failureOf(command, ended ?? 'failed', timeoutMs, { ...came, stdout, stderr });
  } catch (error) {
    if (error instanceof ExecError) throw error;
    if (ended) throw failureOf(command, ended, timeoutMs, {});
    const code = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'not-found' : 'failed';
    throw new ExecError(command, code, code === 'not-found' ? 'no such program on PATH' : (error as Error).message, {
      cause: error,
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

function failureOf(
  command: string,
  how: ExecError['code'],
  timeoutMs: number,
  came: { exitCode?: number | undefined; killedBy?: string | undefined; stdout?: string; stderr?: string },
): ExecError {
  const said = came.stderr?.trim().slice(0, 2000) || came.stdout?.trim().slice(-500);
  const what =
    how === 'timeout'
      ? `ended after ${timeoutMs} ms`
      : how === 'failed'
        ? `exit ${came.exitCode ?? `by ${came.killedBy}`}`
        : how;
  return new ExecError(command, how, `${what}${said ? `: ${said}` : ''}`, came);
}
