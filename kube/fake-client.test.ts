import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import type { WatchEvent } from './client.ts';
import { ApiError, isAlreadyExists, isConflict, isGone, isNotFound } from './errors.ts';
import { createFakeClient } from './fake-client.ts';
import { listAll } from './list.ts';
import { resources } from './resources.ts';
import type { Pod } from './types/pod.ts';

const pod = (name: string, more: Partial<Pod['spec']> = {}): Pod =>
  ({
    metadata: { name, namespace: 'default', labels: { app: name } },
    spec: { nodeName: 'n1', containers: [{ name: 'c', image: 'i' }], ...more },
  }) as Pod;
const at = (name: string) => ({ namespace: 'default', name });

async function take<T>(events: AsyncIterable<WatchEvent<T>>, count: number): Promise<WatchEvent<T>[]> {
  const taken: WatchEvent<T>[] = [];
  for await (const event of events) {
    taken.push(event);
    if (taken.length === count) break;
  }
  return taken;
}

const brief = (event: WatchEvent<Pod>): string =>
  event.type === 'BOOKMARK'
    ? `BOOKMARK${event.initialEventsEnd ? ' end' : ''}`
    : `${event.type} ${event.object.metadata.name}`;

describe('the fake client', () => {
  it('creates, refuses a second of the same name, gets and does not find', async () => {
    const client = createFakeClient();
    const created = await client.create(resources.pods, pod('a'));
    expect(created.metadata).toMatchObject({ generation: 1, uid: expect.any(String), resourceVersion: '2' });
    await expect(client.create(resources.pods, pod('a'))).rejects.toSatisfy(isAlreadyExists);
    await expect(client.get(resources.pods, at('b'))).rejects.toSatisfy(isNotFound);
    expect((await client.get(resources.pods, at('a'))).metadata.uid).toBe(created.metadata.uid);
  });

  it('refuses an update from an old resourceVersion, and a patch of another uid', async () => {
    const client = createFakeClient();
    const [stored] = client.seed(resources.pods, pod('a'));
    await client.patch(resources.pods, at('a'), { metadata: { labels: { x: 'y' } } }, { type: 'merge' });
    await expect(client.update(resources.pods, stored!)).rejects.toSatisfy(isConflict);
    await expect(
      client.patch(resources.pods, at('a'), { metadata: { uid: 'other' } }, { type: 'merge' }),
    ).rejects.toSatisfy(isConflict);
    await expect(client.delete(resources.pods, at('a'), { preconditions: { uid: 'other' } })).rejects.toSatisfy(
      isConflict,
    );
  });

  it('keeps spec and status apart by subresource; merges conditions by type', async () => {
    const client = createFakeClient();
    client.seed(resources.pods, {
      ...pod('a'),
      status: { conditions: [{ type: 'PodScheduled', status: 'True' }] },
    } as Pod);
    const patch = {
      spec: { nodeName: 'n2' },
      status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
    };
    const after = await client.patch(resources.pods, at('a'), patch, { type: 'strategic', subresource: 'status' });
    expect(after.spec.nodeName).toBe('n1');
    expect(after.status?.conditions?.map((condition) => condition.type).sort()).toEqual(['PodScheduled', 'Ready']);
    const plain = await client.patch(resources.pods, at('a'), { status: { phase: 'Failed' } }, { type: 'merge' });
    expect(plain.status?.phase).toBe('Running');
    expect(plain.metadata.resourceVersion).toBe(after.metadata.resourceVersion);
  });

  it('deletes a running pod gracefully, at once with grace 0, and waits for finalizers', async () => {
    const clock = createFakeClock();
    const client = createFakeClient({ clock });
    client.seed(resources.pods, pod('a', { terminationGracePeriodSeconds: 5 }));
    await client.delete(resources.pods, at('a'));
    expect(client.find(resources.pods, at('a'))?.metadata).toMatchObject({
      deletionGracePeriodSeconds: 5,
      deletionTimestamp: '2026-01-01T00:00:05Z',
    });
    await client.delete(resources.pods, at('a'), { gracePeriodSeconds: 0 });
    expect(client.find(resources.pods, at('a'))).toBeUndefined();

    const held = pod('b');
    held.metadata.finalizers = ['x/y'];
    client.seed(resources.pods, held);
    await client.delete(resources.pods, at('b'), { gracePeriodSeconds: 0 });
    expect(client.find(resources.pods, at('b'))?.metadata.deletionTimestamp).toBeDefined();
    await client.patch(resources.pods, at('b'), { metadata: { finalizers: null } }, { type: 'merge' });
    expect(client.find(resources.pods, at('b'))).toBeUndefined();
  });

  it('watches from a resourceVersion, with initial events and bookmarks, through a selection', async () => {
    const client = createFakeClient();
    const [first] = client.seed(resources.pods, pod('a'));
    const controller = new AbortController();
    const from = client.watch(resources.pods, {
      signal: controller.signal,
      resourceVersion: first!.metadata.resourceVersion!,
      labelSelector: 'app',
      allowWatchBookmarks: true,
    });
    const initial = client.watch(resources.pods, { signal: controller.signal, sendInitialEvents: true });
    const events = take(from, 5);
    const all = take(initial, 3);
    await Promise.resolve();
    client.seed(resources.pods, pod('b'));
    await client.patch(resources.pods, at('a'), { metadata: { labels: { x: 'y' } } }, { type: 'merge' });
    await client.patch(resources.pods, at('a'), { metadata: { labels: { app: null } } }, { type: 'merge' });
    client.bookmark();
    client.remove(resources.pods, at('b'));
    expect((await events).map(brief)).toEqual(['ADDED b', 'MODIFIED a', 'DELETED a', 'BOOKMARK', 'DELETED b']);
    expect((await all).map(brief)).toEqual(['ADDED a', 'BOOKMARK end', 'ADDED b']);
    expect(client.openWatches).toBe(0);
  });

  it('says gone where the history is too old, and ends or breaks watches when told', async () => {
    const client = createFakeClient();
    const [first] = client.seed(resources.pods, pod('a'));
    client.seed(resources.pods, pod('b'));
    client.expireHistory();
    const { signal } = new AbortController();
    await expect(
      take(client.watch(resources.pods, { signal, resourceVersion: first!.metadata.resourceVersion! }), 1),
    ).rejects.toSatisfy(isGone);
    const broken = take(client.watch(resources.pods, { signal }), 9);
    await Promise.resolve();
    client.endWatches(new ApiError('unreachable', 'gone away'));
    await expect(broken).rejects.toThrow('gone away');
  });

  it('fails, holds and answers as told', async () => {
    const client = createFakeClient();
    client.failNext((call) => call.verb === 'create', new ApiError('server', 'no'));
    await expect(client.create(resources.pods, pod('a'))).rejects.toThrow('no');
    const release = client.holdNext((call) => call.verb === 'create');
    const held = client.create(resources.pods, pod('a'));
    await Promise.resolve();
    expect(client.objects(resources.pods)).toEqual([]);
    release();
    await held;
    client.answer(
      (call) => call.subresource === 'token',
      () => ({ status: { token: 't' } }),
    );
    const token = await client.create(
      resources.serviceAccounts,
      { metadata: { name: 'x', namespace: 'default' } },
      { subresource: 'token' },
    );
    expect(token).toEqual({ status: { token: 't' } });
    expect(client.calls.map((call) => call.verb)).toEqual(['create', 'create', 'create']);
  });

  it('lists in pages', async () => {
    const client = createFakeClient();
    for (let count = 0; count < 7; count++) client.seed(resources.pods, pod(`p${count}`));
    const page = await client.list(resources.pods, { limit: 3 });
    expect(page.items).toHaveLength(3);
    expect(page.metadata.continue).toBeDefined();
    expect((await listAll(client, resources.pods, { limit: 3 })).items).toHaveLength(7);
    client.failNext(
      (call) => 'continue' in call.options && call.options.continue !== undefined,
      new ApiError('gone', 'expired'),
    );
    expect((await listAll(client, resources.pods, { limit: 3 })).items).toHaveLength(7);
  });
});
