// Keeps a store equal to what the API server has: list (streamed where the server can), watch with bookmarks, reconnect with back-off.
//
//   listing ──▶ watching ──(ended, broken)──▶ watching again from the last resourceVersion, after a back-off
//      ▲            └────(410 Gone)──┐
//      └─────────────────────────────┘  what the new list lacks is deleted from the store
import { abandonOn } from '../lib/abort.ts';
import { createBackoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { collectionPath } from './api-path.ts';
import type { KubeClient, Selection, WatchEvent, WatchOptions } from './client.ts';
import { createRests } from './contact.ts';
import { ApiError, askedToWaitMs, isGone } from './errors.ts';
import { listAll } from './list.ts';
import { createInitialEvents, createWatchdog, streamingRefused, watchTimeoutSeconds } from './reflector-list.ts';
import type { Resource } from './resources.ts';
import { type Change, createStore, type Index, keyOf, type ReadStore } from './store.ts';
import type { KubeObject } from './types/meta.ts';

export interface ReflectorDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
}

export interface ReflectorOptions<T extends KubeObject> {
  readonly resource: Resource<T>;
  readonly selection?: Selection;
  readonly indexes?: Readonly<Record<string, Index<T>>>;
  /** Called at once for every change, in order. A replaced object (same name, other uid) comes as one change: compare uids. */
  onChange?(change: Change<T>): void;
  /** Called once the store holds everything for the first time, and again after each relist. */
  onSync?(): void;
  /** Called with the first failure of a row that is more than a broken watch; for example an ApiError `forbidden`. */
  onFailure?(error: unknown): void;
}

export interface Reflector<T extends KubeObject> {
  readonly store: ReadStore<T>;
  /** True once the store has held all objects. */
  readonly synced: boolean;
  /** Resolves when `synced` becomes true. */
  waitForSync(signal: AbortSignal): Promise<void>;
  /** Milliseconds on the monotonic clock since the server was last heard; undefined before the first time. */
  lastContactMs(): number | undefined;
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

export type CreateReflector = <T extends KubeObject>(deps: ReflectorDeps, options: ReflectorOptions<T>) => Reflector<T>;

/** The first try again comes quickly, so that a restarted API server is noticed at once; then from 800 ms to 30 s. */
const firstRetryMs = 100;
/** The initial events of a streamed list must begin and go on without a pause of this length, else pages are asked for. */
const streamedListSilenceMs = 15_000;
/** The server ends a watch in time; where it does not within this much more, the watch is given up. */
const overtimeMs = 30_000;
/** A watch that lived this long was a good one: the next try starts the back-off anew. */
const goodWatchMs = 5000;

export const createReflector: CreateReflector = (deps, options) => reflect(deps, options);

function reflect<T extends KubeObject>(deps: ReflectorDeps, options: ReflectorOptions<T>): Reflector<T> {
  const { client, clock } = deps;
  const { resource, selection = {} } = options;
  const where = collectionPath(resource, selection.namespace);
  const log = deps.log.with({ resource: resource.plural });
  const store = createStore<T>(options.indexes);
  const syncedOnce = Promise.withResolvers<void>();
  const backoff = createBackoff<'server'>({ initialMs: 800, maxMs: 30_000, jitter: 0.5 });
  const rests = createRests(client.contact, clock);
  let synced = false;
  let heardAt: number | undefined;
  let lostAt: number | undefined;
  let failures = 0;
  let relists = 0;
  // Undefined: list anew.
  let version: string | undefined;
  let streams = true;
  let silences = 0;

  const heard = (): void => {
    heardAt = clock.monotonicMs();
    if (lostAt === undefined) return;
    log.info('the API server answers again', { path: where, awaySeconds: Math.round((heardAt - lostAt) / 1000) });
    lostAt = undefined;
  };

  const change = (changed: Change<T> | undefined): void => {
    if (!changed) return;
    try {
      options.onChange?.(changed);
    } catch (error) {
      // A listener's fault must not look like the server's, nor keep the store from the truth.
      log.error('a listener failed on a change; going on', { key: changed.key, error });
    }
  };

  const apply = (event: WatchEvent<T>): void => {
    heard();
    if (event.type === 'BOOKMARK') {
      version = event.resourceVersion || version;
      return;
    }
    version = event.object.metadata.resourceVersion ?? version;
    change(event.type === 'DELETED' ? store.delete(keyOf(event.object)) : store.set(event.object));
  };

  const replace = (objects: readonly T[], at: string | undefined): void => {
    heard();
    version = at;
    for (const changed of store.replace(objects)) change(changed);
    synced = true;
    syncedOnce.resolve();
    options.onSync?.();
  };

  const listPages = async (signal: AbortSignal): Promise<void> => {
    const list = await listAll(client, resource, { ...selection, signal, timeoutMs: 60_000 });
    replace(list.items, list.metadata.resourceVersion);
  };

  // One watch, to its end. Where it streams the list, that comes first.
  const watchOnce = async (streamList: boolean, signal: AbortSignal): Promise<void> => {
    const timeoutSeconds = watchTimeoutSeconds(Math.random);
    const endMs = timeoutSeconds * 1000 + overtimeMs;
    const dog = createWatchdog(clock, streamList ? streamedListSilenceMs : endMs, signal);
    const initial = streamList ? createInitialEvents<T>() : undefined;
    let listed = !streamList;
    const request: WatchOptions = {
      ...selection,
      signal: dog.signal,
      allowWatchBookmarks: true,
      timeoutSeconds,
      ...(streamList
        ? { sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan' as const }
        : { resourceVersion: version ?? '' }),
    };
    try {
      for await (const event of client.watch(resource, request)) {
        if (listed || !initial) apply(event);
        else if (!initial.add(event)) dog.beat();
        else if (event.type === 'BOOKMARK') {
          listed = true;
          dog.beat(endMs);
          replace([...initial.objects.values()], event.resourceVersion);
        }
      }
      if (!listed) throw new ApiError('server', `watch ${where}: ended before the initial list was complete`);
    } catch (error) {
      if (dog.barked() && !signal.aborted && streamList && !listed) {
        log.debug('the server streams no list; asking for pages', { path: where });
        streams = false;
        silences++;
        return;
      }
      if (dog.barked() && !signal.aborted)
        throw new ApiError('timeout', `watch ${where}: the server did not end it in time`);
      if (streamList && !listed && streamingRefused(error)) {
        streams = false;
        return;
      }
      throw error;
    } finally {
      dog.stop();
    }
  };

  const step = async (signal: AbortSignal): Promise<void> => {
    if (version !== undefined) return await watchOnce(false, signal);
    if (streams) return await watchOnce(true, signal);
    await listPages(signal);
    // Silence may have been the network's; twice is the server's way.
    streams = silences === 1;
  };

  const failed = (error: unknown): { delayMs: number; leastMs: number } => {
    if (isGone(error)) {
      log.debug('the resourceVersion is too old: listing anew', { path: where });
      version = undefined;
      const delayMs = relists++ === 0 ? 0 : backoff.next('server', clock.now());
      return { delayMs, leastMs: delayMs };
    }
    failures++;
    const quick = failures === 1;
    const delayMs = quick ? firstRetryMs * (1 + Math.random()) : backoff.next('server', clock.now());
    const leastMs = askedToWaitMs(error);
    // A watch that breaks once is everyday life: a restart, a proxy. A second failure is worth a line, and only one.
    if (!quick && lostAt === undefined) {
      lostAt = heardAt ?? clock.monotonicMs();
      const refused = error instanceof ApiError && error.status !== undefined && error.status < 500;
      const message = refused ? 'the API server refuses to list and watch' : 'lost contact with the API server';
      log.warn(`${message}; what is known stays in use, trying again until it answers`, { path: where, error });
      options.onFailure?.(error);
    } else if (!quick)
      log.debug('the API server does not answer yet', { path: where, error, retryInMs: Math.round(delayMs) });
    return { delayMs: Math.max(delayMs, leastMs), leastMs };
  };

  const good = (): void => {
    failures = 0;
    relists = 0;
    backoff.reset('server');
    rests.reset();
  };

  return {
    store,
    get synced() {
      return synced;
    },
    waitForSync: (signal) => abandonOn(syncedOnce.promise, signal),
    lastContactMs: () => heardAt,
    async run(signal) {
      while (!signal.aborted) {
        const startedAt = clock.monotonicMs();
        const versionBefore = version;
        try {
          await step(signal);
          heard();
          good();
          // A server that ends watches at once must not be asked in a tight loop.
          if (version !== undefined && version === versionBefore && clock.monotonicMs() - startedAt < 1000)
            await clock.sleep(1000, signal).catch(() => undefined);
        } catch (error) {
          if (signal.aborted) break;
          if (clock.monotonicMs() - startedAt > goodWatchMs && heardAt !== undefined && heardAt > startedAt) good();
          const { delayMs, leastMs } = failed(error);
          if (delayMs > 0) await rests.rest(delayMs, leastMs, signal);
        }
      }
    },
  };
}
