// Starts what the plan asks for and sees it to its end: what it changed is looked at again, what failed is tried again after a growing time.
import { CancelledError } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import { describeError, type Log } from '../../lib/log.ts';
import type { Observer, Touched } from '../observe/observer.ts';
import type { Executor } from './execute.ts';
import type { OperationContext } from './handling.ts';
import type { PodMemory } from './memory.ts';
import type { ObservedPod } from './observed.ts';
import { changesRuntime, keyOfOperation, type Operation } from './operations.ts';
import { formatPod } from './restart.ts';
import type { Worker } from './worker.ts';

export interface OperationRunnerDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly observer: Pick<Observer, 'stopping' | 'drop' | 'invalidate'>;
  readonly executor: Executor;
  /** The operation has ended: its pod is looked at. */
  wake(uid: string): void;
}

export interface OperationRunner {
  /** Returns at once; the operation is in the memory's `running` until it ends. */
  start(uid: string, worker: Worker, observed: ObservedPod, operation: Operation): void;
  /** Cuts short what can be, and resolves when all have ended. */
  stop(memories: readonly PodMemory[]): Promise<void>;
}

export function createOperationRunner({ clock, log, observer, executor, wake }: OperationRunnerDeps): OperationRunner {
  const running = new Set<Promise<void>>();
  /** Cuts short what a call that changes the runtime waits for before it begins. */
  const stopping = new AbortController();
  return {
    start(uid, worker, observed, operation) {
      const { memory } = worker;
      const key = keyOfOperation(operation);
      const abort = new AbortController();
      const startedAtMs = clock.now();
      memory.running.set(key, { operation, startedAtMs, abort });
      if (operation.kind === 'stop-container') observer.stopping(operation.id);
      const touched: Touched[] = [];
      const context: OperationContext = {
        pod: worker.pod,
        memory,
        observed,
        touched: (what) => void touched.push(what),
        ended: (id, signal) => worker.endings.wait(id, AbortSignal.any([signal, stopping.signal])),
      };
      const run = executor
        .execute(context, operation, abort.signal)
        .then(
          () => {
            memory.retries.delete(key);
            memory.retryDelays.reset(key);
            if (operation.kind === 'remove-container' || operation.kind === 'remove-sandbox')
              observer.drop(uid, operation.id);
            else if (touched.length > 0) for (const each of touched) observer.invalidate(uid, each);
            else if (changesRuntime(operation.kind)) observer.invalidate(uid);
          },
          (error: unknown) => {
            if (changesRuntime(operation.kind)) observer.invalidate(uid);
            if (abort.signal.aborted || stopping.signal.aborted) return;
            const nowMs = clock.now();
            const delayMs = memory.retryDelays.next(key, nowMs);
            const before = memory.retries.get(key);
            const message = `${operation.kind}: ${describeError(error)}`;
            // A runtime under load answers once with a closed connection for a container that just ended, and the next try finds all well:
            // only what fails twice is told, and the same failure once, however often it is tried again.
            const warn = before !== undefined && before.told !== message;
            memory.retries.set(key, {
              failures: (before?.failures ?? 0) + 1,
              retryAtMs: nowMs + delayMs,
              message,
              told: warn ? message : before?.told,
            });
            log[warn ? 'warn' : 'debug'](`${operation.kind} failed; tried again`, {
              pod: formatPod(worker.pod),
              error,
              retryInMs: delayMs,
            });
          },
        )
        .finally(() => {
          memory.running.delete(key);
          const nowMs = clock.now();
          if (memory.timeline.length < 200)
            memory.timeline.push({ what: key, atMs: nowMs, tookMs: nowMs - startedAtMs });
          wake(uid);
          running.delete(run);
        });
      running.add(run);
    },

    async stop(memories) {
      const reason = new CancelledError('the agent stops');
      stopping.abort(reason);
      for (const memory of memories)
        for (const { abort, operation } of memory.running.values())
          if (operation.kind !== 'start-container') abort.abort(reason);
      await Promise.allSettled(running);
    },
  };
}
