// The only place that reads the time or starts a timer. Everything else is handed a Clock, so that tests can hold time still.
import { setTimeout as sleepFor } from 'node:timers/promises';

/** A timer that has been started; cancelling it twice, or after it fired, does nothing. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Wall-clock time in milliseconds since the epoch. It may jump. */
  now(): number;
  /** Milliseconds of a clock that never goes back; only differences mean anything. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects with the signal's reason as soon as it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `fire` once after `ms`. The timer does not keep the process alive. */
  setTimer(ms: number, fire: () => void): Timer;
}

// Node's timers wrap around above this and would fire at once.
const longestTimerMs = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(ms, signal) {
    signal?.throwIfAborted();
    try {
      await sleepFor(Math.min(ms, longestTimerMs), undefined, signal ? { signal } : undefined);
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw error;
    }
  },
  setTimer(ms, fire) {
    const timer = setTimeout(fire, Math.max(0, Math.min(ms, longestTimerMs)));
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};
