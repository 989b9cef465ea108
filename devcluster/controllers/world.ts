// What the controllers share: a cache of each kind they read and who wants to know of changes, the loop they run in, and their Events.
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isForbidden, isNotFound } from '../../kube/errors.ts';
import { createReflector } from '../../kube/reflector.ts';
import { type Resource, resources } from '../../kube/resources.ts';
import { type Change, keyOf, type ReadStore } from '../../kube/store.ts';
import type { KubeObject, OwnerReference } from '../../kube/types/meta.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { abandonOn } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import { createKeyedQueue, type KeyedQueue } from '../../lib/keyed-queue.ts';
import type { Log } from '../../lib/log.ts';
import { kindByName, kinds } from '../kinds.ts';
import { randomSuffix, timestamp } from '../names.ts';
import type { Deployment, ReplicaSet } from '../workload.ts';

export interface ControllerDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Cache<T extends KubeObject = KubeObject> {
  readonly resource: Resource<T>;
  readonly store: ReadStore<T>;
  onChange(listener: (change: Change<T>) => void): void;
  /** Resolves once the cache has what `holds` asks for, or after two seconds. */
  until(holds: (store: ReadStore<T>) => boolean, signal: AbortSignal): Promise<void>;
  run(signal: AbortSignal): Promise<void>;
  waitForSync(signal: AbortSignal): Promise<void>;
}

export const ownerIndex = 'owner';
export const namespaceIndex = 'namespace';
const indexes = {
  [ownerIndex]: ({ metadata }: KubeObject) => (metadata.ownerReferences ?? []).map(({ uid }) => uid),
  [namespaceIndex]: ({ metadata }: KubeObject) => [metadata.namespace ?? ''],
};

const patienceMs = 2000;

function createCache<T extends KubeObject>(deps: ControllerDeps, resource: Resource<T>): Cache<T> {
  const listeners = new Set<(change: Change<T>) => void>();
  const onChange = (change: Change<T>): void => {
    for (const listener of listeners) listener(change);
  };
  const { store, run, waitForSync } = createReflector(deps, { resource, indexes, onChange });
  return {
    resource,
    store,
    run,
    waitForSync,
    onChange: (listener) => void listeners.add(listener),
    async until(holds, signal) {
      if (holds(store)) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const check = (): void => (holds(store) ? resolve() : undefined);
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

export const deploymentResource = kindByName('deployments').resource as Resource<Deployment>;
export const replicaSetResource = kindByName('replicasets').resource as Resource<ReplicaSet>;

const untracked = ['Event', 'Lease', 'Endpoints'];

export type World = ReturnType<typeof createWorld>;

export function createWorld(deps: ControllerDeps) {
  const watched = kinds.filter(({ virtual, resource }) => !virtual && !untracked.includes(resource.kind));
  const caches = new Map(watched.map(({ resource }) => [resource.plural, createCache(deps, resource)]));
  const cacheOf = <T extends KubeObject>({ plural }: Resource<T>): Cache<T> =>
    caches.get(plural) as unknown as Cache<T>;
  return {
    /** Every kind that may own or be owned. */
    all: [...caches.values()],
    pods: cacheOf(resources.pods),
    nodes: cacheOf(resources.nodes),
    services: cacheOf(resources.services),
    endpointSlices: cacheOf(resources.endpointSlices),
    deployments: cacheOf(deploymentResource),
    replicaSets: cacheOf(replicaSetResource),
    namespaces: cacheOf(resources.namespaces),
    serviceAccounts: cacheOf(resources.serviceAccounts),
    configMaps: cacheOf(resources.configMaps),
  };
}

export type Controller = KeyedQueue<string>;

/** Keys wake it, it re-reads the world and brings one object on its way. */
export function createController(
  { clock, log }: ControllerDeps,
  name: string,
  reconcile: (key: string, signal: AbortSignal) => Promise<void>,
): Controller {
  const onError = (key: string, error: unknown, retryInMs: number): void => {
    // Somebody else was faster, or the object is gone: the next look at the world tells.
    const usual = isConflict(error) || isNotFound(error) || inEndingNamespace(error);
    const say = usual ? log.debug : log.warn;
    say(`the ${name} controller could not bring an object on its way; tried again`, { key, error, retryInMs });
  };
  return createKeyedQueue({ clock, reconcile, onError }, { concurrency: 8, backoff: { initialMs: 20, maxMs: 10_000 } });
}

const inEndingNamespace = (error: unknown): boolean =>
  isForbidden(error) && (error.body?.details?.causes?.some(({ reason }) => reason === 'NamespaceTerminating') ?? false);

/** For a `catch`: an error that is expected is none. */
export const unless =
  (expected: (error: unknown) => boolean) =>
  (error: unknown): undefined => {
    if (!expected(error)) throw error;
  };

/** The key of the owner that made the object, if it is of this kind. */
export function ownerKey({ metadata }: KubeObject, kind: string): string | undefined {
  const owner = metadata.ownerReferences?.find((one) => one.controller === true && one.kind === kind);
  return owner && `${metadata.namespace}/${owner.name}`;
}

export const ownedBy = <T extends KubeObject>(
  { group, version, kind }: Resource<T>,
  { metadata }: T,
): OwnerReference => ({
  apiVersion: group ? `${group}/${version}` : version,
  kind,
  name: metadata.name,
  uid: metadata.uid!,
  controller: true,
  blockOwnerDeletion: true,
});

/** Wakes the owners of this kind of what changes in a cache. */
export function wakeOwners<T extends KubeObject>(cache: Cache<T>, kind: string, controller: Controller): void {
  cache.onChange(({ before, after }) => {
    for (const object of [before, after]) {
      const key = object && ownerKey(object, kind);
      if (key) controller.wake(key);
    }
  });
}

/** Waits until the cache shows that an object was made, or was changed since `before`. */
export const seen = <T extends KubeObject>(cache: Cache<T>, object: T, signal: AbortSignal, before?: string) =>
  cache.until((store) => {
    const now = store.get(keyOf(object));
    return now !== undefined && now.metadata.resourceVersion !== before;
  }, signal);

/** One Event of the scheduler about a pod; what cannot be written is not missed. */
export function recordEvent(
  deps: ControllerDeps,
  pod: Pod,
  type: 'Normal' | 'Warning',
  reason: string,
  message: string,
): void {
  const { name, namespace = 'default', uid = '', resourceVersion = '' } = pod.metadata;
  const time = timestamp(deps.clock.now());
  const component = 'default-scheduler';
  const event = {
    metadata: { name: `${name}.${randomSuffix(10)}`, namespace },
    involvedObject: { apiVersion: 'v1', kind: 'Pod', name, namespace, uid, resourceVersion },
    type,
    reason,
    message,
    count: 1,
    firstTimestamp: time,
    lastTimestamp: time,
    source: { component },
    reportingComponent: component,
    reportingInstance: '',
  };
  deps.client
    .create(resources.events, event)
    .catch((error: unknown) => deps.log.debug('an event could not be written', { reason, error }));
}
