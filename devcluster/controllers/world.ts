// What the controllers see: a cache of each kind they read, and who wants to know of changes.
import type { KubeClient } from '../../kube/client.ts';
import { createReflector } from '../../kube/reflector.ts';
import { type Resource, resources } from '../../kube/resources.ts';
import type { Change, Index, ReadStore } from '../../kube/store.ts';
import type { ConfigMap, EndpointSlice, Namespace, Node, Service, ServiceAccount } from '../../kube/types/core.ts';
import type { KubeObject } from '../../kube/types/meta.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { PersistentVolume, PersistentVolumeClaim } from '../../kube/types/volume.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { abandonOn } from '../../lib/abort.ts';
import type { Deployment, ReplicaSet } from '../default-workload.ts';
import { deployments, replicaSets } from '../kinds.ts';

export interface ControllerDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Cache<T extends KubeObject> {
  readonly store: ReadStore<T>;
  onChange(listener: (change: Change<T>) => void): void;
  /** Resolves once the cache has what `holds` asks for, or after two seconds. */
  until(holds: (store: ReadStore<T>) => boolean, signal: AbortSignal): Promise<void>;
  run(signal: AbortSignal): Promise<void>;
  waitForSync(signal: AbortSignal): Promise<void>;
}

export const ownerIndex = 'owner';
export const namespaceIndex = 'namespace';
export const byOwner: Index<KubeObject> = ({ metadata }) => (metadata.ownerReferences ?? []).map(({ uid }) => uid);
const byNamespace: Index<KubeObject> = ({ metadata }) => [metadata.namespace ?? ''];

const patienceMs = 2000;

export function createCache<T extends KubeObject>(deps: ControllerDeps, resource: Resource<T>): Cache<T> {
  const listeners = new Set<(change: Change<T>) => void>();
  const reflector = createReflector(deps, {
    resource,
    indexes: { [ownerIndex]: byOwner, [namespaceIndex]: byNamespace },
    onChange: (change) => {
      for (const listener of listeners) listener(change);
    },
  });
  return {
    store: reflector.store,
    onChange: (listener) => void listeners.add(listener),
    run: (signal) => reflector.run(signal),
    waitForSync: (signal) => reflector.waitForSync(signal),
    async until(holds, signal) {
      if (holds(reflector.store)) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const check = (): void => {
        if (holds(reflector.store)) resolve();
      };
      listeners.add(check);
      const timer = deps.clock.setTimer(patienceMs, resolve);
      try {
        await abandonOn(promise, signal);
      } finally {
        timer.cancel();
        listeners.delete(check);
      }
    },
  };
}

export interface World {
  readonly pods: Cache<Pod>;
  readonly nodes: Cache<Node>;
  readonly services: Cache<Service>;
  readonly endpointSlices: Cache<EndpointSlice>;
  readonly deployments: Cache<Deployment>;
  readonly replicaSets: Cache<ReplicaSet>;
  readonly namespaces: Cache<Namespace>;
  readonly serviceAccounts: Cache<ServiceAccount>;
  readonly configMaps: Cache<ConfigMap>;
  readonly volumes: Cache<PersistentVolume>;
  readonly claims: Cache<PersistentVolumeClaim>;
}

export const deploymentResource = deployments as Resource<Deployment>;
export const replicaSetResource = replicaSets as Resource<ReplicaSet>;

export const createWorld = (deps: ControllerDeps): World => ({
  pods: createCache(deps, resources.pods),
  nodes: createCache(deps, resources.nodes),
  services: createCache(deps, resources.services),
  endpointSlices: createCache(deps, resources.endpointSlices),
  deployments: createCache(deps, deploymentResource),
  replicaSets: createCache(deps, replicaSetResource),
  namespaces: createCache(deps, resources.namespaces),
  serviceAccounts: createCache(deps, resources.serviceAccounts),
  configMaps: createCache(deps, resources.configMaps),
  volumes: createCache(deps, resources.persistentVolumes),
  claims: createCache(deps, resources.persistentVolumeClaims),
});

/** The owner that made the object, if it is of this kind. */
export const controllerOf = (object: KubeObject, kind: string) =>
  object.metadata.ownerReferences?.find((owner) => owner.controller === true && owner.kind === kind);

export const ownerKey = (object: KubeObject, kind: string): string | undefined => {
  const owner = controllerOf(object, kind);
  return owner && `${object.metadata.namespace}/${owner.name}`;
};

export const nameOf = (key: string): { namespace: string; name: string } => {
  const [namespace = '', name = ''] = key.split('/');
  return { namespace, name };
};
