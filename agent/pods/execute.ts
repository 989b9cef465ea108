// Does what the plan asks, one handler for each kind of operation. Handlers never decide; what they learn they leave in the pod's memory.
import { createBringDown } from './bring-down.ts';
import { createBringUp } from './bring-up.ts';
import type { ExecuteDeps, Handler, Handlers, OperationContext } from './handling.ts';
import type { Operation } from './operations.ts';
import { createHooks } from './run-hooks.ts';
import { createStartContainer } from './start-container.ts';

export interface Executor {
  /** Resolves when the operation ended, whatever its end; rejects only for operations that are tried again by the worker. */
  execute(context: OperationContext, operation: Operation, signal: AbortSignal): Promise<void>;
}

export function createExecutor(deps: ExecuteDeps): Executor {
  const handlers: Handlers<Operation['kind']> = {
    ...createBringUp(deps),
    'start-container': createStartContainer(deps),
    ...createHooks(deps),
    'resize-pod': ({ pod, observed }) => deps.parts.resize(pod, observed),
    ...createBringDown(deps),
  };

  return {
    execute: <Kind extends Operation['kind']>(
      context: OperationContext,
      operation: Extract<Operation, { kind: Kind }>,
      signal: AbortSignal,
    ) => (handlers[operation.kind as Kind] as Handler<Kind>)(context, operation, signal),
  };
}
