// Starts a child program straight from this process.
import { spawn } from 'node:child_process';

export interface RunOptions {
  readonly input?: string | Uint8Array | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly cwd?: string | undefined;
  /** What is cancelled before its turn comes is not started. */
  readonly signal?: AbortSignal | undefined;
  /** Runs it as the leader of a process group, and `kill` ends the group. */
  readonly group?: boolean | undefined;
  onSpawn?(pid: number): void;
  /** Told of each piece of output, on either stream. */
  onOutput?(bytes: number): void;
}

export interface RunEnd {
  readonly exitCode: number | undefined;
  readonly killedBy: string | undefined;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

/** A program that was started. */
export interface Run {
  /** Ends the program with SIGKILL; nobody waits for what it started, which lives on unless it is of the `group`. `done` settles soon. */
  kill(): void;
  /** Rejects where it could not be started. */
  readonly done: Promise<RunEnd>;
}

export function spawnRun(command: string, args: readonly string[], options: RunOptions): Run {
  const child = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: options.group ?? false,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: { ...process.env, ...options.env } }),
  });
  if (child.pid !== undefined) options.onSpawn?.(child.pid);
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  const collect = (into: Buffer[]) => (chunk: Buffer) => {
    into.push(chunk);
    options.onOutput?.(chunk.length);
  };
  child.stdout.on('data', collect(out));
  child.stderr.on('data', collect(err));
  const done = new Promise<RunEnd>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (exitCode, killedBy) =>
      resolve({
        exitCode: exitCode ?? undefined,
        killedBy: killedBy ?? undefined,
        stdout: Buffer.concat(out),
        stderr: Buffer.concat(err),
      }),
    );
  });
  // The program may exit without reading its input.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input);
  return {
    done,
    kill() {
      if (options.group) killGroup(child.pid);
      child.kill('SIGKILL');
      // Children of its own may live on and hold its output open.
      child.stdout.destroy();
      child.stderr.destroy();
    },
  };
}

function killGroup(leader: number | undefined): void {
  if (leader === undefined) return;
  try {
    process.kill(-leader, 'SIGKILL');
  } catch {
    // All of it has ended already.
  }
}
