// A clock for tests: time stands still until `advance` moves it, and timers fire in the order they are due.
import type { Clock, Timer } from './clock.ts';

export interface FakeClock extends Clock {
  /** Moves time on by `ms`, firing what comes due, each followed by a turn of the microtask queue. */
  advance(ms: number): Promise<void>;
  /** When the next timer is due, in milliseconds since the epoch; undefined where none waits. */
  nextDue(): number | undefined;
}

interface Waiting {
  due: number;
  order: number;
  fire: () => void;
}

export function createFakeClock(startMs = Date.UTC(2026, 0, 1)): FakeClock {
  let now = startMs;
  let order = 0;
  const waiting = new Set<Waiting>();

  const next = (): Waiting | undefined => [...waiting].sort((a, b) => a.due - b.due || a.order - b.order)[0];

  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    await new Promise<void>((resolve) => setImmediate(resolve));
  };

  const setTimer = (ms: number, fire: () => void): Timer => {
    const entry: Waiting = { due: now + Math.max(0, ms), order: order++, fire };
    waiting.add(entry);
    return { cancel: () => void waiting.delete(entry) };
  };

  return {
    now: () => now,
    monotonicMs: () => now - startMs,
    setTimer,
    sleep: (ms, signal) =>
      new Promise<void>((resolve, reject) => {
        if (signal?.aborted) {
          reject(signal.reason);
          return;
        }
        const onAbort = (): void => {
          timer.cancel();
          reject(signal?.reason);
        };
        const timer = setTimer(ms, () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        });
        signal?.addEventListener('abort', onAbort, { once: true });
      }),
    nextDue: () => next()?.due,
    async advance(ms) {
      const until = now + ms;
      await settle();
      for (let entry = next(); entry && entry.due <= until; entry = next()) {
        now = entry.due;
        waiting.delete(entry);
        entry.fire();
        await settle();
      }
      now = until;
      await settle();
    },
  };
}
