// What stands behind the fake client: objects by resource, one count of resourceVersions, and the history that watches read.
import { randomUUID } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import { collectionPath } from './api-path.ts';
import type { Selection } from './client.ts';
import type { Resource } from './resources.ts';
import { matchesFieldSelector, matchesRequirements, parseFieldSelector, parseLabelSelector } from './selectors.ts';
import { keyOf } from './store.ts';
import type { KubeObject } from './types/meta.ts';

export interface StoredChange {
  readonly version: number;
  readonly before: KubeObject | undefined;
  readonly after: KubeObject | undefined;
}

interface Table {
  readonly objects: Map<string, KubeObject>;
  readonly history: StoredChange[];
  readonly listeners: Set<(change: StoredChange) => void>;
}

export interface FakeStore {
  readonly version: number;
  /** The oldest resourceVersion a watch may start from. */
  oldest: number;
  get(resource: Resource, key: string): KubeObject | undefined;
  list(resource: Resource): KubeObject[];
  /** Stores the object with a new resourceVersion and tells the watches. */
  put(resource: Resource, object: KubeObject): KubeObject;
  drop(resource: Resource, key: string): void;
  since(resource: Resource, version: number): readonly StoredChange[];
  listen(resource: Resource, listener: (change: StoredChange) => void): () => void;
}

export function createFakeStore(clock: Pick<Clock, 'now'>): FakeStore {
  const tables = new Map<string, Table>();
  let version = 1;

  const tableOf = (resource: Resource): Table => {
    const path = collectionPath(resource, undefined);
    const known = tables.get(path);
    if (known) return known;
    const table: Table = { objects: new Map(), history: [], listeners: new Set() };
    tables.set(path, table);
    return table;
  };

  const commit = (table: Table, change: StoredChange): void => {
    table.history.push(change);
    for (const listener of table.listeners) listener(change);
  };

  return {
    get version() {
      return version;
    },
    oldest: 0,
    get: (resource, key) => tableOf(resource).objects.get(key),
    list: (resource) =>
      [...tableOf(resource).objects.values()].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : keyOf(a) > keyOf(b) ? 1 : 0)),
    put(resource, object) {
      const table = tableOf(resource);
      const key = keyOf(object);
      const before = table.objects.get(key);
      version++;
      const after: KubeObject = structuredClone({
        ...object,
        apiVersion: resource.group === '' ? resource.version : `${resource.group}/${resource.version}`,
        kind: resource.kind,
        metadata: {
          ...object.metadata,
          uid: object.metadata.uid ?? before?.metadata.uid ?? randomUUID(),
          creationTimestamp: object.metadata.creationTimestamp ?? secondsOf(clock.now()),
          resourceVersion: String(version),
        },
      });
      table.objects.set(key, after);
      commit(table, { version, before, after });
      return after;
    },
    drop(resource, key) {
      const table = tableOf(resource);
      const before = table.objects.get(key);
      if (!before) return;
      version++;
      table.objects.delete(key);
      const last = { ...before, metadata: { ...before.metadata, resourceVersion: String(version) } };
      commit(table, { version, before: last, after: undefined });
    },
    since: (resource, from) => tableOf(resource).history.filter((change) => change.version > from),
    listen(resource, listener) {
      const { listeners } = tableOf(resource);
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

export const secondsOf = (nowMs: number): string => new Date(nowMs).toISOString().replace(/\.\d+Z$/, 'Z');

/** Whether an object is within a selection. Throws a SelectorError where the selection makes no sense. */
export function selected(selection: Selection): (object: KubeObject | undefined) => boolean {
  const labels = parseLabelSelector(selection.labelSelector ?? '');
  const fields = parseFieldSelector(selection.fieldSelector ?? '');
  return (object) =>
    object !== undefined &&
    (selection.namespace === undefined || object.metadata.namespace === selection.namespace) &&
    matchesRequirements(labels, object.metadata.labels) &&
    matchesFieldSelector(fields, object);
}
