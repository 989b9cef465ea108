// Writes Events, in the order they were recorded, one at a time and never in anybody's way: the queue is bounded, and while the API server
// is away it waits.
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { KubeClient } from './client.ts';
import { ApiError, isAlreadyExists, isNotFound } from './errors.ts';
import { createEventCorrelator, createLru, type RecordedEvent } from './event-correlator.ts';
import type { EventRecorder, EventTarget } from './events.ts';
import { resources } from './resources.ts';
import type { CoreEvent } from './types/core.ts';

export interface EventRecorderDeps {
  readonly client: Pick<KubeClient, 'create' | 'patch'>;
  readonly clock: Clock;
  readonly log: Log;
  /** Told of each event that was dropped, and why; for a metric. */
  dropped?(why: 'queue-full' | 'spam' | 'refused' | 'gave-up' | 'stopped'): void;
}

export interface EventRecorderOptions {
  /** `kubelet` and the node's name, as `source` of the events. */
  readonly component: string;
  readonly host: string;
  /** Default 1,000. */
  readonly queueLimit?: number;
}

export interface OwnedEventRecorder extends EventRecorder {
  /** Waits up to `timeoutMs` (default 2,000) for what is queued, then drops the rest. */
  stop(timeoutMs?: number): Promise<void>;
}

/** As client-go: so many tries, ten seconds apart on the whole; the first ones come sooner here. */
const tries = 12;
const firstRetryMs = 500;
const longestRetryMs = 10_000;
const longestMessage = 1024;

interface Written {
  readonly name: string;
  readonly namespace: string;
  readonly firstTimestamp: string;
  count: number;
}

interface Queued {
  readonly event: RecordedEvent;
  readonly atMs: number;
}

export function createEventRecorder(deps: EventRecorderDeps, options: EventRecorderOptions): OwnedEventRecorder {
  const { client, clock, log } = deps;
  const { component, host, queueLimit = 1000 } = options;
  const correlator = createEventCorrelator();
  const written = createLru<Written>(4096);
  const stopping = new AbortController();
  const queue: Queued[] = [];
  let writing: Promise<void> | undefined;
  let lastNameAt = 0n;
  let toldFull = false;

  // Names hold the time in nanoseconds, as Kubernetes' own do; no two are the same.
  const nameFor = (about: EventTarget): string => {
    const now = BigInt(Math.trunc(clock.now())) * 1_000_000n;
    lastNameAt = now > lastNameAt ? now : lastNameAt + 1n;
    return `${about.name.slice(0, 230)}.${lastNameAt.toString(16)}`;
  };

  const create = async (key: string, { event, atMs }: Queued, message: string, signal: AbortSignal): Promise<void> => {
    const namespace = event.about.namespace ?? 'default';
    const at = timestamp(atMs);
    const before = written.get(key);
    const entry: Written = {
      name: nameFor(event.about),
      namespace,
      firstTimestamp: before?.firstTimestamp ?? at,
      count: (before?.count ?? 0) + 1,
    };
    const object: CoreEvent = {
      metadata: { name: entry.name, namespace, ...(event.annotations ? { annotations: event.annotations } : {}) },
      involvedObject: { ...event.about },
      reason: event.reason,
      message,
      type: event.type,
      count: entry.count,
      firstTimestamp: entry.firstTimestamp,
      lastTimestamp: at,
      source: { component, host },
      reportingComponent: component,
      reportingInstance: host,
    };
    await client.create(resources.events, object, { signal });
    written.set(key, entry);
  };

  const writeOnce = async (key: string, queued: Queued, message: string, signal: AbortSignal): Promise<void> => {
    const known = written.get(key);
    if (!known) return await create(key, queued, message, signal);
    const count = known.count + 1;
    try {
      const patch = { count, message, lastTimestamp: timestamp(queued.atMs) };
      await client.patch(resources.events, known, patch, { type: 'strategic', signal });
      known.count = count;
    } catch (error) {
      // Events live for an hour; what was counted goes on in a new one.
      if (!isNotFound(error)) throw error;
      await create(key, queued, message, signal);
    }
  };

  const write = async (queued: Queued, signal: AbortSignal): Promise<void> => {
    const correlated = correlator.correlate(queued.event, queued.atMs);
    if (!correlated) return deps.dropped?.('spam');
    const message = shorten(correlated.message);
    for (let attempt = 1, delayMs = firstRetryMs; ; attempt++, delayMs = Math.min(delayMs * 2, longestRetryMs)) {
      try {
        return await writeOnce(correlated.key, queued, message, signal);
      } catch (error) {
        if (signal.aborted) return deps.dropped?.('stopped');
        const fields = { reason: queued.event.reason, object: queued.event.about.name, error };
        if (isRefusal(error)) {
          if (!isAlreadyExists(error)) log.debug('the API server refused an event', fields);
          return deps.dropped?.('refused');
        }
        if (attempt === tries) {
          log.debug('gave up writing an event', fields);
          return deps.dropped?.('gave-up');
        }
        const retryAfterMs = error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0;
        await clock.sleep(Math.max(delayMs * (0.5 + Math.random()), retryAfterMs), signal).catch(() => undefined);
      }
    }
  };

  const drain = async (): Promise<void> => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      if (stopping.signal.aborted) deps.dropped?.('stopped');
      else await write(next, stopping.signal);
    }
    toldFull = false;
  };

  const start = (): void => {
    writing ??= Promise.resolve()
      .then(drain)
      .catch((error: unknown) => log.error('writing events failed; going on', { error }))
      .finally(() => {
        writing = undefined;
        if (queue.length > 0) start();
      });
  };

  return {
    record(about, type, reason, message, annotations) {
      if (stopping.signal.aborted) return;
      if (queue.length >= queueLimit) {
        if (!toldFull) log.warn('too many events wait for the API server; dropping new ones', { limit: queueLimit });
        toldFull = true;
        deps.dropped?.('queue-full');
        return;
      }
      queue.push({
        event: { about, type, reason, message, ...(annotations ? { annotations } : {}) },
        atMs: clock.now(),
      });
      start();
    },
    async stop(timeoutMs = 2000) {
      if (writing) {
        const late = clock.setTimer(timeoutMs, () => stopping.abort(new Error('the event recorder stops')));
        await writing;
        late.cancel();
      }
      stopping.abort(new Error('the event recorder stopped'));
    },
  };
}

// Whatever the server said, it would say again; save that it is busy or broken.
const isRefusal = (error: unknown): boolean =>
  error instanceof ApiError &&
  error.status !== undefined &&
  error.status < 500 &&
  error.status !== 429 &&
  error.status !== 401 &&
  error.status !== 408;

const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

// The API takes no more than 1,024 bytes.
function shorten(message: string): string {
  if (Buffer.byteLength(message) <= longestMessage) return message;
  const cut = Buffer.from(message)
    .subarray(0, longestMessage - 3)
    .toString('utf8');
  return `${cut.replace(/\uFFFD+$/, '')}...`;
}
