// What the node's server may know of pods: their specs and statuses, and which containers and sandboxes stand for them now.
import type { ContainerId } from '../../cri/types.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { Observer } from '../observe/observer.ts';
import type { PodDirectory } from '../server/directory.ts';
import type { PodWorkers } from './pod-workers.ts';

export interface DirectoryDeps {
  readonly workers: PodWorkers;
  readonly observer: Observer;
  /** The API's name of a static pod is that of its mirror; streams are asked for by that uid. */
  byName(namespace: string, name: string): Pod | undefined;
}

export interface Directory extends PodDirectory {
  /** Another thing is known of the pod than before; those who wait for an end look again. */
  changed(uid: string): void;
}

export function createDirectory(deps: DirectoryDeps): Directory {
  const { workers, observer } = deps;
  const waiting = new Map<string, Set<() => void>>();

  const find = (id: ContainerId) => {
    for (const uid of observer.uids()) {
      const container = observer.last(uid).containers.find((each) => each.id === id);
      if (container) return { uid, container };
    }
    return undefined;
  };

  return {
    pods: () => workers.list(),
    byName: (namespace, name) =>
      workers
        .list()
        .find(({ metadata }) => metadata.name === name && (metadata.namespace ?? 'default') === namespace) ??
      deps.byName(namespace, name),
    container(uid, name, options) {
      const all = observer.last(uid).containers.filter((each) => each.metadata.name === name);
      const container = all[options?.previous ? 1 : 0];
      return (
        container && {
          id: container.id,
          state: container.state,
          logPath: container.logPath,
          restartCount: container.metadata.attempt,
        }
      );
    },
    sandbox(uid) {
      const { sandboxes } = observer.last(uid);
      const sandbox = sandboxes.find((each) => each.state === 'ready') ?? sandboxes[0];
      return sandbox && { id: sandbox.id, ips: sandbox.ips, ready: sandbox.state === 'ready' };
    },
    async ended(id, signal) {
      const found = find(id);
      if (!found) return;
      const { uid } = found;
      const hasEnded = (): boolean => {
        const now = observer.last(uid).containers.find((each) => each.id === id);
        return !now || now.state === 'exited';
      };
      while (!hasEnded()) {
        signal.throwIfAborted();
        await new Promise<void>((resolve) => {
          const listeners = waiting.get(uid) ?? new Set();
          const done = (): void => {
            listeners.delete(done);
            if (listeners.size === 0) waiting.delete(uid);
            signal.removeEventListener('abort', done);
            resolve();
          };
          listeners.add(done);
          waiting.set(uid, listeners);
          signal.addEventListener('abort', done, { once: true });
        });
      }
    },
    changed(uid) {
      for (const listener of waiting.get(uid) ?? []) listener();
    },
  };
}
