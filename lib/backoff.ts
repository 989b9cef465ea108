// Exponential back-off, per key. Pure: it is told the time.

export interface BackoffOptions {
  readonly initialMs: number;
  readonly maxMs: number;
  /** Default 2. */
  readonly factor?: number;
  /** Adds up to this fraction of the delay at random, so that many hosts do not come back at once. Default 0. */
  readonly jitter?: number;
  /** A key that has not failed for this long starts over. Default: never by itself. */
  readonly resetAfterMs?: number;
}

export interface Backoff<Key = string> {
  /** Notes a failure at `nowMs` and returns how long to wait, in milliseconds. */
  next(key: Key, nowMs: number): number;
  /** How long is still to wait at `nowMs`; 0 where nothing is. */
  remainingMs(key: Key, nowMs: number): number;
  /** The delay that was last handed out, in milliseconds; 0 where none was. */
  currentMs(key: Key): number;
  reset(key: Key): void;
}

export function createBackoff<Key = string>(options: BackoffOptions, random: () => number = Math.random): Backoff<Key> {
  const { initialMs, maxMs, factor = 2, jitter = 0, resetAfterMs } = options;
  const entries = new Map<Key, { delayMs: number; until: number; failedAt: number }>();
  return {
    next(key, nowMs) {
      const last = entries.get(key);
      const stale = last !== undefined && resetAfterMs !== undefined && nowMs - last.failedAt > resetAfterMs;
      const base = last === undefined || stale ? initialMs : Math.min(maxMs, last.delayMs * factor);
      const delayMs = base + base * jitter * random();
      entries.set(key, { delayMs: base, until: nowMs + delayMs, failedAt: nowMs });
      return delayMs;
    },
    remainingMs: (key, nowMs) => Math.max(0, (entries.get(key)?.until ?? 0) - nowMs),
    currentMs: (key) => entries.get(key)?.delayMs ?? 0,
    reset: (key) => void entries.delete(key),
  };
}
