// Keeps a certificate young: asks for the next one when 70 to 90 per cent of the present one's life is over, at random so that nodes that
// joined together do not ask together, and again and again until it is there.
import type { Clock } from '../../lib/clock.ts';
import { createBackoff } from '../../lib/backoff.ts';
import type { Log } from '../../lib/log.ts';
import { createNap } from '../../lib/nap.ts';
import { type CertificateStore, type Validity, validityOf } from './certificate-store.ts';
import type { CertificateAndKey } from './serving.ts';

export interface RotationDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: CertificateStore;
  /** Asks the cluster for the next one. */
  request(signal: AbortSignal): Promise<CertificateAndKey>;
  /** True where the present one no longer fits, whatever its age: the node has other addresses. */
  outdated?(current: CertificateAndKey): boolean;
  onRotated?(pair: CertificateAndKey): void;
  /** For metrics. The age is the replaced one's, in milliseconds. */
  counted?: { failed(): void; rotated(ageMs: number | undefined): void } | undefined;
  random?(): number;
}

export interface Rotation {
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
  /** Looks again whether the present one still fits. */
  check(): void;
  /** When the present one ends, in milliseconds since the epoch. */
  expiresAtMs(): number | undefined;
}

/** When to ask for the next one, in milliseconds since the epoch. `random` is in [0, 1). */
export const rotateAtMs = ({ fromMs, untilMs }: Validity, random: number): number =>
  fromMs + (untilMs - fromMs) * (0.7 + 0.2 * random);

// Wall clocks jump and hosts sleep: look at the time at least this often.
const longestSleepMs = 60_000;

export function createRotation(deps: RotationDeps, what: 'client' | 'serving'): Rotation {
  const { clock, log, store } = deps;
  const random = deps.random ?? Math.random;
  const backoff = createBackoff({ initialMs: 2000, maxMs: 120_000, jitter: 0.1 });
  let expires: number | undefined;
  const nap = createNap(clock);

  return {
    expiresAtMs: () => expires,
    check: nap.wake,
    async run(signal) {
      let chosen: { readonly untilMs: number; readonly atMs: number } | undefined;
      while (!signal.aborted) {
        const current = await store.current();
        let fromMs: number | undefined;
        if (current) {
          const validity = validityOf(current);
          expires = validity.untilMs;
          fromMs = validity.fromMs;
          if (chosen?.untilMs !== validity.untilMs)
            chosen = { untilMs: validity.untilMs, atMs: rotateAtMs(validity, random()) };
          const waitMs = chosen.atMs - clock.now();
          if (waitMs > 0 && !deps.outdated?.(current)) {
            await nap.take(Math.min(waitMs, longestSleepMs), signal);
            continue;
          }
        }
        try {
          const pair = await deps.request(signal);
          await store.update(pair, clock.now());
          backoff.reset('request');
          log.info(`${what} certificate rotated`, { until: new Date(validityOf(pair).untilMs).toISOString() });
          deps.counted?.rotated(fromMs === undefined ? undefined : clock.now() - fromMs);
          deps.onRotated?.(pair);
        } catch (error) {
          if (signal.aborted) return;
          deps.counted?.failed();
          const retryInMs = backoff.next('request', clock.now());
          log.warn(`no new ${what} certificate; trying again`, {
            error,
            retryInMs: Math.round(retryInMs),
            ...(expires === undefined ? {} : { presentUntil: new Date(expires).toISOString() }),
          });
          await clock.sleep(retryInMs, signal).catch(() => undefined);
        }
      }
    },
  };
}
