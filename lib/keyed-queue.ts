// Wakes a reconciler by key. A key carries no data: the reconciler re-reads the world.
//
//            wake                       done, not woken since
//   idle ──────────▶ queued ─▶ running ──────────────────────▶ idle
//                       ▲         │ woken while running, or threw (after its back-off)
//                       └─────────┘
//
// One run at a time for each key; wakes during a run coalesce into one more run.
import { createBackoff, type BackoffOptions } from './backoff.ts';
import type { Clock, Timer } from './clock.ts';

export interface KeyedQueueDeps<Key> {
  readonly clock: Clock;
  /** Throwing puts the key on its back-off; returning resets it. The signal aborts when the queue stops. */
  reconcile(key: Key, signal: AbortSignal): Promise<void>;
  /** Told of each failure, with the delay until the next try. */
  onError(key: Key, error: unknown, retryInMs: number): void;
}

export interface KeyedQueueOptions {
  /** How many keys may run at once. Default: no limit. */
  readonly concurrency?: number;
  readonly backoff?: BackoffOptions;
}

export interface KeyedQueue<Key> {
  /** Runs the key as soon as there is room, whatever its back-off says. */
  wake(key: Key): void;
  /** Wakes the key after `ms`, unless an earlier wake is due. Waking does not cancel it. */
  wakeAfter(key: Key, ms: number): void;
  /** Drops what waits for the key. A run under way goes on. */
  forget(key: Key): void;
  /** Keys queued or running. */
  size(): number;
  /** Stops starting runs, aborts those under way and waits for them. */
  stop(): Promise<void>;
}

interface Entry {
  running: boolean;
  queued: boolean;
  timer: { dueMs: number; timer: Timer } | undefined;
}

export function createKeyedQueue<Key>(deps: KeyedQueueDeps<Key>, options: KeyedQueueOptions = {}): KeyedQueue<Key> {
  const { clock } = deps;
  const limit = options.concurrency ?? Number.POSITIVE_INFINITY;
  const backoff = createBackoff<Key>(options.backoff ?? { initialMs: 100, maxMs: 30_000 });
  const entries = new Map<Key, Entry>();
  const ready: Key[] = [];
  const runs = new Set<Promise<void>>();
  const stopping = new AbortController();

  const entryOf = (key: Key): Entry => {
    const known = entries.get(key);
    if (known) return known;
    const entry: Entry = { running: false, queued: false, timer: undefined };
    entries.set(key, entry);
    return entry;
  };

  const dropIfIdle = (key: Key, entry: Entry): void => {
    if (!entry.running && !entry.queued && !entry.timer && entries.get(key) === entry) entries.delete(key);
  };

  const fill = (): void => {
    while (runs.size < limit && ready.length > 0 && !stopping.signal.aborted) {
      const key = ready.shift()!;
      const entry = entries.get(key);
      // A key can be here twice, forgotten and woken again; one that runs comes back when it is done.
      if (!entry?.queued || entry.running) continue;
      start(key, entry);
    }
  };

  const start = (key: Key, entry: Entry): void => {
    entry.queued = false;
    entry.running = true;
    const run: Promise<void> = Promise.resolve()
      .then(() => deps.reconcile(key, stopping.signal))
      .then(
        () => backoff.reset(key),
        (error: unknown) => {
          if (stopping.signal.aborted) return;
          const delayMs = backoff.next(key, clock.now());
          deps.onError(key, error, delayMs);
          wakeAfter(key, delayMs);
        },
      )
      .finally(() => {
        runs.delete(run);
        entry.running = false;
        if (entry.queued) ready.push(key);
        else dropIfIdle(key, entry);
        fill();
      });
    runs.add(run);
  };

  const wake = (key: Key): void => {
    if (stopping.signal.aborted) return;
    const entry = entryOf(key);
    if (entry.queued) return;
    entry.queued = true;
    if (entry.running) return;
    ready.push(key);
    fill();
  };

  const wakeAfter = (key: Key, ms: number): void => {
    if (stopping.signal.aborted) return;
    const entry = entryOf(key);
    const dueMs = clock.monotonicMs() + ms;
    if (entry.timer && entry.timer.dueMs <= dueMs) return;
    entry.timer?.timer.cancel();
    const timer = clock.setTimer(ms, () => {
      entry.timer = undefined;
      wake(key);
    });
    entry.timer = { dueMs, timer };
  };

  return {
    wake,
    wakeAfter,
    forget(key) {
      const entry = entries.get(key);
      if (!entry) return;
      entry.timer?.timer.cancel();
      entry.timer = undefined;
      entry.queued = false;
      backoff.reset(key);
      dropIfIdle(key, entry);
    },
    size: () => [...entries.values()].filter((entry) => entry.queued || entry.running).length,
    async stop() {
      stopping.abort();
      for (const entry of entries.values()) entry.timer?.timer.cancel();
      await Promise.allSettled(runs);
    },
  };
}
