// How many volumes of a driver this node takes may change while it runs (network cards take the place of disks): where the cluster says so
// (CSIDriver nodeAllocatableUpdatePeriodSeconds) the driver is asked again that often, and at once where a volume could not be attached for
// want of room.
import type { KubeClient } from '../../../kube/client.ts';
import { createReflector } from '../../../kube/reflector.ts';
import { resources } from '../../../kube/resources.ts';
import type { CsiDriver } from '../../../kube/types/volume.ts';
import { aborted, withTimeout } from '../../../lib/abort.ts';
import type { Clock, Timer } from '../../../lib/clock.ts';
import type { Log } from '../../../lib/log.ts';

export interface CsiLimitsDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  /** Whether the driver is registered here. */
  has(driver: string): boolean;
  /** Asks the driver, and tells the cluster. */
  ask(driver: string, signal: AbortSignal): Promise<void>;
}

export interface CsiLimits {
  /** The driver has registered, or is gone. */
  changed(driver: string): void;
  /** A volume of the driver could not be attached: this node has no more room for one. False where the cluster does not want it looked at. */
  exhausted(driver: string): boolean;
  /** Runs until the signal aborts. Watches the cluster's CSIDrivers once there is one here. */
  run(signal: AbortSignal): Promise<void>;
}

const timeoutMs = 30_000;
/** No attachment that goes on failing asks more often than the shortest period that the API allows. */
const leastMs = 10_000;

interface Cycle {
  readonly periodMs: number;
  timer: Timer;
}

export function createCsiLimits(deps: CsiLimitsDeps): CsiLimits {
  const { clock, log } = deps;
  const cycles = new Map<string, Cycle>();
  const askedMs = new Map<string, number>();
  const needed = Promise.withResolvers<void>();
  let running: AbortSignal | undefined;

  const known = createReflector<CsiDriver>(deps, {
    resource: resources.csiDrivers,
    onChange: ({ before, after }) => look((after ?? before)!.metadata.name),
  });
  const periodOf = (driver: string): number =>
    deps.has(driver) ? (known.store.get(driver)?.spec.nodeAllocatableUpdatePeriodSeconds ?? 0) * 1000 : 0;

  const ask = (driver: string): void => {
    if (!running || running.aborted) return;
    askedMs.set(driver, clock.monotonicMs());
    const what = `ask CSI driver ${driver} how many volumes the node takes`;
    withTimeout(clock, what, timeoutMs, running, (signal) => deps.ask(driver, signal)).catch((error: unknown) => {
      if (running?.aborted) return;
      log.warn(
        'a CSI driver did not tell how many volumes this node takes; what is known stays, and it is asked again',
        {
          driver,
          error,
        },
      );
    });
  };

  const next = (driver: string, periodMs: number): Timer =>
    clock.setTimer(periodMs, () => {
      const cycle = cycles.get(driver);
      if (!cycle) return;
      cycle.timer = next(driver, periodMs);
      ask(driver);
    });

  function look(driver: string): void {
    const periodMs = periodOf(driver);
    const before = cycles.get(driver);
    if (before?.periodMs === periodMs || (!before && periodMs === 0)) return;
    before?.timer.cancel();
    if (periodMs === 0 || running?.aborted) cycles.delete(driver);
    else cycles.set(driver, { periodMs, timer: next(driver, periodMs) });
  }

  return {
    changed(driver) {
      if (deps.has(driver)) needed.resolve();
      look(driver);
    },
    exhausted(driver) {
      if (periodOf(driver) === 0) return false;
      const last = askedMs.get(driver);
      if (last === undefined || clock.monotonicMs() - last >= leastMs) ask(driver);
      return true;
    },
    async run(signal) {
      running = signal;
      try {
        await Promise.race([needed.promise, aborted(signal)]);
        if (!signal.aborted) await known.run(signal);
      } finally {
        for (const { timer } of cycles.values()) timer.cancel();
        cycles.clear();
      }
    },
  };
}
