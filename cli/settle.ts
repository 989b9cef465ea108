// After a start: what V8 compiled for it is kept for the next one, and the memory it needed is given back.
import { flushCompileCache } from 'node:module';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';

// Long enough for the first look at a full node, short beside the minute after which V8 forgets functions that are not called any more.
const settledMs = 30_000;

/** What the engine can be asked for; each does nothing where it cannot be done. */
export interface Engine {
  /** Writes the compiled code to the folder of `NODE_COMPILE_CACHE`, where that is set. */
  keepCode(): void;
  /** One whole collection, 20 to 40 ms. From then on the heap is sized by what lives in it (docs/adr/0003). */
  collect(): void;
}

export const engine: Engine = {
  keepCode: () => flushCompileCache(),
  collect() {
    setFlagsFromString('--expose-gc');
    const collect: unknown = runInNewContext('gc');
    setFlagsFromString('--no-expose-gc');
    if (typeof collect === 'function') collect();
  },
};

/** Half a minute after the call, once; resolves early where the signal aborts. What cannot be done is logged, and the daemon goes on without. */
export async function settle(
  { clock, log }: { readonly clock: Clock; readonly log: Log },
  signal: AbortSignal,
  { keepCode, collect }: Engine = engine,
): Promise<void> {
  try {
    await clock.sleep(settledMs, signal);
    keepCode();
    // In a turn of its own: each is a stretch.
    await clock.sleep(0, signal);
    collect();
  } catch (error) {
    if (signal.aborted) return;
    log.warn('cannot keep compiled code or give memory back after the start; the daemon goes on without', { error });
  }
}
