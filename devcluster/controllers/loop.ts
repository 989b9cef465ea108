// A controller: keys wake it, it re-reads the world and brings one object on its way.
import type { KeyedQueue } from '../../lib/keyed-queue.ts';
import { createKeyedQueue } from '../../lib/keyed-queue.ts';
import { isConflict, isForbidden, isNotFound } from '../../kube/errors.ts';
import type { ControllerDeps } from './world.ts';

export interface Controller {
  readonly name: string;
  readonly queue: KeyedQueue<string>;
}

export function createController(
  deps: ControllerDeps,
  name: string,
  reconcile: (key: string, signal: AbortSignal) => Promise<void>,
): Controller {
  const queue = createKeyedQueue<string>(
    {
      clock: deps.clock,
      reconcile,
      onError(key, error, retryInMs) {
        // Somebody else was faster, or the object is gone: the next look at the world tells.
        const usual = isConflict(error) || isNotFound(error) || inEndingNamespace(error);
        const say = usual ? deps.log.debug : deps.log.warn;
        say(`the ${name} controller could not bring an object on its way; tried again`, {
          key,
          error,
          retryInMs: Math.round(retryInMs),
        });
      },
    },
    { concurrency: 8, backoff: { initialMs: 20, maxMs: 10_000 } },
  );
  return { name, queue };
}

const inEndingNamespace = (error: unknown): boolean =>
  isForbidden(error) && (error.body?.details?.causes?.some(({ reason }) => reason === 'NamespaceTerminating') ?? false);
