// Something that is on or off, for those who wait for it to change.
import { abandonOn } from '../lib/abort.ts';

export interface Switch {
  readonly on: boolean;
  set(on: boolean): void;
  /** Resolves with the next change, or when the signal aborts. */
  changed(signal: AbortSignal): Promise<void>;
}

export function createSwitch(initially: boolean): Switch {
  let on = initially;
  let next = Promise.withResolvers<void>();
  return {
    get on() {
      return on;
    },
    set(value) {
      if (value === on) return;
      on = value;
      next.resolve();
      next = Promise.withResolvers();
    },
    changed: (signal) => abandonOn(next.promise, signal).catch(() => undefined),
  };
}
