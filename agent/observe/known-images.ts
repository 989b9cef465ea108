// The runtime port with what it has said of images remembered for as long as it tells of every change to them: most containers are of an image
// that is there, and need not wait for the question.
import type { Runtime } from '../../cri/runtime.ts';
import type { Image } from '../../cri/types.ts';

export interface KnownImages {
  readonly runtime: Runtime;
  /** Images may have changed; `told`: each change is told of from now on. */
  changed(told: boolean): void;
}

// Names on one node; more are not worth their memory.
const capacity = 1_000;

export function createKnownImages(runtime: Runtime): KnownImages {
  const known = new Map<string, Image>();
  let told = false;
  /** Counts what may have changed an image: an answer to a question asked before says nothing. */
  let changes = 0;
  const forget = (): void => {
    changes++;
    known.clear();
  };
  return {
    runtime: {
      ...runtime,
      async imageStatus(spec, options) {
        const key = JSON.stringify([spec.image, spec.runtimeHandler ?? '']);
        const there = known.get(key);
        if (there) return there;
        const asked = changes;
        const found = await runtime.imageStatus(spec, options);
        if (found && told && asked === changes && known.size < capacity) known.set(key, found);
        return found;
      },
      // Our own doing is told of too, but a moment later.
      async pullImage(...args) {
        try {
          return await runtime.pullImage(...args);
        } finally {
          forget();
        }
      },
      async removeImage(...args) {
        forget();
        try {
          await runtime.removeImage(...args);
        } finally {
          forget();
        }
      },
    },
    changed(tells) {
      told = tells;
      forget();
    },
  };
}
