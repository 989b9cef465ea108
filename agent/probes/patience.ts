// A probe's time limit, which counts only time in which this process could have heard the answer. On a host that is starved of CPU one
// thread may stand still for seconds; a container that answered meanwhile is not to be killed for it.
import { abandonOn, TimeoutError } from '../../lib/abort.ts';
import type { Clock, Timer } from '../../lib/clock.ts';

const sliceMs = 250;

/**
 * Runs `work` with a signal that aborts with a TimeoutError after `timeoutMs` (milliseconds), told in slices: however late a slice ends, it
 * counts no more than its length. Aborts also when `parent` does, and rejects as soon as the signal aborts.
 */
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
  let timer: Timer | undefined;
  const wait = (leftMs: number): void => {
    const thisMs = Math.min(leftMs, sliceMs);
    timer = clock.setTimer(thisMs, () => {
      if (leftMs > thisMs) wait(leftMs - thisMs);
      else controller.abort(new TimeoutError(what, timeoutMs));
    });
  };
  wait(timeoutMs);
  try {
    return await abandonOn(work(controller.signal), controller.signal);
  } finally {
    timer?.cancel();
    parent.removeEventListener('abort', onParent);
  }
}
