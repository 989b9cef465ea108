// The runtime port, made to begin only so many sandboxes at a time. In a burst of pods all would be set up side by side and all be late;
// in turn, half of them run in half the time, and the last one not later.
import type { Runtime } from '../../cri/runtime.ts';
import type { Clock } from '../../lib/clock.ts';

export interface PacedRuntimeDeps {
  readonly clock: Clock;
}

export interface PacedRuntimeOptions {
  /** How many sandboxes may be set up at once, and how many torn down. */
  readonly width: number;
  /** A call that takes longer holds up nobody any more. Default 2,000. */
  readonly patienceMs?: number;
}

/** Runs work in turn, at most `width` at a time, not counting what takes longer than `patienceMs`. What is aborted in its turn is not begun. */
export function createLanes(
  { clock }: PacedRuntimeDeps,
  { width, patienceMs = 2_000 }: PacedRuntimeOptions,
): <T>(work: () => Promise<T>, unless?: AbortSignal) => Promise<T> {
  let taken = 0;
  const waiting: { begin(): void; readonly unless: AbortSignal | undefined }[] = [];
  const next = (): void => {
    while (taken < width && waiting.length > 0) {
      const { begin, unless } = waiting.shift()!;
      if (unless?.aborted) continue;
      taken++;
      begin();
    }
  };
  return async (work, unless) => {
    unless?.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => reject(unless?.reason);
      unless?.addEventListener('abort', onAbort, { once: true });
      waiting.push({
        begin() {
          unless?.removeEventListener('abort', onAbort);
          resolve();
        },
        unless,
      });
      next();
    });
    let holds = true;
    const leave = (): void => {
      if (!holds) return;
      holds = false;
      taken--;
      next();
    };
    const timer = clock.setTimer(patienceMs, leave);
    try {
      return await work();
    } finally {
      timer.cancel();
      leave();
    }
  };
}

export function createPacedRuntime(runtime: Runtime, deps: PacedRuntimeDeps, options: PacedRuntimeOptions): Runtime {
  const up = createLanes(deps, options);
  const down = createLanes(deps, options);
  return {
    ...runtime,
    runSandbox: (config, handler, options) =>
      up(() => runtime.runSandbox(config, handler, options), options?.beginUnless),
    stopSandbox: (id, options) => down(() => runtime.stopSandbox(id, options), options?.beginUnless),
  };
}
