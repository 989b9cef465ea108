// A probe's time limit, which counts only time in which this process could have heard the answer. On a host that is starved of CPU one
// thread may stand still for seconds; a container that answered meanwhile is not to be killed for it.
import { abandonOn, TimeoutError } from '../../lib/abort.ts';
import type { Clock, Timer } from '../../lib/clock.ts';

const sliceMs = 250;

/**
 * Calls `onOver` once after `timeoutMs` (milliseconds), told in slices: however late a slice ends, it counts no more than its length.
 */
export function startPatience(clock: Clock, timeoutMs: number, onOver: () => void): Timer {
  let timer: Timer;
  const wait = (leftMs: number): void => {
    const thisMs = Math.min(leftMs, sliceMs);
    timer = clock.setTimer(thisMs, () => {
      if (leftMs > thisMs) wait(leftMs - thisMs);
      else onOver();
    });
  };
  wait(timeoutMs);
  return { cancel: () => timer.cancel() };
}

/** Runs `work` with a signal that aborts with a TimeoutError when patience is over, or when `parent` does. Rejects as soon as the signal aborts. */
export async function withPatience<T>(
  clock: Clock,
  what: string,
  timeoutMs: number,
  parent: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  parent.throwIfAborted();
  const controller = new AbortController();
  const onParent = (): void => controller.abort(parent.reason);
  parent.addEventListener('abort', onParent, { once: true });
  const timer = startPatience(clock, timeoutMs, () => controller.abort(new TimeoutError(what, timeoutMs)));
  try {
    return await abandonOn(work(controller.signal), controller.signal);
  } finally {
    timer.cancel();
    parent.removeEventListener('abort', onParent);
  }
}

/**
 * The same for what calls back, without a signal or a promise of its own, since hundreds are tried every second. `start` calls back with its
 * result, later and at most once, and returns what gives it up; it is given up when patience is over, and the result is `late()`. `settle` is called once,
 * and never after the function that is returned, which gives all up.
 */
export function patiently<T>(
  clock: Clock,
  timeoutMs: number,
  late: () => T,
  start: (settle: (result: T) => void) => () => void,
  settle: (result: T) => void,
): () => void {
  const giveUp = start((result) => {
    timer.cancel();
    settle(result);
  });
  const timer = startPatience(clock, timeoutMs, () => {
    giveUp();
    settle(late());
  });
  return () => {
    timer.cancel();
    giveUp();
  };
}
