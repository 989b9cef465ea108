// Pods that the API server has bound to this node.
import type { KubeClient } from '../../kube/client.ts';
import { createReflector, type Reflector } from '../../kube/reflector.ts';

import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { PodSource } from './desired.ts';

export interface ApiSourceDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  /** A pod came, changed or went. */
  onChange(uid: string, pod: Pod): void;
  /** All pods are known, for the first time or again. */
  onSync(): void;
}

export interface ApiSource extends PodSource {
  readonly reflector: Reflector<Pod>;
  /** The mirror of a static pod, or any pod, by its name. */
  byName(namespace: string, name: string): Pod | undefined;
  run(signal: AbortSignal): Promise<void>;
}

export function createApiSource(deps: ApiSourceDeps, options: { readonly nodeName: string }): ApiSource {
  const reflector = createReflector<Pod>(deps, {
    resource: resources.pods,
    selection: { fieldSelector: `spec.nodeName=${options.nodeName}` },
    indexes: { uid: (pod) => [pod.metadata.uid ?? ''] },
    // A relist may show a pod and its successor of the same name as one change: wake both.
    onChange: ({ before, after }) => {
      if (before?.metadata.uid) deps.onChange(before.metadata.uid, before);
      if (after?.metadata.uid && after.metadata.uid !== before?.metadata.uid) deps.onChange(after.metadata.uid, after);
    },
    onSync: deps.onSync,
  });
  return {
    name: 'api',
    reflector,
    get synced() {
      return reflector.synced;
    },
    get: (uid) => reflector.store.byIndex('uid', uid)[0],
    list: () => reflector.store.list(),
    byName: (namespace, name) => reflector.store.get(`${namespace}/${name}`),
    run: (signal) => reflector.run(signal),
  };
}
