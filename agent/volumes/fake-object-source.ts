// ObjectSource for tests: objects that the test sets, with the same holding and telling as the real one.
import type { ObjectName } from '../../kube/client.ts';
import type { Resource } from '../../kube/resources.ts';
import type { KubeObject } from '../../kube/types/meta.ts';
import type { ObjectSource } from './volume-driver.ts';

export interface FakeObjectSource extends ObjectSource {
  set<T extends KubeObject>(resource: Resource<T>, object: T): void;
  remove(resource: Resource, name: ObjectName): void;
  /** Calls of `get` fail with this until it is undefined again. */
  failWith(error: Error | undefined): void;
  holders(): string[];
}

export function createFakeObjectSource(): FakeObjectSource {
  type Listener = Parameters<ObjectSource['subscribe']>[0];
  const objects = new Map<string, KubeObject>();
  const held = new Map<string, Map<string, { resource: Resource; name: ObjectName }>>();
  const listeners = new Set<Listener>();
  let failure: Error | undefined;
  const keyOf = (resource: Resource, name: ObjectName): string =>
    `${resource.plural}/${resource.namespaced ? (name.namespace ?? 'default') : ''}/${name.name}`;
  const tell = (resource: Resource, name: ObjectName, object: KubeObject | undefined): void => {
    for (const [holder, keys] of held)
      if (keys.has(keyOf(resource, name))) for (const listener of listeners) listener(holder, resource, name, object);
  };
  const nameOf = (object: KubeObject): ObjectName => ({
    name: object.metadata.name,
    ...(object.metadata.namespace === undefined ? {} : { namespace: object.metadata.namespace }),
  });
  return {
    get<T extends KubeObject>(resource: Resource<T>, name: ObjectName, holder: string) {
      if (failure) return Promise.reject(failure);
      const keys = held.get(holder) ?? new Map<string, { resource: Resource; name: ObjectName }>();
      keys.set(keyOf(resource, name), { resource, name });
      held.set(holder, keys);
      return Promise.resolve(objects.get(keyOf(resource, name)) as T | undefined);
    },
    release: (holder) => void held.delete(holder),
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    set(resource, object) {
      objects.set(keyOf(resource, nameOf(object)), object);
      tell(resource, nameOf(object), object);
    },
    remove(resource, name) {
      objects.delete(keyOf(resource, name));
      tell(resource, name, undefined);
    },
    failWith(error) {
      failure = error;
    },
    holders: () => [...held.keys()],
  };
}
