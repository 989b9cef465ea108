// When the disk is short: what the runtime still keeps of pods that have ended is let go, their containers, logs and sandboxes. Their status stays.
import type { Clock } from '../../lib/clock.ts';
import type { Observer } from '../observe/observer.ts';
import type { Worker } from './worker.ts';

export interface LetGoDeps {
  readonly clock: Clock;
  readonly workers: ReadonlyMap<string, Worker>;
  readonly observer: Pick<Observer, 'uids'>;
  wake(uid: string): void;
}

/** A runtime that takes longer has trouble; nobody waits for it with a full disk. */
const patienceMs = 30_000;
const pollMs = 100;

/** Resolves when the runtime has nothing of them any more, or when that takes too long; rejects when the signal aborts. */
export function createLetGo({ clock, workers, observer, wake }: LetGoDeps): (signal: AbortSignal) => Promise<void> {
  return async (signal) => {
    const held = new Set(observer.uids());
    // Until the API shows how the pod ended, its containers are what tells of it.
    const ended = [...workers].filter(
      ([uid, { plan, memory }]) => held.has(uid) && plan?.terminal && memory.terminalStatusWritten,
    );
    for (const [uid, { memory }] of ended) {
      memory.letGo = true;
      wake(uid);
    }
    const deadline = clock.monotonicMs() + patienceMs;
    const left = (): boolean => {
      const now = new Set(observer.uids());
      return ended.some(([uid]) => now.has(uid));
    };
    while (left() && clock.monotonicMs() < deadline) await clock.sleep(pollMs, signal);
  };
}
