// An advisory lock on a file, flock(2) as other programs take it, held by flock(1): Node.js has no call for it. Its process lives as long as this one.
import { spawn } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import type { Clock } from './clock.ts';

export interface FileLock {
  /** Resolves when somebody else waits for the lock, the file is gone, or the lock was lost; rejects when the signal aborts. */
  wanted(signal: AbortSignal): Promise<string>;
  release(): void;
}

/** How soon a wait of somebody else is noticed. */
const pollMs = 1_000;

/** Whether somebody waits for a lock of flock(2) on the file, by the text of /proc/locks. */
export const isAwaited = (locks: string, inode: number): boolean =>
  locks.split('\n').some((line) => {
    const [, arrow, kind, , , , file] = line.trim().split(/\s+/);
    return arrow === '->' && kind === 'FLOCK' && file?.split(':')[2] === String(inode);
  });

/** Makes the file where there is none, and waits for as long as somebody else holds it. Rejects where it cannot be locked, and when the signal aborts. */
export async function lockFile(
  { clock }: { readonly clock: Clock },
  path: string,
  signal: AbortSignal,
): Promise<FileLock> {
  signal.throwIfAborted();
  // The holder ends with its input, so with this process; it says a line when it has the lock.
  const holder = spawn('flock', ['--no-fork', '--exclusive', '--', path, 'sh', '-c', 'echo; exec cat'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const release = (): void => void holder.kill('SIGKILL');
  let complaint = '';
  holder.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  holder.stdin.on('error', () => undefined);
  const ended = new Promise<Error>((resolve) => {
    holder.once('error', (error) => resolve(new Error(`flock cannot be run: ${error.message}`, { cause: error })));
    holder.once('close', () => resolve(new Error(complaint.trim() || 'flock has ended')));
  });
  try {
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      holder.stdout.once('data', () => resolve());
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      void ended.then((error) => reject(new Error(`cannot lock ${path}: ${error.message}`, { cause: error })));
    });
  } catch (error) {
    release();
    throw error;
  }
  let lost = false;
  void ended.then(() => {
    lost = true;
  });
  return {
    release,
    async wanted(until) {
      const { ino } = await stat(path);
      for (;;) {
        if (lost) return 'the lock was lost';
        const now = await stat(path).catch(() => undefined);
        if (now?.ino !== ino) return 'the file was removed';
        if (isAwaited(await readFile('/proc/locks', 'utf8'), ino)) return 'somebody else waits for the lock';
        await clock.sleep(pollMs, until);
      }
    },
  };
}
