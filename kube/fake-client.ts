// The API server's fake: a KubeClient over a store in memory, with resourceVersions, watches, conflicts, graceful deletion and the status
// subresource as the real one has them. For unit tests; what it does beyond KubeClient seeds it, looks into it and makes it fail.
import { type Clock, systemClock } from '../lib/clock.ts';
import { objectPath } from './api-path.ts';
import type { KubeClient, ObjectName, WatchOptions, WriteOptions } from './client.ts';
import { createContact } from './contact.ts';
import { ApiError } from './errors.ts';
import { createFakeStore, selected } from './fake-store.ts';
import { fakeWatch } from './fake-watch.ts';
import {
  conflict,
  createObject,
  keyOfName,
  patchObject,
  refuse,
  removeObject,
  withName,
  writeObject,
} from './fake-writes.ts';
import type { Resource } from './resources.ts';
import { applyMergePatch } from './strategic-merge.ts';
import type { KubeObject } from './types/meta.ts';

export type FakeVerb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete' | 'raw';

/** One call of the client, as a test sees it. */
export interface FakeCall {
  readonly verb: FakeVerb;
  /** Undefined for `raw`. */
  readonly resource: Resource | undefined;
  readonly namespace: string | undefined;
  /** Undefined for list, watch and a create without subresource of a generated name. For `raw`, the path. */
  readonly name: string | undefined;
  readonly subresource: string | undefined;
  /** The object or patch that was sent. */
  readonly body: unknown;
  readonly options: object;
}

export interface FakeClient extends KubeClient {
  /** Puts objects there as another client would: watches see them. Returns them as stored. */
  seed<T extends KubeObject>(resource: Resource<T>, ...objects: T[]): T[];
  /** Takes an object away at once, whatever its finalizers or grace. */
  remove(resource: Resource, name: ObjectName): void;
  find<T extends KubeObject>(resource: Resource<T>, name: ObjectName): T | undefined;
  objects<T extends KubeObject>(resource: Resource<T>): T[];
  /** Every call so far, failed ones too. */
  readonly calls: readonly FakeCall[];
  /** The next `times` (default 1) calls that match reject with the error. */
  failNext(predicate: (call: FakeCall) => boolean, error: unknown, times?: number): void;
  /** Calls that match wait until the returned function is called. */
  holdNext(predicate: (call: FakeCall) => boolean): () => void;
  /** Answers the calls that match itself, for example a `token` subresource. Returns a function that takes the answer away. */
  answer(predicate: (call: FakeCall) => boolean, answer: (call: FakeCall) => unknown): () => void;
  /** Sends a bookmark to every watch that allows them. */
  bookmark(): void;
  /** Ends every watch: by an error, or as the server does after its timeout where none is given. */
  endWatches(error?: unknown): void;
  /** How many watches are open. */
  readonly openWatches: number;
  /** Makes every resourceVersion so far too old: a watch from one answers 410. */
  expireHistory(): void;
}

export interface FakeClientOptions {
  /** Default: the system's. */
  readonly clock?: Clock;
}

export function createFakeClient(options: FakeClientOptions = {}): FakeClient {
  const clock = options.clock ?? systemClock;
  const store = createFakeStore(clock);
  const calls: FakeCall[] = [];
  const faults: { predicate: (call: FakeCall) => boolean; error: unknown; left: number }[] = [];
  const holds: { predicate: (call: FakeCall) => boolean; until: Promise<void> }[] = [];
  const answers = new Set<{ predicate: (call: FakeCall) => boolean; answer: (call: FakeCall) => unknown }>();
  const watches = new Set<{ end(error?: unknown): void; bookmark(): void }>();
  const contact = createContact(clock);
  let closed = false;

  const note = (call: FakeCall): void => {
    calls.push(call);
    if (closed) throw new ApiError('unreachable', `${call.verb} ${call.name}: the client is closed`);
    const fault = faults.find(({ predicate, left }) => left > 0 && predicate(call));
    if (!fault) {
      contact.answered();
      return;
    }
    fault.left--;
    throw fault.error;
  };

  const run = async <R>(call: FakeCall, signal: AbortSignal | undefined, work: () => unknown): Promise<R> => {
    signal?.throwIfAborted();
    const held = holds.findIndex(({ predicate }) => predicate(call));
    const until = held < 0 ? undefined : holds.splice(held, 1)[0]!.until;
    note(call);
    await until;
    signal?.throwIfAborted();
    for (const { predicate, answer } of answers) if (predicate(call)) return structuredClone(await answer(call)) as R;
    return structuredClone(work()) as R;
  };

  const callOf = (verb: FakeVerb, resource: Resource, name: Partial<ObjectName>, opts: object, body?: unknown) => ({
    verb,
    resource,
    namespace: name.namespace,
    name: name.name,
    subresource: (opts as WriteOptions).subresource,
    body: structuredClone(body),
    // A signal that aborted holds the stack of what aborted it, and with that whole agents that a test has ended.
    options: { ...opts, signal: undefined },
  });

  const found = (verb: FakeVerb, resource: Resource, name: ObjectName): KubeObject => {
    const object = store.get(resource, keyOfName(resource, name));
    if (object) return object;
    const what = `${verb} ${objectPath(resource, name)}`;
    throw refuse('not-found', 404, 'NotFound', what, `${resource.plural} "${name.name}" not found`);
  };

  return {
    contact,
    get: (resource, name, opts = {}) =>
      run(callOf('get', resource, name, opts), opts.signal, () => found('get', resource, name)),

    list: (resource, opts = {}) =>
      run(callOf('list', resource, opts, opts), opts.signal, () => {
        const all = store.list(resource).filter(selected(opts));
        const from = opts.continue ? Number(opts.continue) : 0;
        const until = opts.limit ? from + opts.limit : all.length;
        const metadata = { resourceVersion: String(store.version) };
        return {
          kind: `${resource.kind}List`,
          metadata:
            until < all.length
              ? { ...metadata, continue: String(until), remainingItemCount: all.length - until }
              : metadata,
          items: all.slice(from, until),
        };
      }),

    watch<T extends KubeObject>(resource: Resource<T>, opts: WatchOptions) {
      return fakeWatch<T>(
        { store, clock, watches, note: () => note(callOf('watch', resource, opts, opts)) },
        resource,
        opts,
      );
    },

    create: (resource, object, opts = {}) =>
      run(callOf('create', resource, object.metadata, opts, object), opts.signal, () =>
        createObject(store, resource, object, opts),
      ),

    update: (resource, object, opts = {}) =>
      run(callOf('update', resource, object.metadata, opts, object), opts.signal, () => {
        const before = found('update', resource, object.metadata);
        return writeObject(store, 'update', resource, before, object, opts);
      }),

    patch: (resource, name, patch, opts) =>
      run(callOf('patch', resource, name, opts, patch), opts.signal, () => {
        if (opts.type === 'apply' && !store.get(resource, keyOfName(resource, name)))
          return createObject(store, resource, withName(applyMergePatch({}, patch), name), {});
        const before = found('patch', resource, name);
        return writeObject(store, 'patch', resource, before, patchObject(before, patch, resource, name, opts), opts);
      }),

    delete: (resource, name, opts = {}) =>
      run(callOf('delete', resource, name, opts), opts.signal, () => {
        const object = found('delete', resource, name);
        const { uid, resourceVersion } = opts.preconditions ?? {};
        const wrong =
          uid !== undefined && uid !== object.metadata.uid
            ? `the UID in the precondition (${uid}) does not match the UID in record (${object.metadata.uid})`
            : resourceVersion !== undefined && resourceVersion !== object.metadata.resourceVersion
              ? `the ResourceVersion in the precondition (${resourceVersion}) does not match the one in record`
              : undefined;
        if (wrong !== undefined) throw conflict('delete', resource, name, `Precondition failed: ${wrong}`);
        removeObject(store, clock, resource, object, opts.gracePeriodSeconds);
      }),

    raw: (method, path, opts = {}) =>
      run(
        {
          verb: 'raw',
          resource: undefined,
          namespace: undefined,
          name: path,
          subresource: undefined,
          body: opts.body,
          options: { ...opts, method },
        },
        opts.signal,
        () => {
          if (path === '/version') return JSON.stringify({ major: '1', minor: '36', gitVersion: 'v1.36.0-fake' });
          if (['/healthz', '/livez', '/readyz'].includes(path.split('?')[0]!)) return 'ok';
          throw refuse(
            'not-found',
            404,
            'NotFound',
            `${method} ${path}`,
            'the server could not find the requested resource',
          );
        },
      ),

    async close() {
      closed = true;
      for (const watch of watches) watch.end(new ApiError('unreachable', 'watch: the client was closed'));
    },

    seed: (resource, ...objects) =>
      objects.map((object) => structuredClone(store.put(resource, object)) as typeof object),
    remove: (resource, name) => store.drop(resource, keyOfName(resource, name)),
    find: <T extends KubeObject>(resource: Resource<T>, name: ObjectName) =>
      structuredClone(store.get(resource, keyOfName(resource, name))) as T | undefined,
    objects: <T extends KubeObject>(resource: Resource<T>) => structuredClone(store.list(resource)) as T[],
    calls,
    failNext: (predicate, error, times = 1) => void faults.push({ predicate, error, left: times }),
    holdNext(predicate) {
      const { promise, resolve } = Promise.withResolvers<void>();
      holds.push({ predicate, until: promise });
      return resolve;
    },
    answer(predicate, answer) {
      const entry = { predicate, answer };
      answers.add(entry);
      return () => void answers.delete(entry);
    },
    bookmark() {
      for (const watch of watches) watch.bookmark();
    },
    endWatches(error) {
      for (const watch of [...watches]) watch.end(error);
    },
    get openWatches() {
      return watches.size;
    },
    expireHistory() {
      store.oldest = store.version;
    },
  };
}
