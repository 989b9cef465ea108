// The fake client's watch: the history since a resourceVersion, then what happens, each change as the selection sees it.
import type { Clock, Timer } from '../lib/clock.ts';
import { collectionPath } from './api-path.ts';
import type { WatchEvent, WatchOptions } from './client.ts';
import { ApiError } from './errors.ts';
import { type FakeStore, type StoredChange, selected } from './fake-store.ts';
import type { Resource } from './resources.ts';
import type { KubeObject } from './types/meta.ts';

export interface FakeWatchDeps {
  readonly store: FakeStore;
  readonly clock: Clock;
  readonly watches: Set<{ end(error?: unknown): void; bookmark(): void }>;
  /** Notes the call; throws the fault that a test injected. */
  note(): void;
}

export async function* fakeWatch<T extends KubeObject>(
  deps: FakeWatchDeps,
  resource: Resource<T>,
  options: WatchOptions,
): AsyncGenerator<WatchEvent<T>, void, undefined> {
  const { store, clock, watches } = deps;
  const { signal } = options;
  signal.throwIfAborted();
  deps.note();
  const within = selected(options);
  const queue: WatchEvent<T>[] = [];
  let wake = (): void => undefined;
  let ended: { error: unknown } | undefined;

  const push = (event: WatchEvent<T>): void => {
    if (ended) return;
    queue.push(event);
    wake();
  };
  const tell = ({ version, before, after }: StoredChange): void => {
    const [was, is] = [within(before), within(after)];
    if (is) push({ type: was ? 'MODIFIED' : 'ADDED', object: structuredClone(after) as T });
    else if (was && before) {
      const metadata = { ...before.metadata, resourceVersion: String(version) };
      push({ type: 'DELETED', object: structuredClone({ ...before, metadata }) as T });
    }
  };
  const bookmark = (initialEventsEnd: boolean): void =>
    push({ type: 'BOOKMARK', resourceVersion: String(store.version), initialEventsEnd });

  const from = options.resourceVersion;
  if (options.sendInitialEvents || from === undefined || from === '' || from === '0') {
    for (const object of store.list(resource).filter(within))
      push({ type: 'ADDED', object: structuredClone(object) as T });
    if (options.sendInitialEvents) bookmark(true);
  } else {
    if (Number(from) < store.oldest)
      throw new ApiError(
        'gone',
        `watch ${collectionPath(resource, options.namespace)}: too old resource version: ${from} (${store.version})`,
        {
          status: 410,
          reason: 'Expired',
        },
      );
    for (const change of store.since(resource, Number(from))) tell(change);
  }

  const handle = {
    end(error?: unknown) {
      ended ??= { error };
      wake();
    },
    bookmark: () => {
      if (options.allowWatchBookmarks) bookmark(false);
    },
  };
  const onAbort = (): void => handle.end(signal.reason);
  const stopListening = store.listen(resource, tell);
  let timer: Timer | undefined;
  watches.add(handle);
  signal.addEventListener('abort', onAbort, { once: true });
  if (options.timeoutSeconds !== undefined) timer = clock.setTimer(options.timeoutSeconds * 1000, () => handle.end());
  try {
    for (;;) {
      signal.throwIfAborted();
      const event = queue.shift();
      if (event) yield event;
      else if (ended) {
        if (ended.error !== undefined) throw ended.error;
        return;
      } else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    timer?.cancel();
    stopListening();
    watches.delete(handle);
    signal.removeEventListener('abort', onAbort);
  }
}
