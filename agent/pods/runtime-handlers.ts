// RuntimeClasses as the pods of this node use them, and what the runtime's handler behind each can.
import type { Node, RuntimeClass } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';

export interface RuntimeHandlersDeps {
  /** From the API; undefined where there is none of that name. */
  get(name: string, signal?: AbortSignal): Promise<RuntimeClass | undefined>;
  /** The own Node, whose status tells what the handlers can. */
  node(): Node | undefined;
}

export interface RuntimeHandlers {
  runtimeClass(name: string, signal?: AbortSignal): Promise<RuntimeClass | undefined>;
  /** Whether the pod's handler can mount read-only all the way down. False until its RuntimeClass has been asked for. */
  recursiveReadOnly(pod: Pod): boolean;
}

export function createRuntimeHandlers(deps: RuntimeHandlersDeps): RuntimeHandlers {
  // A class's handler never changes, but a class may be deleted and made anew.
  const handlers = new Map<string, string>();
  return {
    async runtimeClass(name, signal) {
      const found = await deps.get(name, signal);
      if (found) handlers.set(name, found.handler);
      else handlers.delete(name);
      return found;
    },
    recursiveReadOnly({ spec: { runtimeClassName } }) {
      const handler = runtimeClassName ? handlers.get(runtimeClassName) : '';
      const known = deps.node()?.status?.runtimeHandlers ?? [];
      return known.find(({ name = '' }) => name === handler)?.features?.recursiveReadOnlyMounts ?? false;
    },
  };
}
