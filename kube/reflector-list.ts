// Lists as a stream: a watch that begins with everything there is and says by a bookmark that this was all (WatchList). Cheaper for the
// server and for this process than pages. Servers that cannot do it answer invalid, or never send that bookmark.
import type { Clock } from '../lib/clock.ts';
import type { WatchEvent } from './client.ts';
import { isInvalid } from './errors.ts';
import { keyOf, type ObjectKey } from './store.ts';
import type { KubeObject } from './types/meta.ts';

/** Collects the initial events of a streamed list. */
export interface InitialEvents<T extends KubeObject> {
  /** Takes an event; true once everything is there. */
  add(event: WatchEvent<T>): boolean;
  readonly objects: ReadonlyMap<ObjectKey, T>;
}

export function createInitialEvents<T extends KubeObject>(): InitialEvents<T> {
  const objects = new Map<ObjectKey, T>();
  return {
    objects,
    add(event) {
      if (event.type === 'BOOKMARK') return event.initialEventsEnd;
      if (event.type === 'DELETED') objects.delete(keyOf(event.object));
      else objects.set(keyOf(event.object), event.object);
      return false;
    },
  };
}

/** Whether the server's refusal says that it does not stream lists. */
export const streamingRefused = (error: unknown): boolean => isInvalid(error);

/** 5 to 10 minutes, so that the watches of many nodes do not end together. */
export const watchTimeoutSeconds = (random: () => number): number => Math.round(300 * (1 + random()));

/** Aborts its signal when `parent` does, or where `beat` is not called within `ms`, or within what the last beat said. */
export function createWatchdog(
  clock: Clock,
  ms: number,
  parent: AbortSignal,
): { signal: AbortSignal; beat(nextMs?: number): void; stop(): void; barked(): boolean } {
  const controller = new AbortController();
  let barked = false;
  const bark = (): void => {
    barked = true;
    controller.abort(new Error('the server was silent'));
  };
  let timer = clock.setTimer(ms, bark);
  const onParent = (): void => controller.abort(parent.reason);
  if (parent.aborted) onParent();
  else parent.addEventListener('abort', onParent, { once: true });
  return {
    signal: controller.signal,
    beat(nextMs = ms) {
      timer.cancel();
      timer = clock.setTimer(nextMs, bark);
    },
    stop() {
      timer.cancel();
      parent.removeEventListener('abort', onParent);
    },
    barked: () => barked,
  };
}
