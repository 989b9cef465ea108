// What stands behind the fake client: objects by resource, one count of resourceVersions, and the history that watches read.
import { randomUUID } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import { apiVersionOf, collectionPath } from './api-path.ts';
import type { Selection } from './client.ts';
import { createHistory, type PastChange } from './history.ts';
import type { Resource } from './resources.ts';
import { matchesFieldSelector, matchesRequirements, parseFieldSelector, parseLabelSelector } from './selectors.ts';
import { keyOf } from './store.ts';
import type { KubeObject } from './types/meta.ts';

export interface StoredChange {
  readonly version: number;
  readonly before: KubeObject | undefined;
  readonly after: KubeObject | undefined;
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
  const history = createHistory(1);
  const tableOf = (resource: Resource) => history.collection(collectionPath(resource, undefined));
  const changeOf = ({ type, version, object, previous }: PastChange<KubeObject>): StoredChange =>
    type === 'DELETED' ? { version, before: object, after: undefined } : { version, before: previous, after: object };
  return {
    get version() {
      return history.version();
    },
    oldest: 0,
    get: (resource, key) => tableOf(resource).get(key),
    list: (resource) => tableOf(resource).list(),
    put(resource, object) {
      const table = tableOf(resource);
      const before = table.get(keyOf(object));
      const uid = object.metadata.uid ?? before?.metadata.uid ?? randomUUID();
      const creationTimestamp = object.metadata.creationTimestamp ?? secondsOf(clock.now());
      const metadata = { ...object.metadata, uid, creationTimestamp };
      const { kind } = resource;
      return table.put(structuredClone({ ...object, apiVersion: apiVersionOf(resource), kind, metadata }));
    },
    drop(resource, key) {
      const before = tableOf(resource).get(key);
      if (before) tableOf(resource).remove(before);
    },
    since: (resource, from) => (tableOf(resource).since(from) ?? []).map(changeOf),
    listen: (resource, listener) => tableOf(resource).subscribe((change) => listener(changeOf(change))),
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
