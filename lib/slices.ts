// Lets long computations give way: other work gets its turn every few milliseconds.
import type { Clock } from './clock.ts';

export interface Slices {
  /** Await this between items: it resolves at once while the slice lasts, else after other work had its turn. */
  giveWay(): Promise<void> | undefined;
}

/** `sliceMs`: how long to go on before giving way, in milliseconds. */
export function createSlices(clock: Pick<Clock, 'monotonicMs'>, sliceMs = 10): Slices {
  let started = clock.monotonicMs();
  return {
    giveWay() {
      if (clock.monotonicMs() - started < sliceMs) return undefined;
      return new Promise((resolve) =>
        setImmediate(() => {
          started = clock.monotonicMs();
          resolve();
        }),
      );
    },
  };
}
