// Follows one named object: the state it has, then each change, through breaks and restarts of the server.
import { createBackoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import type { KubeClient, ObjectName, WatchOptions } from './client.ts';
import { createRests } from './contact.ts';
import { askedToWaitMs, isGone, isInvalid, isNotFound } from './errors.ts';
import { watchTimeoutSeconds } from './reflector-list.ts';
import type { Resource } from './resources.ts';
import { fieldEquals } from './selectors.ts';
import type { KubeObject } from './types/meta.ts';

export interface ObjectWatchDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  /** The object as it now is; undefined where there is none. Told also where nothing changed. */
  seen(object: KubeObject | undefined): void;
  /** A try failed; `failures` counts those in a row. */
  failed(error: unknown, failures: number): void;
}

const firstRetryMs = 100;

/** A GET; undefined where the object does not exist. */
export async function readObject(
  client: Pick<KubeClient, 'get'>,
  resource: Resource,
  name: ObjectName,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  try {
    return await client.get(resource, name, { signal });
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** Runs until the signal aborts, or the object says that it is immutable. `known` is what a GET has just said. */
export async function watchObject(
  deps: ObjectWatchDeps,
  resource: Resource,
  name: ObjectName,
  known: KubeObject | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { client, clock } = deps;
  const backoff = createBackoff<'watch'>({ initialMs: 800, maxMs: 30_000, jitter: 0.5 });
  const rests = createRests(client.contact, clock);
  let version = known?.metadata.resourceVersion;
  let failures = 0;
  // Servers that cannot begin a watch with the state are asked for it by GET.
  let streams = true;
  let readAgain = false;
  let settled = known !== undefined && isImmutable(known);

  const seen = (object: KubeObject | undefined): void => {
    failures = 0;
    backoff.reset('watch');
    rests.reset();
    if (object) version = object.metadata.resourceVersion;
    settled = object !== undefined && isImmutable(object);
    deps.seen(object);
  };

  const follow = async (): Promise<void> => {
    if (!streams && readAgain) {
      const object = await readObject(client, resource, name, signal);
      readAgain = false;
      version = undefined;
      seen(object);
      if (settled) return;
    }
    const ending = new AbortController();
    const onAbort = (): void => ending.abort(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const request: WatchOptions = {
      ...(name.namespace === undefined ? {} : { namespace: name.namespace }),
      fieldSelector: fieldEquals('metadata.name', name.name),
      signal: ending.signal,
      allowWatchBookmarks: true,
      timeoutSeconds: watchTimeoutSeconds(Math.random),
      ...(streams
        ? { sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan' as const, ...versionOf(version) }
        : { resourceVersion: version ?? '0' }),
    };
    let there = false;
    try {
      for await (const event of client.watch(resource, request)) {
        if (event.type === 'BOOKMARK') {
          // The state is told, and the object was not in it: it is gone.
          if (event.initialEventsEnd && !there) seen(undefined);
          else failures = 0;
          if (!streams) version = event.resourceVersion || version;
        } else {
          there = event.type !== 'DELETED';
          if (there) seen(event.object);
          else {
            version = undefined;
            seen(undefined);
          }
          if (settled) break;
        }
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
      ending.abort(new Error('the watch is over'));
    }
  };

  while (!signal.aborted && !settled) {
    const startedAt = clock.monotonicMs();
    try {
      await follow();
      if (!settled && clock.monotonicMs() - startedAt < 1000) await clock.sleep(1000, signal).catch(() => undefined);
    } catch (error) {
      if (signal.aborted) return;
      if (streams && isInvalid(error)) {
        streams = false;
        readAgain = true;
        continue;
      }
      if (isGone(error)) {
        readAgain = true;
        version = undefined;
      }
      failures++;
      const delayMs = failures === 1 ? firstRetryMs * (1 + Math.random()) : backoff.next('watch', clock.now());
      const leastMs = askedToWaitMs(error);
      deps.failed(error, failures);
      if (!settled) await rests.rest(Math.max(delayMs, leastMs), leastMs, signal);
    }
  }
}

const versionOf = (version: string | undefined): { resourceVersion?: string } =>
  version === undefined ? {} : { resourceVersion: version };

export const isImmutable = (object: KubeObject): boolean => (object as { immutable?: boolean }).immutable === true;
