// Runs another program and collects what it says. The only place that starts child processes which end by themselves.
import { spawn } from 'node:child_process';

export interface ExecOptions {
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Ended with SIGKILL after this many milliseconds. Default 60,000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** More output than this, on either stream, ends the program. Default 64 MiB. */
  readonly maxOutputBytes?: number;
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

/** Runs `command` with `args`; resolves with its output where it exits 0, else rejects with an ExecError. */
export function exec(command: string, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  const { timeoutMs = 60_000, maxOutputBytes = 64 * 1024 * 1024, signal } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(new ExecError(command, 'aborted', 'not started: cancelled', { cause: signal.reason }));
      return;
    }
    const child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: { ...process.env, ...options.env } }),
    });
    if (child.pid !== undefined) options.onSpawn?.(child.pid);
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    let bytes = 0;
    let ended: ExecError['code'] | undefined;
    const end = (why: ExecError['code']): void => {
      ended ??= why;
      child.kill('SIGKILL');
      // Children of its own may live on and hold its output open; nobody waits for those.
      child.stdout.destroy();
      child.stderr.destroy();
    };
    const collect = (into: Buffer[]) => (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > maxOutputBytes) end('output-too-large');
      else into.push(chunk);
    };
    child.stdout.on('data', collect(out));
    child.stderr.on('data', collect(err));
    const timer = setTimeout(() => end('timeout'), timeoutMs);
    const onAbort = (): void => end('aborted');
    signal?.addEventListener('abort', onAbort, { once: true });
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
    child.on('error', (error: NodeJS.ErrnoException) => {
      done();
      const code = error.code === 'ENOENT' ? 'not-found' : 'failed';
      const detail = code === 'not-found' ? 'no such program on PATH' : error.message;
      reject(new ExecError(command, code, detail, { cause: error }));
    });
    child.on('close', (exitCode, killedBy) => {
      done();
      const stdout = Buffer.concat(out).toString('utf8');
      const stderr = Buffer.concat(err).toString('utf8');
      if (exitCode === 0 && ended === undefined) {
        resolve({ stdout, stderr });
        return;
      }
      const how = ended ?? 'failed';
      const said = stderr.trim().slice(0, 2000) || stdout.trim().slice(-500);
      const what =
        how === 'timeout'
          ? `ended after ${timeoutMs} ms`
          : how === 'failed'
            ? `exit ${exitCode ?? `by ${killedBy}`}`
            : how;
      reject(
        new ExecError(command, how, `${what}${said ? `: ${said}` : ''}`, {
          exitCode: exitCode ?? undefined,
          stdout,
          stderr,
        }),
      );
    });
    // The program may exit without reading its input.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input);
  });
}
