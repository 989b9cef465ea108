import { afterEach, describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import { ApiError, isForbidden } from './errors.ts';
import { createFakeClient } from './fake-client.ts';
import { createObjectCache, type OwnedObjectCache } from './object-cache.ts';
import { resources } from './resources.ts';
import type { ConfigMap } from './types/core.ts';

const at = (name: string) => ({ namespace: 'default', name });
const map = (name: string, value = '1', immutable?: boolean): ConfigMap => ({
  metadata: at(name),
  data: { value },
  ...(immutable === undefined ? {} : { immutable }),
});

let cache: OwnedObjectCache;
afterEach(() => cache.stop());

function start() {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  cache = createObjectCache({ client, clock, log: silentLog });
  const told: string[] = [];
  cache.subscribe((holder, resource, name, object) =>
    told.push(`${holder} ${resource.plural}/${name.name} ${(object as ConfigMap | undefined)?.data?.value ?? 'gone'}`),
  );
  const verbs = (): string[] => client.calls.map((call) => call.verb);
  return { clock, client, told, verbs };
}

describe('the object cache', () => {
  it('reads, then watches for every holder, and answers from the cache', async () => {
    const { clock, client, told, verbs } = start();
    client.seed(resources.configMaps, map('a'));
    expect((await cache.get(resources.configMaps, at('a'), 'p1'))?.data).toEqual({ value: '1' });
    expect((await cache.get(resources.configMaps, at('a'), 'p2'))?.data).toEqual({ value: '1' });
    await clock.advance(0);
    expect(verbs()).toEqual(['get', 'watch']);
    expect(client.calls[1]?.options).toMatchObject({ fieldSelector: 'metadata.name=a', namespace: 'default' });
    client.seed(resources.configMaps, map('a', '2'), map('b'));
    client.remove(resources.configMaps, at('a'));
    client.seed(resources.configMaps, map('a', '3'));
    await clock.advance(0);
    expect(told).toEqual([
      'p1 configmaps/a 2',
      'p2 configmaps/a 2',
      'p1 configmaps/a gone',
      'p2 configmaps/a gone',
      'p1 configmaps/a 3',
      'p2 configmaps/a 3',
    ]);
    expect((await cache.get(resources.configMaps, at('a'), 'p1'))?.data).toEqual({ value: '3' });
  });

  it('sees a missing object at once when it is created', async () => {
    const { clock, client, told } = start();
    expect(await cache.get(resources.configMaps, at('a'), 'p1')).toBeUndefined();
    await clock.advance(0);
    client.seed(resources.configMaps, map('a'));
    await clock.advance(0);
    expect(told).toEqual(['p1 configmaps/a 1']);
  });

  it('asks again for a moment where it is forbidden, then says so and holds nothing', async () => {
    const { clock, client, verbs } = start();
    client.seed(resources.configMaps, map('a'));
    const forbidden = new ApiError('forbidden', 'no relationship found', { status: 403 });
    client.failNext((call) => call.verb === 'get', forbidden, 3);
    const got = cache.get(resources.configMaps, at('a'), 'p1');
    await clock.advance(400);
    expect((await got)?.data).toEqual({ value: '1' });
    expect(verbs().filter((verb) => verb === 'get')).toHaveLength(4);

    client.failNext((call) => call.verb === 'get', forbidden, 100);
    const refused = cache.get(resources.configMaps, at('b'), 'p1');
    const outcome = expect(refused).rejects.toSatisfy(isForbidden);
    await clock.advance(5000);
    await outcome;
    expect(cache.size).toBe(1);
  });

  it('does not watch what is immutable', async () => {
    const { clock, client, verbs } = start();
    client.seed(resources.configMaps, map('a', '1', true));
    await cache.get(resources.configMaps, at('a'), 'p1');
    await clock.advance(20_000);
    expect(verbs()).toEqual(['get']);
    expect((await cache.get(resources.configMaps, at('a'), 'p2'))?.data).toEqual({ value: '1' });
    expect(verbs()).toEqual(['get']);
  });

  it('stops watching some seconds after the last holder let go', async () => {
    const { clock, client, verbs } = start();
    client.seed(resources.configMaps, map('a'));
    await cache.get(resources.configMaps, at('a'), 'p1');
    await cache.get(resources.configMaps, at('a'), 'p2');
    await clock.advance(0);
    cache.release('p1');
    await clock.advance(60_000);
    expect(client.openWatches).toBe(1);
    cache.release('p2');
    await clock.advance(2000);
    await cache.get(resources.configMaps, at('a'), 'p3');
    await clock.advance(60_000);
    expect(client.openWatches).toBe(1);
    cache.release('p3');
    await clock.advance(6000);
    expect(client.openWatches).toBe(0);
    expect(cache.size).toBe(0);
    expect(verbs()).toEqual(['get', 'watch']);
  });

  it('notices after a break what changed and what went meanwhile', async () => {
    const { clock, client, told } = start();
    client.seed(resources.configMaps, map('a'), map('b'));
    await cache.get(resources.configMaps, at('a'), 'p1');
    await cache.get(resources.configMaps, at('b'), 'p1');
    await clock.advance(0);
    client.failNext((call) => call.verb === 'watch', new ApiError('unreachable', 'away'), 6);
    client.endWatches(new ApiError('unreachable', 'broke'));
    client.remove(resources.configMaps, at('a'));
    client.seed(resources.configMaps, map('b', '2'));
    client.expireHistory();
    await clock.advance(60_000);
    expect(told.sort()).toEqual(['p1 configmaps/a gone', 'p1 configmaps/b 2']);
  });

  it('follows also where the server cannot begin a watch with the state', async () => {
    const { clock, client, told } = start();
    client.failNext(
      (call) => call.verb === 'watch' && 'sendInitialEvents' in call.options,
      new ApiError('invalid', 'sendInitialEvents is forbidden', { status: 422 }),
      100,
    );
    client.seed(resources.configMaps, map('a'));
    await cache.get(resources.configMaps, at('a'), 'p1');
    await clock.advance(0);
    client.seed(resources.configMaps, map('a', '2'));
    await clock.advance(0);
    client.endWatches(new ApiError('gone', 'too old', { status: 410 }));
    client.remove(resources.configMaps, at('a'));
    await clock.advance(1000);
    expect(told).toEqual(['p1 configmaps/a 2', 'p1 configmaps/a gone']);
  });
});
