// Events on their way to one reader. A reader that falls far behind is told `lost` in place of what it missed.
import type { RuntimeEvent } from './types.ts';

export interface EventBuffer {
  push(event: RuntimeEvent): void;
  /** Nothing comes after this; the reader ends. */
  end(): void;
  drain(): AsyncIterable<RuntimeEvent>;
}

export function createEventBuffer(capacity = 10_000): EventBuffer {
  let items: RuntimeEvent[] = [];
  let ended = false;
  let wake: (() => void) | undefined;
  const notify = (): void => {
    wake?.();
    wake = undefined;
  };
  return {
    push(event) {
      if (ended) return;
      if (items.length >= capacity) items = [{ kind: 'lost' }];
      else items.push(event);
      notify();
    },
    end() {
      ended = true;
      notify();
    },
    async *drain() {
      for (;;) {
        const batch = items;
        items = [];
        yield* batch;
        if (items.length > 0) continue;
        if (ended) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}

/** What `follow` pushes until the reader or `parent` ends it; `follow` must then return, and never reject. */
export async function* followedEvents(
  follow: (push: (event: RuntimeEvent) => void, signal: AbortSignal) => Promise<void>,
  parent: AbortSignal,
): AsyncIterable<RuntimeEvent> {
  const controller = new AbortController();
  const buffer = createEventBuffer();
  const running = follow(buffer.push, AbortSignal.any([parent, controller.signal])).finally(buffer.end);
  try {
    yield* buffer.drain();
  } finally {
    controller.abort();
    await running;
  }
}
