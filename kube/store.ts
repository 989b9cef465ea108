// An indexed cache of API objects, filled by a reflector and read by everyone else.
import type { KubeObject } from './types/meta.ts';

/** `namespace/name`, or `name` for what has no namespace. */
export type ObjectKey = string;

export const keyOf = (object: KubeObject): ObjectKey =>
  object.metadata.namespace ? `${object.metadata.namespace}/${object.metadata.name}` : object.metadata.name;

/** What a change was; `before` is absent for a new object, `after` for one that is gone. */
export interface Change<T> {
  readonly key: ObjectKey;
  readonly before: T | undefined;
  readonly after: T | undefined;
}

export type Index<T> = (object: T) => readonly string[];

export interface ReadStore<T extends KubeObject> {
  get(key: ObjectKey): T | undefined;
  list(): readonly T[];
  /** The objects whose index function, of that name, gave this value. */
  byIndex(index: string, value: string): readonly T[];
  readonly size: number;
}

export interface Store<T extends KubeObject> extends ReadStore<T> {
  /** Returns the change, or undefined where the very same resourceVersion is there already. */
  set(object: T): Change<T> | undefined;
  delete(key: ObjectKey): Change<T> | undefined;
  /** Makes the store hold just these; returns what changed. */
  replace(objects: readonly T[]): Change<T>[];
}

export function createStore<T extends KubeObject>(indexes: Readonly<Record<string, Index<T>>> = {}): Store<T> {
  const objects = new Map<ObjectKey, T>();
  const indexed = new Map<string, Map<string, Map<ObjectKey, T>>>(
    Object.keys(indexes).map((name) => [name, new Map()]),
  );

  const unindex = (key: ObjectKey, object: T): void => {
    for (const [name, index] of Object.entries(indexes)) {
      const values = indexed.get(name)!;
      for (const value of index(object)) {
        const bucket = values.get(value);
        bucket?.delete(key);
        if (bucket?.size === 0) values.delete(value);
      }
    }
  };

  const reindex = (key: ObjectKey, object: T): void => {
    for (const [name, index] of Object.entries(indexes)) {
      const values = indexed.get(name)!;
      for (const value of index(object)) {
        const bucket = values.get(value) ?? new Map<ObjectKey, T>();
        bucket.set(key, object);
        values.set(value, bucket);
      }
    }
  };

  const store: Store<T> = {
    get: (key) => objects.get(key),
    list: () => [...objects.values()],
    byIndex: (name, value) => [...(indexed.get(name)?.get(value)?.values() ?? [])],
    get size() {
      return objects.size;
    },
    set(object) {
      const key = keyOf(object);
      const before = objects.get(key);
      const version = object.metadata.resourceVersion;
      if (
        before &&
        version !== undefined &&
        version === before.metadata.resourceVersion &&
        before.metadata.uid === object.metadata.uid
      )
        return undefined;
      if (before) unindex(key, before);
      objects.set(key, object);
      reindex(key, object);
      return { key, before, after: object };
    },
    delete(key) {
      const before = objects.get(key);
      if (!before) return undefined;
      unindex(key, before);
      objects.delete(key);
      return { key, before, after: undefined };
    },
    replace(next) {
      const keep = new Set(next.map(keyOf));
      const gone = [...objects.keys()].filter((key) => !keep.has(key)).map((key) => store.delete(key));
      const set = next.map((object) => store.set(object));
      return [...gone, ...set].filter((change) => change !== undefined);
    },
  };
  return store;
}
