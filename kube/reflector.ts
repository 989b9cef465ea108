// Keeps a store equal to what the API server has: list (streamed where the server can), watch with bookmarks, reconnect with back-off.
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { KubeClient, Selection } from './client.ts';
import type { Resource } from './resources.ts';
import type { Change, Index, ReadStore } from './store.ts';
import type { KubeObject } from './types/meta.ts';

export interface ReflectorDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
}

export interface ReflectorOptions<T extends KubeObject> {
  readonly resource: Resource<T>;
  readonly selection?: Selection;
  readonly indexes?: Readonly<Record<string, Index<T>>>;
  /** Called at once for every change, in order. A replaced object (same name, other uid) comes as one change: compare uids. */
  onChange?(change: Change<T>): void;
  /** Called once the store holds everything for the first time, and again after each relist. */
  onSync?(): void;
}

export interface Reflector<T extends KubeObject> {
  readonly store: ReadStore<T>;
  /** True once the store has held all objects. */
  readonly synced: boolean;
  /** Resolves when `synced` becomes true. */
  waitForSync(signal: AbortSignal): Promise<void>;
  /** Milliseconds on the monotonic clock since the server was last heard; undefined before the first time. */
  lastContactMs(): number | undefined;
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

export type CreateReflector = <T extends KubeObject>(deps: ReflectorDeps, options: ReflectorOptions<T>) => Reflector<T>;
