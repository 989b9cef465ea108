// Whether the API server answers, shared by all who use one client: who waits before trying again, after an outage say, is woken when the
// server has answered somebody else, and need not sit out a back-off that has grown long.
import type { Clock } from '../lib/clock.ts';

export interface Contact {
  /** The server has answered a call, or begun a watch. */
  answered(): void;
  /**
   * Waits for `delayMs`; less where the server answers somebody meanwhile, but not less than `leastMs`. Resolves with whether it was cut
   * short so; also when the signal aborts. Never rejects.
   */
  rest(delayMs: number, leastMs: number, signal: AbortSignal): Promise<boolean>;
}

/** Those that are woken come back one after the other within this time. */
const spreadMs = 200;

export function createContact(clock: Clock, random: () => number = Math.random): Contact {
  const waiting = new Set<() => void>();
  return {
    answered() {
      for (const wake of [...waiting]) wake();
    },
    rest: (delayMs, leastMs, signal) =>
      new Promise((resolve) => {
        const begunMs = clock.monotonicMs();
        const end = (early: boolean): void => {
          timer.cancel();
          waiting.delete(wake);
          signal.removeEventListener('abort', onAbort);
          resolve(early);
        };
        const onAbort = (): void => end(false);
        const wake = (): void => {
          const waitedMs = clock.monotonicMs() - begunMs;
          const leftMs = Math.max(0, leastMs - waitedMs) + spreadMs * random();
          waiting.delete(wake);
          if (leftMs >= delayMs - waitedMs) return;
          timer.cancel();
          timer = clock.setTimer(leftMs, () => end(true));
        };
        let timer = clock.setTimer(delayMs, () => end(false));
        waiting.add(wake);
        if (signal.aborted) onAbort();
        else signal.addEventListener('abort', onAbort, { once: true });
      }),
  };
}

/** The least time between two tries that others' answers bring about: it grows while they are in vain. */
const hurriedMs = 500;
const longestMs = 30_000;

/** The rests of one who tries again and again. */
export interface Rests {
  /** After a failure; `leastMs` is what the server asked for. */
  rest(delayMs: number, leastMs: number, signal: AbortSignal): Promise<void>;
  /** It went well. */
  reset(): void;
}

export function createRests(contact: Contact | undefined, clock: Clock): Rests {
  let hurryMs = hurriedMs;
  return {
    async rest(delayMs, leastMs, signal) {
      if (!contact) return await clock.sleep(delayMs, signal).catch(() => undefined);
      const early = await contact.rest(delayMs, Math.max(leastMs, hurryMs), signal);
      if (early) hurryMs = Math.min(longestMs, hurryMs * 2);
    },
    reset() {
      hurryMs = hurriedMs;
    },
  };
}
