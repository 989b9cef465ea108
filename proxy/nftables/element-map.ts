// A map for hundreds of thousands of elements: many small maps in place of a big one, which stands still for 40 to 80 ms each time it has to grow
// or shrink from 131,072 entries on. The order is not that in which entries came.
import type { ElementId } from './names.ts';

/** What is needed of a Map; a small one may well be one. */
export interface ElementMap<V> extends Iterable<readonly [ElementId, V]> {
  readonly size: number;
  get(id: ElementId): V | undefined;
  has(id: ElementId): boolean;
  set(id: ElementId, value: V): unknown;
  delete(id: ElementId): boolean;
  keys(): Iterable<ElementId>;
}

const shardCount = 64;

// Ids differ at their end: the index of an endpoint, ports, the last bytes of an address.
function shardOf(id: ElementId): number {
  let mixed = id.length;
  for (let at = Math.max(0, id.length - 24); at < id.length; at++) mixed = (mixed * 31 + id.charCodeAt(at)) | 0;
  return ((mixed ^ (mixed >>> 15)) >>> 0) % shardCount;
}

export function createElementMap<V>(entries: Iterable<readonly [ElementId, V]> = []): ElementMap<V> {
  const shards: (Map<ElementId, V> | undefined)[] = [];
  let size = 0;
  const map: ElementMap<V> = {
    get size() {
      return size;
    },
    get: (id) => shards[shardOf(id)]?.get(id),
    has: (id) => shards[shardOf(id)]?.has(id) ?? false,
    set(id, value) {
      const at = shardOf(id);
      const shard = shards[at] ?? new Map<ElementId, V>();
      shards[at] = shard;
      const before = shard.size;
      shard.set(id, value);
      size += shard.size - before;
    },
    delete(id) {
      const gone = shards[shardOf(id)]?.delete(id) ?? false;
      if (gone) size--;
      return gone;
    },
    *keys() {
      for (const shard of shards) if (shard) yield* shard.keys();
    },
    *[Symbol.iterator]() {
      for (const shard of shards) if (shard) yield* shard;
    },
  };
  for (const [id, value] of entries) map.set(id, value);
  return map;
}
