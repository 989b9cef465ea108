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

export type Collection = ReturnType<typeof createCollection>;
export type Storage = ReturnType<typeof createStorage>;

export const keyOf = (namespace: string | undefined, name: string): string =>
  namespace ? `${namespace}/${name}` : name;
const keyOfObject = ({ metadata }: Obj): string => keyOf(metadata.namespace, metadata.name);

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

  const listOf = (from: ReadonlyMap<string, Obj>, namespace: string | undefined): Obj[] =>
    [...from]
      .filter(([, { metadata }]) => namespace === undefined || metadata.namespace === namespace)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, object]) => object);

  /** What changed after a version, or undefined where history does not go back so far. */
  const since = (version: number): readonly Change[] | undefined => {
    if (version < floor) return undefined;
    const last = history.findLastIndex((change) => change.version <= version);
    return history.slice(last + 1);
  };

  const write = (object: Obj, gone: boolean): Obj => {
    const key = keyOfObject(object);
    const previous = objects.get(key);
    const version = next();
    const written = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } };
    if (gone) objects.delete(key);
    else objects.set(key, written);
    const change = {
      type: gone ? 'DELETED' : previous ? 'MODIFIED' : 'ADDED',
      version,
      object: written,
      previous,
    } as const;
    history.push(change);
    if (history.length > keptChanges * 2) {
      floor = history[keptChanges - 1]!.version;
      history = history.slice(keptChanges);
    }
    for (const listener of listeners) listener(change);
    return written;
  };

  return {
    get: (namespace: string | undefined, name: string) => objects.get(keyOf(namespace, name)),
    /** Sorted by key; `namespace` undefined means all. */
    list: (namespace?: string) => listOf(objects, namespace),
    since,
    /** The objects as they were at a version, or undefined where history does not go back so far. */
    listAt(version: number, namespace?: string): Obj[] | undefined {
      const later = since(version);
      const then = new Map(objects);
      for (const { object, previous } of later?.toReversed() ?? [])
        if (previous) then.set(keyOfObject(object), previous);
        else then.delete(keyOfObject(object));
      return later && listOf(then, namespace);
    },
    /** Writes under the next version, which it sets on the object. */
    put: (object: Obj) => write(object, false),
    remove: (object: Obj) => write(object, true),
    subscribe(listener: (change: Change) => void): () => void {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
