// All objects in memory, with enough history for watches and for lists of the recent past. Objects are never changed in place.
import type { Clock } from '../lib/clock.ts';
import type { KubeObject } from '../kube/types/meta.ts';

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

export interface Collection {
  get(namespace: string | undefined, name: string): Obj | undefined;
  /** Sorted by key; `namespace` undefined means all. */
  list(namespace?: string): Obj[];
  /** The objects as they were at a version, or undefined where history does not go back so far. */
  listAt(version: number, namespace?: string): Obj[] | undefined;
  /** What changed after a version, or undefined where history does not go back so far. */
  since(version: number): readonly Change[] | undefined;
  /** Writes under the next version, which it sets on the object. */
  put(object: Obj): Obj;
  remove(object: Obj): Obj;
  subscribe(listener: (change: Change) => void): () => void;
}

export interface Storage {
  /** The newest version there is. */
  version(): number;
  collection(name: string): Collection;
}

export const keyOf = (namespace: string | undefined, name: string): string =>
  namespace ? `${namespace}/${name}` : name;

const keptChanges = 5_000;

/** Versions start at the time of day, so that those of an earlier run are too old rather than wrong. */
export function createStorage(deps: { readonly clock: Clock }): Storage {
  const first = deps.clock.now();
  let newest = first;
  const collections = new Map<string, Collection>();
  const next = (): number => {
    newest += 1;
    return newest;
  };
  return {
    version: () => newest,
    collection(name) {
      const known = collections.get(name);
      if (known) return known;
      const made = createCollection(first, next);
      collections.set(name, made);
      return made;
    },
  };
}

function createCollection(first: number, next: () => number): Collection {
  const objects = new Map<string, Obj>();
  const listeners = new Set<(change: Change) => void>();
  let history: Change[] = [];
  let floor = first;

  const record = (change: Change): void => {
    history.push(change);
    if (history.length > keptChanges * 2) {
      floor = history[keptChanges - 1]!.version;
      history = history.slice(keptChanges);
    }
    for (const listener of listeners) listener(change);
  };

  const sorted = (from: ReadonlyMap<string, Obj>, namespace: string | undefined): Obj[] =>
    [...from.entries()]
      .filter(([, object]) => namespace === undefined || object.metadata.namespace === namespace)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, object]) => object);

  const since = (version: number): readonly Change[] | undefined => {
    if (version < floor) return undefined;
    let low = 0;
    let high = history.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (history[middle]!.version > version) high = middle;
      else low = middle + 1;
    }
    return history.slice(low);
  };

  const stamped = (object: Obj, version: number): Obj => ({
    ...object,
    metadata: { ...object.metadata, resourceVersion: String(version) },
  });

  return {
    get: (namespace, name) => objects.get(keyOf(namespace, name)),
    list: (namespace) => sorted(objects, namespace),
    since,
    listAt(version, namespace) {
      const later = since(version);
      if (!later) return undefined;
      const then = new Map(objects);
      for (const change of later.toReversed()) {
        const key = keyOf(change.object.metadata.namespace, change.object.metadata.name);
        if (change.previous) then.set(key, change.previous);
        else then.delete(key);
      }
      return sorted(then, namespace);
    },
    put(object) {
      const key = keyOf(object.metadata.namespace, object.metadata.name);
      const previous = objects.get(key);
      const version = next();
      const written = stamped(object, version);
      objects.set(key, written);
      record({ type: previous ? 'MODIFIED' : 'ADDED', version, object: written, previous });
      return written;
    },
    remove(object) {
      const key = keyOf(object.metadata.namespace, object.metadata.name);
      const previous = objects.get(key);
      const version = next();
      const last = stamped(object, version);
      objects.delete(key);
      record({ type: 'DELETED', version, object: last, previous });
      return last;
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
