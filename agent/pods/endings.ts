// Starts that wait for the runtime to have noted the end of the container before.
import type { ContainerId } from '../../cri/types.ts';
import type { Clock } from '../../lib/clock.ts';
import { containerById, mayRun, type ObservedPod } from './observed.ts';

export interface Endings {
  /** True once the pod is seen without that container running; false where that is not so after ten seconds, or the agent stops. */
  wait(id: ContainerId): Promise<boolean>;
  /** The pod as it was seen now. */
  saw(observed: ObservedPod): void;
  stop(): void;
}

/** The runtime notes an end within milliseconds, or something is wrong with it. */
const patienceMs = 10_000;

export function createEndings({ clock }: { readonly clock: Clock }): Endings {
  const waiting = new Map<ContainerId, (ended: boolean) => void>();
  let last: ObservedPod | undefined;
  let stopped = false;

  const hasEnded = (observed: ObservedPod, id: ContainerId): boolean => {
    const container = containerById(observed, id);
    return !container || !mayRun(container);
  };

  return {
    wait(id) {
      if (stopped) return Promise.resolve(false);
      if (last && hasEnded(last, id)) return Promise.resolve(true);
      return new Promise((resolve) => {
        const settle = (ended: boolean): void => {
          timer.cancel();
          waiting.delete(id);
          resolve(ended);
        };
        const timer = clock.setTimer(patienceMs, () => settle(false));
        waiting.set(id, settle);
      });
    },
    saw(observed) {
      last = observed;
      for (const [id, settle] of waiting) if (hasEnded(observed, id)) settle(true);
    },
    stop() {
      stopped = true;
      for (const settle of waiting.values()) settle(false);
    },
  };
}
