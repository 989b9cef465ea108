// The door to the API server. Its implementation (http-client.ts) speaks HTTP/2 through undici; its fake (fake-client.ts) is a store in memory.
import type { Contact } from './contact.ts';
import type { Resource } from './resources.ts';
import type { KubeList, KubeObject } from './types/meta.ts';

export interface ObjectName {
  readonly namespace?: string;
  readonly name: string;
}

export interface RequestOptions {
  readonly signal?: AbortSignal;
  /** Default 30,000; a watch has none. */
  readonly timeoutMs?: number;
}

export interface Selection {
  /** Absent: all namespaces. */
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
}

export interface ListOptions extends RequestOptions, Selection {
  readonly limit?: number;
  readonly continue?: string;
  readonly resourceVersion?: string;
  readonly resourceVersionMatch?: 'Exact' | 'NotOlderThan';
}

export interface WatchOptions extends Selection {
  readonly signal: AbortSignal;
  readonly resourceVersion?: string;
  readonly resourceVersionMatch?: 'NotOlderThan';
  readonly allowWatchBookmarks?: boolean;
  readonly sendInitialEvents?: boolean;
  /** Asks the server to end the watch after this long. */
  readonly timeoutSeconds?: number;
}

export type WatchEvent<T> =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: T }
  | { readonly type: 'BOOKMARK'; readonly resourceVersion: string; readonly initialEventsEnd: boolean };

export type PatchType = 'merge' | 'strategic' | 'json' | 'apply';

export interface WriteOptions extends RequestOptions {
  readonly subresource?: string;
  readonly fieldManager?: string;
}

export interface PatchOptions extends WriteOptions {
  readonly type: PatchType;
  readonly force?: boolean;
}

export interface DeleteOptions extends RequestOptions {
  readonly gracePeriodSeconds?: number;
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string };
  readonly propagationPolicy?: 'Orphan' | 'Background' | 'Foreground';
}

/** Every call rejects with an ApiError (errors.ts), or with the signal's reason where the caller aborted it. */
export interface KubeClient {
  get<T extends KubeObject>(
    resource: Resource<T>,
    name: ObjectName,
    options?: RequestOptions & { subresource?: string },
  ): Promise<T>;
  /** One page; `listAll` in list.ts reads them all. */
  list<T extends KubeObject>(resource: Resource<T>, options?: ListOptions): Promise<KubeList<T>>;
  /** Ends when the server ends it; throws an ApiError (code `gone` for 410) when the server says so or the connection breaks. */
  watch<T extends KubeObject>(resource: Resource<T>, options: WatchOptions): AsyncIterable<WatchEvent<T>>;
  /** `name` is needed only for a subresource. */
  create<T extends KubeObject>(resource: Resource<T>, object: T, options?: WriteOptions): Promise<T>;
  update<T extends KubeObject>(resource: Resource<T>, object: T, options?: WriteOptions): Promise<T>;
  patch<T extends KubeObject>(
    resource: Resource<T>,
    name: ObjectName,
    patch: unknown,
    options: PatchOptions,
  ): Promise<T>;
  delete(resource: Resource, name: ObjectName, options?: DeleteOptions): Promise<void>;
  /** A path of the API as it is, for what has no resource: `/version`, `/healthz`. Resolves with the body's text. */
  raw(
    method: 'GET' | 'POST',
    path: string,
    options?: RequestOptions & { body?: unknown; accept?: string },
  ): Promise<string>;
  /** Whether the server answers; absent: whoever waits for it waits alone. */
  readonly contact?: Contact;
  /** Closes the connections; calls under way reject. */
  close(): Promise<void>;
}
