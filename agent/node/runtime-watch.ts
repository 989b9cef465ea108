// Keeps asking the container runtime how it is: often while it is not ready, and at once when a network configuration appears.
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { createNap } from '../../lib/nap.ts';
import { watchFolder } from '../../lib/watch-folder.ts';
import type { Runtime } from '../../cri/runtime.ts';
import { runtimeErrors, type RuntimeState, unknownRuntime } from './runtime-state.ts';

export interface RuntimeWatchDeps {
  readonly runtime: Pick<Runtime, 'status' | 'version'>;
  readonly clock: Clock;
  readonly log: Log;
  onChange(): void;
}

export interface RuntimeWatchOptions {
  /** CNI configurations: a change in it makes the runtime be asked. */
  readonly cniConfDir?: string | undefined;
  /** Milliseconds between questions to a runtime that is ready. Default 5,000. */
  readonly intervalMs?: number;
}

export interface RuntimeWatch {
  state(): RuntimeState;
  /** Asks now. Never rejects. */
  ask(signal: AbortSignal): Promise<void>;
  run(signal: AbortSignal): Promise<void>;
}

const unreadyIntervalMs = 500;
const answerTimeoutMs = 10_000;

export function createRuntimeWatch(deps: RuntimeWatchDeps, options: RuntimeWatchOptions = {}): RuntimeWatch {
  const { runtime, clock, log } = deps;
  let state = unknownRuntime;
  let said = '';
  const nap = createNap(clock);

  const ask = async (signal: AbortSignal): Promise<void> => {
    try {
      const call = { signal, timeoutMs: answerTimeoutMs };
      const status = await runtime.status(call);
      // The version changes only when the runtime is restarted, after which it was away.
      const version = state.error === undefined && state.version ? state.version : await runtime.version(call);
      state = { status, version, answeredMs: clock.monotonicMs(), error: undefined };
    } catch (error) {
      if (signal.aborted) return;
      const text = error instanceof Error ? error.message : String(error);
      if (state.error === undefined) log.warn('the container runtime does not answer; asking again', { error });
      state = { ...state, error: text };
    }
    const errors = runtimeErrors(state, clock.monotonicMs()).join('; ');
    if (errors === said) return;
    log.info(errors === '' ? 'container runtime is ready' : 'container runtime is not ready', errors ? { errors } : {});
    said = errors;
    deps.onChange();
  };

  const intervalMs = (): number => {
    const ready = state.error === undefined && runtimeErrors(state, clock.monotonicMs()).length === 0;
    return ready ? (options.intervalMs ?? 5000) : unreadyIntervalMs;
  };

  const watchCni = () => {
    try {
      return options.cniConfDir === undefined ? undefined : watchFolder(options.cniConfDir);
    } catch {
      return undefined; // the folder is not there yet: the next question finds out
    }
  };

  return {
    state: () => state,
    ask,
    async run(signal) {
      const folder = watchCni();
      // The runtime reads the folder itself a moment after it changed.
      const following = (async () => {
        while (folder) {
          await folder.next(signal);
          await clock.sleep(100, signal);
          nap.wake();
        }
      })().catch(() => undefined);
      try {
        while (!signal.aborted) {
          await ask(signal);
          await nap.take(intervalMs(), signal);
        }
      } finally {
        folder?.close();
        await following;
      }
    },
  };
}
