// A token bucket: so many at once, so many a second after that.
import type { Clock } from './clock.ts';

export interface TokenBucketOptions {
  /** How many may be taken at once. */
  readonly burst: number;
  /** How many come back each second. */
  readonly perSecond: number;
}

export interface TokenBucket {
  /** Takes one where there is one. */
  tryTake(): boolean;
  /** Takes one, waiting for it in the order of the calls. Rejects with the signal's reason. */
  take(signal?: AbortSignal): Promise<void>;
}

export function createTokenBucket(clock: Clock, options: TokenBucketOptions): TokenBucket {
  const { burst, perSecond } = options;
  let tokens = burst;
  let at = clock.monotonicMs();
  const refill = (): void => {
    const now = clock.monotonicMs();
    tokens = Math.min(burst, tokens + ((now - at) / 1000) * perSecond);
    at = now;
  };
  return {
    tryTake() {
      refill();
      if (tokens < 1) return false;
      tokens -= 1;
      return true;
    },
    async take(signal) {
      signal?.throwIfAborted();
      refill();
      tokens -= 1;
      if (tokens >= 0) return;
      try {
        await clock.sleep((-tokens / perSecond) * 1000, signal);
      } catch (error) {
        tokens += 1;
        throw error;
      }
    },
  };
}
