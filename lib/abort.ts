// Small tools for cancelling: every wait takes an AbortSignal.
import type { Clock } from './clock.ts';

/** The reason of a signal that ended because its time was up. */
export class TimeoutError extends Error {
  override name = 'TimeoutError';
  readonly timeoutMs: number;
  constructor(what: string, timeoutMs: number) {
    super(`${what} took longer than ${timeoutMs} ms`);
    this.timeoutMs = timeoutMs;
  }
}

/** The reason of a signal that ended because its owner no longer wants the result. */
export class CancelledError extends Error {
  override name = 'CancelledError';
}

export const isTimeout = (error: unknown): error is TimeoutError => error instanceof TimeoutError;

/** Resolves when the signal aborts, at once where it has. */
export const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });

/** Rejects with the signal's reason as soon as it aborts; the work itself goes on and its late error is swallowed. */
export function abandonOn<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    work.catch(() => undefined);
    return Promise.reject(signal.reason);
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/**
 * Runs `work` with a signal that aborts with a TimeoutError after `timeoutMs`, or when `parent` aborts. Rejects as soon as the
 * signal aborts, whether or not the work heeds it.
 */
export async function withTimeout<T>(
  clock: Clock,
  what: string,
  timeoutMs: number,
  parent: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  parent?.throwIfAborted();
  const controller = new AbortController();
  const onParent = (): void => controller.abort(parent?.reason);
  parent?.addEventListener('abort', onParent, { once: true });
  const timer = clock.setTimer(timeoutMs, () => controller.abort(new TimeoutError(what, timeoutMs)));
  try {
    return await abandonOn(work(controller.signal), controller.signal);
  } finally {
    timer.cancel();
    parent?.removeEventListener('abort', onParent);
  }
}
