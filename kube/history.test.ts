import { describe, expect, it } from 'vitest';
import { createHistory } from './history.ts';
import type { KubeObject } from './types/meta.ts';

const object = (name: string, value = 1) => ({ metadata: { name, namespace: 'n' }, value });

describe('history', () => {
  it('gives every write a version of its own, over all collections', () => {
    const storage = createHistory<KubeObject & { value: number }>(1);
    const a = storage.collection('a').put(object('x'));
    const b = storage.collection('b').put(object('x'));
    expect(Number(b.metadata.resourceVersion)).toBe(Number(a.metadata.resourceVersion) + 1);
    expect(storage.version()).toBe(Number(b.metadata.resourceVersion));
  });

  it('tells what changed since a version', () => {
    const collection = createHistory<KubeObject & { value: number }>(1).collection('a');
    const first = collection.put(object('x', 1));
    const then = Number(first.metadata.resourceVersion);
    collection.put(object('y'));
    collection.put(object('x', 2));
    collection.remove(collection.get('n/y')!);
    expect(collection.since(then)?.map(({ type, object: { metadata } }) => [type, metadata.name])).toEqual([
      ['ADDED', 'y'],
      ['MODIFIED', 'x'],
      ['DELETED', 'y'],
    ]);
    expect(collection.list().map(({ metadata, value }) => [metadata.name, value])).toEqual([['x', 2]]);
  });

  it('forgets the far past and says so', () => {
    const collection = createHistory<KubeObject & { value: number }>(1).collection('a');
    const then = Number(collection.put(object('x')).metadata.resourceVersion);
    for (let count = 0; count < 20_000; count++) collection.put(object('x', count));
    expect(collection.since(then)).toBeUndefined();
    expect(collection.since(Number(collection.get('n/x')!.metadata.resourceVersion))).toEqual([]);
  });
});
