// What this node knows of its own pods before the API tells: a pod that has stopped being ready, or is going, leaves its Services at once.
// A hint only says sooner what the slices are about to say. Where they do not, it lapses.
import type { Clock, Timer } from '../lib/clock.ts';
import type { EndpointTracker } from './endpoints.ts';
import type { Serving } from './merge-slices.ts';

export interface Hints {
  /** The pod is (no longer) ready, or is going. */
  note(podUid: string, serving: Serving): void;
  stop(): void;
}

const lapseMs = 5_000;

export function createHints(deps: { readonly clock: Clock; readonly endpoints: EndpointTracker }): Hints {
  const timers = new Map<string, Timer>();
  const drop = (podUid: string): void => {
    timers.get(podUid)?.cancel();
    if (timers.delete(podUid)) deps.endpoints.hint(podUid, undefined);
  };
  return {
    note(podUid, serving) {
      if (serving.ready && !serving.terminating) {
        drop(podUid);
        return;
      }
      timers.get(podUid)?.cancel();
      timers.set(
        podUid,
        deps.clock.setTimer(lapseMs, () => drop(podUid)),
      );
      deps.endpoints.hint(podUid, serving);
    },
    stop() {
      for (const podUid of [...timers.keys()]) drop(podUid);
    },
  };
}
