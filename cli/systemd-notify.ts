// Tells systemd that the daemon is ready, alive or ending. Node has no AF_UNIX datagrams, so systemd's own tool is asked.
import { aborted } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';
import { exec } from '../lib/exec.ts';
import { describeError, type Log } from '../lib/log.ts';

type Environment = Readonly<Record<string, string | undefined>>;

// On a machine without a moment to spare the tool takes its time; a notice cut short would look like a daemon that hangs.
const patienceMs = 30_000;

/** Does nothing outside a systemd unit. A notice that cannot be given is logged, not thrown. */
export async function notifySystemd(state: string, log: Log, run: typeof exec = exec): Promise<void> {
  if (!process.env.NOTIFY_SOCKET) return;
  try {
    await run('systemd-notify', [state], { timeoutMs: patienceMs });
  } catch (error) {
    log.warn('systemd was not told', { state, error: describeError(error) });
  }
}

/** How often systemd wants to hear from this process (`WatchdogSec=` of the unit), in milliseconds; undefined where it does not. */
export function watchdogMs(environment: Environment, pid: number): number | undefined {
  const limitMs = Number(environment.WATCHDOG_USEC) / 1000;
  if (!environment.NOTIFY_SOCKET || !Number.isFinite(limitMs) || limitMs <= 0) return undefined;
  // The limit is for the process that systemd started, not for one that inherited its environment.
  if (environment.WATCHDOG_PID && Number(environment.WATCHDOG_PID) !== pid) return undefined;
  return limitMs;
}

export interface WatchdogDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Default: systemd's tool. */
  readonly notify?: (state: string) => Promise<void>;
}

/**
 * Tells systemd four times within each limit that the event loop turns, so that a machine under load may be late with some; where the loop does not
 * turn, this does not run either, and systemd ends and starts the daemon again. Runs until the signal aborts, also where no watchdog is wanted.
 */
export async function keepWatchdog(
  deps: WatchdogDeps,
  limitMs: number | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log } = deps;
  const notify = deps.notify ?? ((state) => notifySystemd(state, log));
  if (limitMs === undefined) return aborted(signal);
  const everyMs = limitMs / 4;
  for (;;) {
    const askedMs = clock.monotonicMs();
    await clock.sleep(everyMs, signal);
    const lateMs = Math.round(clock.monotonicMs() - askedMs - everyMs);
    if (lateMs > everyMs / 4)
      log.warn(
        'the event loop was held up; for as long as the watchdog’s limit, and systemd would start the daemon again',
        {
          lateMs,
          watchdogMs: limitMs,
        },
      );
    await notify('WATCHDOG=1');
  }
}
