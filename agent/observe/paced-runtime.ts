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

/** Runs work in turn, at most `width` at a time, not counting what takes longer than `patienceMs`. */
export function createLanes(
  { clock }: PacedRuntimeDeps,
  { width, patienceMs = 2_000 }: PacedRuntimeOptions,
): <T>(work: () => Promise<T>) => Promise<T> {
  let taken = 0;
  const waiting: (() => void)[] = [];
  const next = (): void => {
    while (taken < width && waiting.length > 0) {
      taken++;
      waiting.shift()?.();
    }
  };
  return async (work) => {
    await new Promise<void>((resolve) => {
      waiting.push(resolve);
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
    runSandbox: (...args) => up(() => runtime.runSandbox(...args)),
    stopSandbox: (...args) => down(() => runtime.stopSandbox(...args)),
  };
}
