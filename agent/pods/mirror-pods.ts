// Mirrors of static pods in the API: what the cluster sees of them. Made, made again when somebody deletes them, and taken away with the
// pod. One key for each name; each look re-reads both sides.
import type { KubeClient } from '../../kube/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import { createKeyedQueue } from '../../lib/keyed-queue.ts';
import type { Log } from '../../lib/log.ts';
import { configHashAnnotation, isMirrorPod, mirrorAnnotation } from '../resources/critical.ts';

export interface MirrorPodsDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  node(): Node | undefined;
  /** The static pod of this name, as its source has it. */
  wanted(namespace: string, name: string): Pod | undefined;
  /** What the API has under this name. */
  shown(namespace: string, name: string): Pod | undefined;
  /** All sources have told of their pods. */
  synced(): boolean;
  /** A static pod of this name whose manifest is gone, or was changed since, is still ending here. `uid`: of the one that is wanted now. */
  endsStill(namespace: string, name: string, uid: string | undefined): boolean;
}

export interface MirrorPods {
  /** The static pod, its mirror or its end: look again. */
  wake(namespace: string, name: string): void;
  stop(): Promise<void>;
}

/** Whether the API's pod mirrors this static pod. */
export const mirrors = (mirror: Pod | undefined, pod: Pod): mirror is Pod =>
  mirror !== undefined &&
  mirror.metadata.annotations?.[mirrorAnnotation] === pod.metadata.annotations?.[configHashAnnotation];

/** The object to create. It belongs to the Node, which NodeRestriction demands, and goes with it. */
export function mirrorOf(pod: Pod, node: Node): Pod {
  const { name, namespace = 'default', labels, annotations = {} } = pod.metadata;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace,
      ...(labels ? { labels } : {}),
      annotations: { ...annotations, [mirrorAnnotation]: annotations[configHashAnnotation] ?? '' },
      ownerReferences: [
        { apiVersion: 'v1', kind: 'Node', name: node.metadata.name, uid: node.metadata.uid ?? '', controller: true },
      ],
    },
    spec: pod.spec,
  };
}

export function createMirrorPods(deps: MirrorPodsDeps): MirrorPods {
  const { client, clock, log } = deps;

  const remove = async (mirror: Pod, signal: AbortSignal): Promise<void> => {
    const { name, namespace = 'default', uid } = mirror.metadata;
    try {
      await client.delete(
        resources.pods,
        { namespace, name },
        { gracePeriodSeconds: 0, signal, ...(uid === undefined ? {} : { preconditions: { uid } }) },
      );
    } catch (error) {
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  };

  const reconcile = async (key: string, signal: AbortSignal): Promise<void> => {
    const [namespace = '', name = ''] = key.split('/');
    const pod = deps.wanted(namespace, name);
    const mirror = deps.shown(namespace, name);
    // Until the pod before has ended the mirror shows that one; its end wakes this key again.
    if (deps.endsStill(namespace, name, pod?.metadata.uid)) return;
    if (!pod) {
      if (mirror && isMirrorPod(mirror) && deps.synced()) await remove(mirror, signal);
      return;
    }
    const node = deps.node();
    // Before the node is registered it has no uid to own the mirror.
    if (!node?.metadata.uid) {
      queue.wakeAfter(key, 1_000);
      return;
    }
    if (mirror && !isMirrorPod(mirror)) {
      log.warn('a pod of the API has the name of a static pod, which goes without a mirror', { pod: key });
      return;
    }
    const owner = mirror?.metadata.ownerReferences?.[0];
    const good =
      mirrors(mirror, pod) && mirror.metadata.deletionTimestamp === undefined && owner?.uid === node.metadata.uid;
    if (good) return;
    if (mirror) await remove(mirror, signal);
    try {
      await client.create(resources.pods, mirrorOf(pod, node), { signal });
    } catch (error) {
      // The watch tells soon what stands there.
      if (!isAlreadyExists(error)) throw error;
      queue.wakeAfter(key, 1_000);
    }
  };

  const queue = createKeyedQueue<string>(
    {
      clock,
      reconcile,
      onError: (key, error, retryInMs) =>
        log.warn('the mirror of a static pod cannot be kept; tried again', { pod: key, error, retryInMs }),
    },
    { backoff: { initialMs: 200, maxMs: 10_000 } },
  );

  return {
    wake: (namespace, name) => queue.wake(`${namespace}/${name}`),
    stop: () => queue.stop(),
  };
}
