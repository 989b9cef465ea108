// A sleep that can be cut short from outside: for loops that look at the world every so often, and at once when they are told to.
import type { Clock } from './clock.ts';

export interface Nap {
  /** Resolves after `ms`, when `wake` is called, or when the signal aborts; never rejects. A `wake` before it is not lost. */
  take(ms: number, signal: AbortSignal): Promise<void>;
  wake(): void;
}

export function createNap(clock: Clock): Nap {
  let woken = false;
  let end: (() => void) | undefined;
  return {
    wake() {
      woken = true;
      end?.();
    },
    async take(ms, signal) {
      if (signal.aborted) return;
      if (!woken) {
        const round = new AbortController();
        end = () => round.abort();
        const onAbort = (): void => round.abort();
        signal.addEventListener('abort', onAbort, { once: true });
        await clock.sleep(ms, round.signal).catch(() => undefined);
        signal.removeEventListener('abort', onAbort);
        end = undefined;
      }
      woken = false;
    },
  };
}
