// All objects in memory, with enough history for watches. Objects are never changed in place.
import { keyOf } from '../kube/store.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import type { Clock } from '../lib/clock.ts';

/** An object as it is kept: without apiVersion and kind, which its collection knows. */
export interface Obj extends KubeObject {
  [field: string]: unknown;
}

export interface Change {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly version: number;
  readonly object: Obj;
  readonly previous: Obj | undefined;
}

export type Collection = ReturnType<typeof createCollection>;
export type Storage = ReturnType<typeof createStorage>;

const keptChanges = 5_000;

/** Versions start at the time of day, so that those of an earlier run are too old rather than wrong. */
export function createStorage(deps: { readonly clock: Clock }) {
  const first = deps.clock.now();
  let newest = first;
  const collections = new Map<string, Collection>();
  const next = (): number => ++newest;
  return {
    /** The newest version there is. */
    version: () => newest,
    collection(name: string): Collection {
      const collection = collections.get(name) ?? createCollection(first, next);
      collections.set(name, collection);
      return collection;
    },
  };
}

function createCollection(first: number, next: () => number) {
  const objects = new Map<string, Obj>();
  const listeners = new Set<(change: Change) => void>();
  let history: Change[] = [];
  let floor = first;

  const write = (object: Obj, gone: boolean): Obj => {
    const key = keyOf(object);
    const previous = objects.get(key);
    const version = next();
    const written = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } };
    if (gone) objects.delete(key);
    else objects.set(key, written);
    const type = gone ? 'DELETED' : previous ? 'MODIFIED' : 'ADDED';
    const change: Change = { type, version, object: written, previous };
    history.push(change);
    if (history.length > keptChanges * 2) {
      floor = history[keptChanges - 1]!.version;
      history = history.slice(keptChanges);
    }
    for (const listener of listeners) listener(change);
    return written;
  };

  return {
    get: (namespace: string | undefined, name: string) => objects.get(namespace ? `${namespace}/${name}` : name),
    /** Sorted by key; `namespace` undefined means all. */
    list: (namespace?: string): Obj[] =>
      [...objects]
        .filter(([, { metadata }]) => namespace === undefined || metadata.namespace === namespace)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([, object]) => object),
    /** What changed after a version, or undefined where history does not go back so far. */
    since: (version: number): readonly Change[] | undefined =>
      version < floor ? undefined : history.slice(history.findLastIndex((change) => change.version <= version) + 1),
    /** Writes under the next version, which it sets on the object. */
    put: (object: Obj) => write(object, false),
    remove: (object: Obj) => write(object, true),
    subscribe(listener: (change: Change) => void): () => void {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
