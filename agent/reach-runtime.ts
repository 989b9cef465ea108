// The first thing an agent does: to find its runtime.
import type { Runtime } from '../cri/runtime.ts';
import type { RuntimeStatus } from '../cri/types.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';

export interface ReachRuntimeDeps {
  readonly runtime: Runtime;
  readonly clock: Clock;
  readonly log: Log;
}

/** Waits for the runtime, which may start after us or be away for a while. */
export async function reachRuntime(deps: ReachRuntimeDeps, signal: AbortSignal): Promise<RuntimeStatus> {
  for (let told = false; ; ) {
    try {
      return await deps.runtime.status({ signal });
    } catch (error) {
      signal.throwIfAborted();
      if (!told)
        deps.log.error('the container runtime does not answer; pods wait until it does, and it is asked every second', {
          error,
        });
      told = true;
      await deps.clock.sleep(1_000, signal);
    }
  }
}
