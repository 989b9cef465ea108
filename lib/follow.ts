// Runs a program that does not end by itself and hands over what it says, line by line.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ExecError } from './exec.ts';

export interface FollowOptions {
  readonly signal: AbortSignal;
  /** Told the process id as soon as the program runs. */
  onSpawn?(pid: number): void;
}

/**
 * The lines of the program's standard output. Ends when the signal aborts (the program gets SIGTERM); throws an ExecError where the
 * program cannot be started or ends by itself. Standard error is kept for that error's text.
 */
export async function* followLines(
  command: string,
  args: readonly string[],
  options: FollowOptions,
): AsyncGenerator<string, void, undefined> {
  const { signal } = options;
  if (signal.aborted) return;
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  if (child.pid !== undefined) options.onSpawn?.(child.pid);
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('utf8')).slice(-2000);
  });
  const ended = new Promise<ExecError>((resolve) => {
    child.on('error', (error: NodeJS.ErrnoException) =>
      resolve(
        new ExecError(command, error.code === 'ENOENT' ? 'not-found' : 'failed', error.message, { cause: error }),
      ),
    );
    child.on('close', (code, killedBy) =>
      resolve(
        new ExecError(command, 'failed', `exit ${code ?? `by ${killedBy}`}${said ? `: ${said.trim()}` : ''}`, {
          exitCode: code ?? undefined,
          stderr: said,
        }),
      ),
    );
  });
  const onAbort = (): void => void child.kill('SIGTERM');
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    for await (const line of createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY })) {
      if (signal.aborted) return;
      yield line;
    }
    const error = await ended;
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
    child.kill('SIGTERM');
  }
}
