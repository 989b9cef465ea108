// The single objects that pods name — secrets, configmaps — each watched while somebody holds it. A node may read just those that its pods
// name, one by one, so there is one watch for each, not one for all; over HTTP/2 they share connections.
//
//   (none) ──get──▶ reading ──answer──▶ held, watched ──last release──▶ lingering ──▶ (none)
//                      └──refused──▶ (none)    ▲────────── get ──────────┘
import { abandonOn } from '../lib/abort.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { objectPath } from './api-path.ts';
import type { KubeClient, ObjectName } from './client.ts';
import { isForbidden } from './errors.ts';
import { readObject, watchObject } from './object-watch.ts';
import type { Resource } from './resources.ts';
import type { KubeObject } from './types/meta.ts';

export type ObjectListener = (
  holder: string,
  resource: Resource,
  name: ObjectName,
  object: KubeObject | undefined,
) => void;

export interface ObjectCache {
  /**
   * The object as the API has it, watched from now on for `holder` (a pod's uid, say); undefined where it does not exist. Waits for the
   * first answer; a held object answers at once from the cache. Rejects with an ApiError, and then the holder does not hold it.
   */
  get<T extends KubeObject>(
    resource: Resource<T>,
    name: ObjectName,
    holder: string,
    signal?: AbortSignal,
  ): Promise<T | undefined>;
  /** Drops all of the holder's interest; a watch ends when nobody is left, some seconds later. */
  release(holder: string): void;
  /** Told, for each holder, when a held object appears, changes or goes; not of the first answer. Returns the unsubscribe. */
  subscribe(listener: ObjectListener): () => void;
}

export interface OwnedObjectCache extends ObjectCache {
  /** How many objects are held or linger. */
  readonly size: number;
  /** Ends every watch and waits for it. */
  stop(): Promise<void>;
}

export interface ObjectCacheDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
}

export interface ObjectCacheOptions {
  /** How long an object that nobody holds is still watched. Default 5,000. */
  readonly lingerMs?: number;
  /**
   * How long a first 403 is tried again, as the node authorizer learns of a pod's binding a moment after the node. Default 3,000.
   */
  readonly forbiddenForMs?: number;
}

interface Entry {
  readonly resource: Resource;
  readonly name: ObjectName;
  readonly holders: Set<string>;
  readonly controller: AbortController;
  readonly first: Promise<void>;
  known: boolean;
  object: KubeObject | undefined;
  linger: Timer | undefined;
}

export function createObjectCache(deps: ObjectCacheDeps, options: ObjectCacheOptions = {}): OwnedObjectCache {
  const { client, clock, log } = deps;
  const { lingerMs = 5000, forbiddenForMs = 3000 } = options;
  const entries = new Map<string, Entry>();
  const heldBy = new Map<string, Set<string>>();
  const listeners = new Set<ObjectListener>();
  const tasks = new Set<Promise<void>>();
  const failing = new Set<Entry>();
  let toldLost = false;
  let stopped = false;

  const keyOf = (resource: Resource, name: ObjectName): string => objectPath(resource, name);

  const tell = (entry: Entry): void => {
    for (const holder of [...entry.holders])
      for (const listener of listeners) {
        try {
          listener(holder, entry.resource, entry.name, entry.object);
        } catch (error) {
          log.error('a listener failed on a changed object; going on', {
            object: keyOf(entry.resource, entry.name),
            error,
          });
        }
      }
  };

  const seen = (entry: Entry, object: KubeObject | undefined): void => {
    if (failing.delete(entry) && failing.size === 0 && toldLost) {
      toldLost = false;
      log.info('the objects that pods name are watched again');
    }
    const before = entry.object;
    if (!entry.known || isStale(before, object)) return;
    entry.object = object;
    if (!sameVersion(before, object)) tell(entry);
  };

  const failed = (entry: Entry, error: unknown, failures: number): void => {
    if (failures < 2) return;
    failing.add(entry);
    const object = keyOf(entry.resource, entry.name);
    if (toldLost) log.debug('still cannot watch an object that a pod names', { object, error });
    else
      log.warn('cannot watch an object that a pod names; its last known state stays in use, trying again', {
        object,
        error,
      });
    toldLost = true;
  };

  // The first answer is a plain GET, the fastest there is.
  const readFirst = async (
    resource: Resource,
    name: ObjectName,
    signal: AbortSignal,
  ): Promise<KubeObject | undefined> => {
    const until = clock.monotonicMs() + forbiddenForMs;
    for (let delayMs = 50; ; delayMs = Math.min(delayMs * 2, 800)) {
      try {
        return await readObject(client, resource, name, signal);
      } catch (error) {
        if (!isForbidden(error) || clock.monotonicMs() + delayMs > until) throw error;
        await clock.sleep(delayMs, signal);
      }
    }
  };

  const forget = (entry: Entry): void => {
    const key = keyOf(entry.resource, entry.name);
    if (entries.get(key) === entry) entries.delete(key);
    for (const holder of entry.holders) unhold(holder, key);
    failing.delete(entry);
    entry.linger?.cancel();
    entry.controller.abort(new Error('nobody holds the object'));
  };

  const unhold = (holder: string, key: string): void => {
    const keys = heldBy.get(holder);
    keys?.delete(key);
    if (keys?.size === 0) heldBy.delete(holder);
  };

  const open = (resource: Resource, name: ObjectName): Entry => {
    const controller = new AbortController();
    const { signal } = controller;
    const answered = Promise.withResolvers<void>();
    // Whoever waits has its own handler; that nobody waits any more is no fault.
    answered.promise.catch(() => undefined);
    const entry: Entry = {
      resource,
      name,
      holders: new Set(),
      controller,
      first: answered.promise,
      known: false,
      object: undefined,
      linger: undefined,
    };
    const life = async (): Promise<void> => {
      try {
        entry.object = await readFirst(resource, name, signal);
      } catch (error) {
        forget(entry);
        answered.reject(error);
        return;
      }
      entry.known = true;
      answered.resolve();
      const watch = {
        client,
        clock,
        seen: (object: KubeObject | undefined) => seen(entry, object),
        failed: (error: unknown, failures: number) => failed(entry, error, failures),
      };
      await watchObject(watch, resource, name, entry.object, signal);
    };
    const task = life().finally(() => tasks.delete(task));
    tasks.add(task);
    return entry;
  };

  const lingerIfFree = (entry: Entry): void => {
    if (entry.holders.size > 0 || entry.linger) return;
    entry.linger = clock.setTimer(lingerMs, () => forget(entry));
  };

  return {
    async get<T extends KubeObject>(resource: Resource<T>, name: ObjectName, holder: string, signal?: AbortSignal) {
      if (stopped) throw new Error('the object cache was stopped');
      signal?.throwIfAborted();
      const key = keyOf(resource, name);
      const entry = entries.get(key) ?? open(resource, name);
      entries.set(key, entry);
      entry.linger?.cancel();
      entry.linger = undefined;
      entry.holders.add(holder);
      const keys = heldBy.get(holder) ?? new Set();
      heldBy.set(holder, keys.add(key));
      if (!entry.known) await (signal ? abandonOn(entry.first, signal) : entry.first);
      return entry.object as T | undefined;
    },
    release(holder) {
      const keys = heldBy.get(holder);
      heldBy.delete(holder);
      for (const key of keys ?? []) {
        const entry = entries.get(key);
        if (!entry) continue;
        entry.holders.delete(holder);
        lingerIfFree(entry);
      }
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    get size() {
      return entries.size;
    },
    async stop() {
      stopped = true;
      for (const entry of [...entries.values()]) forget(entry);
      await Promise.allSettled(tasks);
    },
  };
}

const sameVersion = (a: KubeObject | undefined, b: KubeObject | undefined): boolean =>
  a?.metadata.uid === b?.metadata.uid && a?.metadata.resourceVersion === b?.metadata.resourceVersion;

// A watch may begin a little behind what a GET said. resourceVersions are decimal numbers of one order, as the API promises since 1.35.
function isStale(before: KubeObject | undefined, now: KubeObject | undefined): boolean {
  const [had, has] = [before?.metadata.resourceVersion, now?.metadata.resourceVersion];
  if (had === undefined || has === undefined || !/^\d+$/.test(had) || !/^\d+$/.test(has)) return false;
  return BigInt(has) < BigInt(had);
}
