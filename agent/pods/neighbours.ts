// The other pods of the node: those that one shares its room with, and those that have its name.
import type { Pod } from '../../kube/types/pod.ts';
import type { Observer } from '../observe/observer.ts';
import type { DesiredPods } from './desired.ts';
import type { Worker } from './worker.ts';

export interface NeighboursDeps {
  readonly workers: ReadonlyMap<string, Worker>;
  readonly pods: Pick<DesiredPods, 'get'>;
  readonly observer: Pick<Observer, 'uids' | 'last'>;
}

export interface Neighbours {
  of(worker: Worker): Pod[];
  /** Another pod of its name is here still. */
  namesake(worker: Worker): boolean;
}

export function createNeighbours({ workers, pods, observer }: NeighboursDeps): Neighbours {
  return {
    /** A pod that is gone from its source, forced out of the API, has given its room away already: the scheduler counts it no more. */
    of: (worker) =>
      [...workers]
        .filter(
          ([uid, each]) =>
            each !== worker && each.memory.admission?.admitted && !each.plan?.terminal && pods.get(uid) !== undefined,
        )
        .map(([, each]) => each.pod),

    namesake({ pod }) {
      const { name, namespace = 'default', uid } = pod.metadata;
      for (const [other, { pod: each, memory, isStatic }] of workers)
        if (
          other !== uid &&
          each.metadata.name === name &&
          (each.metadata.namespace ?? 'default') === namespace &&
          // Of two new ones neither waits for the other.
          !(isStatic && memory.admission === undefined)
        )
          return true;
      return observer.uids().some((other) => {
        if (other === uid || workers.has(other)) return false;
        const labels = observer.last(other).sandboxes.find((sandbox) => sandbox.state === 'ready')?.labels;
        return labels?.['io.kubernetes.pod.name'] === name && labels?.['io.kubernetes.pod.namespace'] === namespace;
      });
    },
  };
}
