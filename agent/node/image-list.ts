// The runtime's images for the node's status: listed at most every half minute, unless they are known to have changed.
import type { Runtime } from '../../cri/runtime.ts';
import type { Image } from '../../cri/types.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';

export interface ImageListDeps {
  readonly runtime: Pick<Runtime, 'listImages'>;
  readonly clock: Clock;
  readonly log: Log;
}

export interface ImageList {
  /** Where they cannot be listed those of the last time. Rejects only when the signal aborts. */
  list(signal: AbortSignal): Promise<readonly Image[]>;
  /** Images came or went. */
  changed(): void;
}

const maxAgeMs = 30_000;

export function createImageList({ runtime, clock, log }: ImageListDeps): ImageList {
  let last: { readonly list: readonly Image[]; readonly atMs: number } | undefined;
  return {
    async list(signal) {
      if (last && clock.monotonicMs() - last.atMs < maxAgeMs) return last.list;
      try {
        last = { list: await runtime.listImages({ signal }), atMs: clock.monotonicMs() };
      } catch (error) {
        signal.throwIfAborted();
        log.debug('images cannot be listed', { error });
      }
      return last?.list ?? [];
    },
    changed() {
      last = undefined;
    },
  };
}
