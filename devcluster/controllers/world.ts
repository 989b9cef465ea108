// What the controllers share: a cache of each kind and who wants to know of its changes, and the loop they run in.
import { apiVersionOf } from '../../kube/api-path.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../../kube/errors.ts';
import { createReflector } from '../../kube/reflector.ts';
import { type Resource, resources } from '../../kube/resources.ts';
import type { Change } from '../../kube/store.ts';
import type { KubeObject, OwnerReference } from '../../kube/types/meta.ts';
import type { Clock } from '../../lib/clock.ts';
import { createKeyedQueue, type KeyedQueue } from '../../lib/keyed-queue.ts';
import type { Log } from '../../lib/log.ts';
import { kindByName, kinds } from '../kinds.ts';
import type { Deployment, ReplicaSet } from '../workload.ts';

export interface ControllerDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
}

const indexes = {
  owner: ({ metadata }: KubeObject) => (metadata.ownerReferences ?? []).map(({ uid }) => uid),
  namespace: ({ metadata }: KubeObject) => [metadata.namespace ?? ''],
};

function createCache<T extends KubeObject>(deps: ControllerDeps, resource: Resource<T>) {
  const listeners = new Set<(change: Change<T>) => void>();
  const notify = (change: Change<T>): void => {
    for (const listener of listeners) listener(change);
  };
  const { store, run, waitForSync } = createReflector(deps, { resource, indexes, onChange: notify });
  const onChange = (listener: (change: Change<T>) => void): void => void listeners.add(listener);
  return {
    resource,
    run,
    waitForSync,
    onChange,
    get: store.get,
    list: store.list,
    ownedBy: ({ metadata }: KubeObject) => store.byIndex('owner', metadata.uid ?? ''),
    inNamespace: (name = '') => store.byIndex('namespace', name),
    /** Wakes the owners of this kind of what changes. */
    wakeOwners: (kind: string, controller: KeyedQueue<string>) =>
      onChange(({ before, after }) => {
        for (const object of [before, after]) {
          const owner = object?.metadata.ownerReferences?.find((one) => one.controller === true && one.kind === kind);
          if (owner) controller.wake(`${object!.metadata.namespace}/${owner.name}`);
        }
      }),
    /** What an object is told by that this one owns. */
    ownerReference: ({ metadata: { name, uid = '' } }: T): OwnerReference => {
      const { kind } = resource;
      return { apiVersion: apiVersionOf(resource), kind, name, uid, controller: true, blockOwnerDeletion: true };
    },
  };
}

type Cache<T extends KubeObject> = ReturnType<typeof createCache<T>>;

const untracked = ['Event', 'Lease', 'Endpoints'];

export type World = ReturnType<typeof createWorld>;

export function createWorld(deps: ControllerDeps) {
  const watched = kinds.filter(({ virtual, resource }) => !virtual && !untracked.includes(resource.kind));
  const caches = new Map(watched.map(({ resource }) => [resource.plural, createCache(deps, resource)]));
  const cacheOf = <T extends KubeObject>({ plural }: Resource<T>): Cache<T> =>
    caches.get(plural) as unknown as Cache<T>;
  return {
    ...deps,
    /** Keys wake it, it re-reads the world and brings one object on its way. */
    controller(name: string, reconcile: (key: string, signal: AbortSignal) => Promise<void>): KeyedQueue<string> {
      const onError = (key: string, error: unknown, retryInMs: number): void => {
        // Somebody else was faster, or the object is gone: the next look at the world tells.
        const usual = isConflict(error) || isAlreadyExists(error) || isNotFound(error);
        const say = usual ? deps.log.debug : deps.log.warn;
        say(`the ${name} controller could not bring an object on its way; tried again`, { key, error, retryInMs });
      };
      const backoff = { initialMs: 20, maxMs: 10_000 };
      return createKeyedQueue({ clock: deps.clock, reconcile, onError }, { concurrency: 8, backoff });
    },
    /** Every kind that may own or be owned. */
    all: [...caches.values()],
    pods: cacheOf(resources.pods),
    nodes: cacheOf(resources.nodes),
    services: cacheOf(resources.services),
    endpointSlices: cacheOf(resources.endpointSlices),
    deployments: cacheOf(kindByName('deployments').resource as Resource<Deployment>),
    replicaSets: cacheOf(kindByName('replicasets').resource as Resource<ReplicaSet>),
    namespaces: cacheOf(resources.namespaces),
    serviceAccounts: cacheOf(resources.serviceAccounts),
    configMaps: cacheOf(resources.configMaps),
  };
}

/** For a `catch`: an error that is expected is none. */
export const unless =
  (expected: (error: unknown) => boolean) =>
  (error: unknown): undefined => {
    if (!expected(error)) throw error;
  };
