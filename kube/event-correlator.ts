// Decides what becomes of an event before it is written: a new one, one more of the same, one of many alike, or too many. The numbers and
// keys are those of client-go's recorder. Pure but for its memory: it is told the time.
import type { EventTarget } from './events.ts';

export interface RecordedEvent {
  readonly about: EventTarget;
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly message: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** What to write: `key` names the Event object that counts up. */
export interface CorrelatedEvent {
  readonly key: string;
  readonly message: string;
}

export interface EventCorrelator {
  /** Undefined: the source says too much about this object, the event is dropped. */
  correlate(event: RecordedEvent, nowMs: number): CorrelatedEvent | undefined;
}

const rememberedEntries = 4096;
const similarWithinMs = 600_000;
const similarAtLeast = 10;
const spamBurst = 25;
const spamRefillMs = 300_000;

/** A map that forgets what was used least recently. */
export function createLru<V>(limit: number): { get(key: string): V | undefined; set(key: string, value: V): void } {
  const entries = new Map<string, V>();
  return {
    get(key) {
      const value = entries.get(key);
      if (value === undefined) return undefined;
      entries.delete(key);
      entries.set(key, value);
      return value;
    },
    set(key, value) {
      entries.delete(key);
      entries.set(key, value);
      if (entries.size > limit) entries.delete(entries.keys().next().value!);
    },
  };
}

export function createEventCorrelator(): EventCorrelator {
  const similar = createLru<{ messages: Set<string>; lastMs: number }>(rememberedEntries);
  const spam = createLru<{ tokens: number; atMs: number }>(rememberedEntries);

  const aggregate = (event: RecordedEvent, nowMs: number): CorrelatedEvent => {
    const { about, type, reason, message } = event;
    const alike = JSON.stringify([about.kind, about.namespace, about.name, about.uid, about.apiVersion, type, reason]);
    const known = similar.get(alike);
    const record =
      known && nowMs - known.lastMs <= similarWithinMs ? known : { messages: new Set<string>(), lastMs: nowMs };
    record.messages.add(message);
    record.lastMs = nowMs;
    similar.set(alike, record);
    if (record.messages.size < similarAtLeast)
      return { key: JSON.stringify([alike, about.fieldPath, message]), message };
    record.messages.delete(record.messages.values().next().value!);
    return { key: alike, message: `(combined from similar events): ${message}` };
  };

  const tooMany = ({ about, type }: RecordedEvent, nowMs: number): boolean => {
    const key = JSON.stringify([about.kind, about.namespace, about.name, about.uid, about.apiVersion, type]);
    const bucket = spam.get(key) ?? { tokens: spamBurst, atMs: nowMs };
    const tokens = Math.min(spamBurst, bucket.tokens + Math.max(0, nowMs - bucket.atMs) / spamRefillMs);
    const accepted = tokens >= 1;
    spam.set(key, { tokens: accepted ? tokens - 1 : tokens, atMs: nowMs });
    return !accepted;
  };

  return {
    correlate(event, nowMs) {
      const correlated = aggregate(event, nowMs);
      return tooMany(event, nowMs) ? undefined : correlated;
    },
  };
}
