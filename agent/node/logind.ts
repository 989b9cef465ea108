// systemd-logind, as far as a graceful shutdown needs it: how long it lets itself be delayed, a lock that delays it, and its word that the
// host is about to go down. By systemd-inhibit and busctl, which come with systemd.
import { spawn } from 'node:child_process';
import { access } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Clock } from '../../lib/clock.ts';
import { exec } from '../../lib/exec.ts';
import { writeFileAtomic } from '../../lib/files.ts';

export interface ShutdownLock {
  release(): void;
}

export interface ShutdownNotifier {
  /** Makes sure that a shutdown can be delayed for so long. Rejects where logind does not allow it. */
  allowDelay(ms: number, signal: AbortSignal): Promise<void>;
  lock(): ShutdownLock;
  /** True: the host is about to go down; false: it was called off. Ends when the signal aborts or logind goes away. */
  events(signal: AbortSignal): AsyncIterable<boolean>;
}

const manager = ['org.freedesktop.login1', '/org/freedesktop/login1', 'org.freedesktop.login1.Manager'] as const;
/** Removed by `stevedore leave`. */
export const logindDropIn = '/etc/systemd/logind.conf.d/99-stevedore.conf';

/** True where the host is run by systemd. */
export const hasSystemd = (): Promise<boolean> =>
  access('/run/systemd/system').then(
    () => true,
    () => false,
  );

const untilInputEnds =
  'exec 3<&0; busctl --system --json=short "$1" monitor </dev/null 3<&- & busctl=$!; (cat <&3 >/dev/null; kill "$busctl") & wait "$busctl"';

async function currentDelayMs(): Promise<number> {
  const { stdout } = await exec('busctl', ['get-property', ...manager, 'InhibitDelayMaxUSec'], { timeoutMs: 10_000 });
  return Number(stdout.trim().split(' ')[1] ?? 0) / 1000;
}

/** One line of `busctl monitor --json=short`; undefined where it is not about a shutdown. */
export function parseShutdownSignal(line: string): boolean | undefined {
  try {
    const message = JSON.parse(line) as { member?: string; payload?: { data?: unknown[] } };
    const value = message.payload?.data?.[0];
    return message.member === 'PrepareForShutdown' && typeof value === 'boolean' ? value : undefined;
  } catch {
    return undefined;
  }
}

export function createLogind(clock: Clock): ShutdownNotifier {
  return {
    async allowDelay(ms, signal) {
      if ((await currentDelayMs()) >= ms) return;
      await writeFileAtomic(
        logindDropIn,
        `# Written by stevedore: shutdownGracePeriod needs logind to wait.\n[Login]\nInhibitDelayMaxSec=${Math.ceil(ms / 1000)}\n`,
      );
      await exec('systemctl', ['kill', '--signal=HUP', 'systemd-logind.service'], { timeoutMs: 10_000, signal });
      for (let tries = 0, waitMs = 100; tries < 6; tries++, waitMs *= 2) {
        await clock.sleep(waitMs, signal);
        if ((await currentDelayMs()) >= ms) return;
      }
      throw new Error(
        `systemd-logind delays a shutdown for ${await currentDelayMs()} ms at most and does not take ${ms} ms from ${logindDropIn}`,
      );
    },
    lock() {
      const who = ['--what=shutdown', '--mode=delay', '--who=stevedore', '--why=Stevedore needs time to end pods'];
      // cat ends with its standard input: a lock must not outlive a daemon that was killed, or it would delay every shutdown to come.
      const child = spawn('systemd-inhibit', [...who, 'cat'], { stdio: ['pipe', 'ignore', 'ignore'] });
      child.on('error', () => undefined);
      child.stdin.on('error', () => undefined);
      return { release: () => void child.kill('SIGTERM') };
    },
    async *events(signal) {
      const match = `type='signal',interface='${manager[2]}',member='PrepareForShutdown'`;
      // As with the lock: the monitor ends when our end of its standard input is closed, also by a SIGKILL.
      const child = spawn('sh', ['-c', untilInputEnds, 'sh', `--match=${match}`], {
        stdio: ['pipe', 'pipe', 'ignore'],
      });
      child.on('error', () => undefined);
      child.stdin.on('error', () => undefined);
      const end = (): void => void child.stdin.end();
      if (signal.aborted) end();
      else signal.addEventListener('abort', end, { once: true });
      try {
        for await (const line of createInterface({ input: child.stdout })) {
          const value = parseShutdownSignal(line);
          if (value !== undefined) yield value;
        }
      } finally {
        signal.removeEventListener('abort', end);
        end();
      }
    },
  };
}
