// Owns long-running tasks: starts them, notices when one ends that should not, and ends them in the reverse order of their start.
import { CancelledError } from './abort.ts';
import type { Log } from './log.ts';

export interface Supervisor {
  /** Starts a task that runs until its signal aborts. One that throws or returns before is a fault: `onFault` is told. */
  start(name: string, task: (signal: AbortSignal) => Promise<void>): void;
  /** Ends the tasks, the last started first, each awaited before the next. */
  stop(): Promise<void>;
}

export interface SupervisorDeps {
  readonly log: Log;
  /** A task ended though nobody asked it to; `error` is undefined where it returned. */
  onFault(name: string, error: unknown): void;
}

export function supervise(deps: SupervisorDeps): Supervisor {
  const tasks: { name: string; controller: AbortController; done: Promise<void> }[] = [];
  let stopping = false;
  return {
    start(name, task) {
      const controller = new AbortController();
      const done = Promise.resolve()
        .then(() => task(controller.signal))
        .then(
          () => {
            if (!controller.signal.aborted) deps.onFault(name, undefined);
          },
          (error: unknown) => {
            if (!controller.signal.aborted) deps.onFault(name, error);
            else if (!(error instanceof CancelledError) && error !== controller.signal.reason)
              deps.log.debug('task ended with an error while stopping', { task: name, error });
          },
        );
      tasks.push({ name, controller, done });
      if (stopping) controller.abort(new CancelledError('stopping'));
    },
    async stop() {
      stopping = true;
      for (const task of tasks.toReversed()) {
        task.controller.abort(new CancelledError('stopping'));
        await task.done;
      }
    },
  };
}
