// It is a map like any other, but for the order.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { createElementMap } from './element-map.ts';

it('does what a Map does', () => {
  const id = fc.integer({ min: 0, max: 40 }).map((number) => `eps-tcp 10.0.0.${number} . 80 . ${number % 3}`);
  const step = fc.oneof(
    fc.record({ kind: fc.constant('set' as const), id, value: fc.nat() }),
    fc.record({ kind: fc.constant('delete' as const), id }),
  );
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const [map, model] = [createElementMap<number>(), new Map<string, number>()];
      for (const one of steps) {
        if (one.kind === 'delete') expect(map.delete(one.id)).toBe(model.delete(one.id));
        else {
          map.set(one.id, one.value);
          model.set(one.id, one.value);
        }
        expect([map.get(one.id), map.has(one.id), map.size]).toEqual([
          model.get(one.id),
          model.has(one.id),
          model.size,
        ]);
      }
      expect([...map].sort()).toEqual([...model].sort());
      expect([...map.keys()].sort()).toEqual([...model.keys()].sort());
    }),
  );
});

it('may lose entries while it is gone through', () => {
  const map = createElementMap(Array.from({ length: 500 }, (_, at) => [`svc ${at}`, at] as const));
  for (const [id] of map) map.delete(id);
  expect([map.size, [...map]]).toEqual([0, []]);
});

it('spreads ids that differ in address or index over its parts', () => {
  // No part may come near the size at which a map takes long to grow.
  const counts = new Map<number, number>();
  const real = Map.prototype.set;
  const seen = new Set<Map<unknown, unknown>>();
  Map.prototype.set = function set(key, value) {
    if (typeof key === 'string' && key.startsWith('eps-tcp')) seen.add(this);
    return real.call(this, key, value);
  };
  try {
    const map = createElementMap<string>();
    for (let at = 0; at < 20_000; at++)
      map.set(`eps-tcp 10.96.${(at / 10) >> 8}.${Math.floor(at / 10) & 255} . 80 . ${at % 10}`, '');
  } finally {
    Map.prototype.set = real;
  }
  for (const shard of seen) real.call(counts, shard.size, 1);
  expect(seen.size).toBe(64);
  expect(Math.max(...counts.keys())).toBeLessThan((20_000 / 64) * 2);
});
