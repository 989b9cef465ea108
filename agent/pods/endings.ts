// Starts that wait for the runtime to have noted the end of the container before.
import type { ContainerId } from '../../cri/types.ts';
import type { Clock } from '../../lib/clock.ts';
import { containerById, mayRun, type ObservedPod } from './observed.ts';

export interface Endings {
  /** True once the pod is seen without that container running; false where that is not so after ten seconds. Rejects when the signal aborts. */
  wait(id: ContainerId, signal: AbortSignal): Promise<boolean>;
  /** The pod as it was seen now. */
  saw(observed: ObservedPod): void;
}

/** The runtime notes an end within milliseconds, or something is wrong with it. */
const patienceMs = 10_000;

export function createEndings({ clock }: { readonly clock: Clock }): Endings {
  const waiting = new Map<ContainerId, (ended: boolean) => void>();
  let last: ObservedPod | undefined;

  const hasEnded = (observed: ObservedPod, id: ContainerId): boolean => {
    const container = containerById(observed, id);
    return !container || !mayRun(container);
  };

  return {
    async wait(id, signal) {
      signal.throwIfAborted();
      if (last && hasEnded(last, id)) return true;
      return await new Promise((resolve, reject) => {
        const leave = (): void => {
          timer.cancel();
          waiting.delete(id);
          signal.removeEventListener('abort', onAbort);
        };
        const settle = (ended: boolean): void => {
          leave();
          resolve(ended);
        };
        const onAbort = (): void => {
          leave();
          reject(signal.reason);
        };
        const timer = clock.setTimer(patienceMs, () => settle(false));
        waiting.set(id, settle);
        signal.addEventListener('abort', onAbort, { once: true });
      });
    },
    saw(observed) {
      last = observed;
      for (const [id, settle] of waiting) if (hasEnded(observed, id)) settle(true);
    },
  };
}
