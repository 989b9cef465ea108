// Remembers answers for a while, and no more of them than it was told: the oldest go first.
import type { Clock } from './clock.ts';

export interface ExpiringCache<Value> {
  get(key: string): Value | undefined;
  /** `ttlMs` of 0 or less remembers nothing. */
  set(key: string, value: Value, ttlMs: number): void;
  clear(): void;
  size(): number;
}

export function createExpiringCache<Value>(clock: Clock, maxEntries: number): ExpiringCache<Value> {
  const entries = new Map<string, { value: Value; untilMs: number }>();
  return {
    get(key) {
      const entry = entries.get(key);
      if (!entry) return undefined;
      if (entry.untilMs > clock.monotonicMs()) return entry.value;
      entries.delete(key);
      return undefined;
    },
    set(key, value, ttlMs) {
      entries.delete(key);
      if (ttlMs <= 0) return;
      for (const oldest of entries.keys()) {
        if (entries.size < maxEntries) break;
        entries.delete(oldest);
      }
      entries.set(key, { value, untilMs: clock.monotonicMs() + ttlMs });
    },
    clear: () => entries.clear(),
    size: () => entries.size,
  };
}
