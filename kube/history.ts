// Objects in memory as an API server keeps them: one count of resourceVersions over all collections, and enough history for watches. Objects
// are never changed in place.
import { keyOf, type ObjectKey } from './store.ts';
import type { KubeObject } from './types/meta.ts';

export interface PastChange<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly version: number;
  readonly object: T;
  readonly previous: T | undefined;
}

export type Collection<T extends KubeObject> = ReturnType<typeof createCollection<T>>;
export type History<T extends KubeObject> = ReturnType<typeof createHistory<T>>;

const keptChanges = 5_000;

/** Versions go on from `first`. */
export function createHistory<T extends KubeObject>(first: number) {
  let newest = first;
  const collections = new Map<string, Collection<T>>();
  const next = (): number => ++newest;
  return {
    /** The newest version there is. */
    version: () => newest,
    collection(name: string): Collection<T> {
      const collection = collections.get(name) ?? createCollection<T>(first, next);
      collections.set(name, collection);
      return collection;
    },
  };
}

function createCollection<T extends KubeObject>(first: number, next: () => number) {
  const objects = new Map<ObjectKey, T>();
  const listeners = new Set<(change: PastChange<T>) => void>();
  let history: PastChange<T>[] = [];
  let floor = first;

  const write = (object: T, gone: boolean): T => {
    const key = keyOf(object);
    const previous = objects.get(key);
    const version = next();
    const written = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } };
    if (gone) objects.delete(key);
    else objects.set(key, written);
    const type = gone ? 'DELETED' : previous ? 'MODIFIED' : 'ADDED';
    const change: PastChange<T> = { type, version, object: written, previous };
    history.push(change);
    if (history.length > keptChanges * 2) {
      floor = history[keptChanges - 1]!.version;
      history = history.slice(keptChanges);
    }
    for (const listener of listeners) listener(change);
    return written;
  };

  return {
    get: (key: ObjectKey) => objects.get(key),
    /** Sorted by key; `namespace` undefined means all. */
    list: (namespace?: string): T[] =>
      [...objects]
        .filter(([, { metadata }]) => namespace === undefined || metadata.namespace === namespace)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([, object]) => object),
    /** What changed after a version, or undefined where history does not go back so far. */
    since: (version: number): readonly PastChange<T>[] | undefined =>
      version < floor ? undefined : history.slice(history.findLastIndex((change) => change.version <= version) + 1),
    /** Writes under the next version, which it sets on the object. */
    put: (object: T) => write(object, false),
    remove: (object: T) => write(object, true),
    subscribe(listener: (change: PastChange<T>) => void): () => void {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
