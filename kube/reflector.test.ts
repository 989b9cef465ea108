import { afterEach, describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import type { Log, LogFields } from '../lib/log.ts';
import type { WatchOptions } from './client.ts';
import { ApiError } from './errors.ts';
import { createFakeClient, type FakeCall, type FakeClient } from './fake-client.ts';
import { createReflector } from './reflector.ts';
import { resources } from './resources.ts';
import type { Change } from './store.ts';
import type { ConfigMap } from './types/core.ts';

const map = (name: string, value = '1'): ConfigMap => ({ metadata: { name, namespace: 'default' }, data: { value } });
const at = (name: string) => ({ namespace: 'default', name });
const unreachable = (): ApiError => new ApiError('unreachable', 'no answer');
const isWatch = (call: FakeCall): boolean => call.verb === 'watch';

let stop: (() => Promise<void>) | undefined;
afterEach(async () => {
  await stop?.();
});

function start(prepare: (client: FakeClient) => void = () => undefined) {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  prepare(client);
  const lines: string[] = [];
  const failures: unknown[] = [];
  const line = (level: string) => (message: string, _fields?: LogFields) => void lines.push(`${level} ${message}`);
  const log: Log = {
    debug: () => undefined,
    info: line('info'),
    warn: line('warn'),
    error: line('error'),
    with: () => log,
  };
  const changes: string[] = [];
  let syncs = 0;
  const describeChange = ({ key, before, after }: Change<ConfigMap>): string =>
    `${before ? (after ? 'changed' : 'gone') : 'new'} ${key}${after ? ` ${after.data?.value}` : ''}`;
  const reflector = createReflector(
    { client, clock, log },
    {
      resource: resources.configMaps,
      onChange: (change) => void changes.push(describeChange(change)),
      onSync: () => void syncs++,
      onFailure: (error) => void failures.push(error),
    },
  );
  const controller = new AbortController();
  const run = reflector.run(controller.signal);
  stop = async () => {
    controller.abort(new Error('test over'));
    await clock.advance(0);
    await run;
  };
  return { clock, client, reflector, changes, lines, failures, syncs: () => syncs };
}

describe('the reflector', () => {
  it('holds what is there, then follows', async () => {
    const { clock, client, reflector, changes, syncs } = start();
    client.seed(resources.configMaps, map('a'));
    await clock.advance(0);
    expect(reflector.synced).toBe(true);
    await reflector.waitForSync(new AbortController().signal);
    client.seed(resources.configMaps, map('b'), map('a', '2'));
    client.remove(resources.configMaps, at('b'));
    await clock.advance(0);
    expect(changes).toEqual(['new default/a 1', 'new default/b 1', 'changed default/a 2', 'gone default/b']);
    expect(reflector.store.list().map((object) => object.metadata.name)).toEqual(['a']);
    expect(syncs()).toBe(1);
    expect(client.calls.map((call) => call.verb)).toEqual(['watch']);
  });

  it('lists in pages where the server refuses to stream', async () => {
    const { clock, client, reflector } = start((fake) => {
      fake.seed(resources.configMaps, map('a'));
      fake.failNext(isWatch, new ApiError('invalid', 'sendInitialEvents is forbidden', { status: 422 }));
    });
    await clock.advance(10);
    expect(client.calls.map((call) => call.verb)).toEqual(['watch', 'list', 'watch']);
    expect(reflector.store.size).toBe(1);
    client.seed(resources.configMaps, map('b'));
    await clock.advance(0);
    expect(reflector.store.size).toBe(2);
  });

  it('asks for pages where the bookmark that ends the list never comes', async () => {
    const { clock, reflector } = start((fake) => {
      fake.seed(resources.configMaps, map('a'));
      const watch = fake.watch.bind(fake);
      let first = true;
      Object.assign(fake, {
        watch(resource: typeof resources.configMaps, options: WatchOptions) {
          const { sendInitialEvents: _, ...rest } = options;
          const silent = first;
          first = false;
          return watch(resource, silent ? rest : options);
        },
      });
    });
    await clock.advance(14_000);
    expect(reflector.synced).toBe(false);
    await clock.advance(2000);
    expect(reflector.synced).toBe(true);
  });

  it('goes on from where it was when a watch breaks, at once, and tells nobody', async () => {
    const { clock, client, changes, lines, syncs } = start();
    client.seed(resources.configMaps, map('a'));
    await clock.advance(6000);
    client.endWatches(unreachable());
    client.seed(resources.configMaps, map('b'));
    client.remove(resources.configMaps, at('a'));
    await clock.advance(200);
    expect(changes).toEqual(['new default/a 1', 'new default/b 1', 'gone default/a']);
    expect(syncs()).toBe(1);
    expect(lines).toEqual([]);
    expect(client.openWatches).toBe(1);
  });

  it('lists anew after 410 and deletes what is no longer there', async () => {
    const { clock, client, reflector, changes, syncs } = start();
    client.seed(resources.configMaps, map('a'), map('b'));
    await clock.advance(6000);
    client.endWatches(unreachable());
    client.remove(resources.configMaps, at('a'));
    client.seed(resources.configMaps, map('b', '2'), map('c'));
    client.expireHistory();
    await clock.advance(300);
    expect(
      reflector.store
        .list()
        .map((object) => object.metadata.name)
        .sort(),
    ).toEqual(['b', 'c']);
    expect(changes.slice(2)).toEqual(['gone default/a', 'changed default/b 2', 'new default/c 1']);
    expect(syncs()).toBe(2);
  });

  it('lives through an hour without a server, says so twice, and asks ever less often', async () => {
    const { clock, client, reflector, lines, failures } = start();
    client.seed(resources.configMaps, map('a'));
    await clock.advance(6000);
    client.failNext(() => true, unreachable(), Number.POSITIVE_INFINITY);
    client.endWatches(unreachable());
    const before = client.calls.length;
    await clock.advance(3_600_000);
    const tries = client.calls.length - before;
    expect(tries).toBeGreaterThan(70);
    expect(tries).toBeLessThan(140);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^warn lost contact/);
    expect(failures).toHaveLength(1);
    expect(reflector.store.size).toBe(1);
  });

  it('says once that the server is back', async () => {
    const { clock, client, lines, reflector } = start();
    client.seed(resources.configMaps, map('a'));
    await clock.advance(6000);
    client.failNext(() => true, unreachable(), 4);
    client.endWatches(unreachable());
    await clock.advance(60_000);
    client.seed(resources.configMaps, map('b'));
    await clock.advance(10);
    expect(lines.map((line) => line.split(';')[0])).toEqual([
      'warn lost contact with the API server',
      'info the API server answers again',
    ]);
    expect(reflector.store.size).toBe(2);
    expect(clock.monotonicMs() - reflector.lastContactMs()!).toBeLessThan(100);
  });

  it('says what is refused', async () => {
    const { clock, lines, failures, reflector } = start((fake) =>
      fake.failNext(() => true, new ApiError('forbidden', 'configmaps is forbidden', { status: 403 }), 9),
    );
    await clock.advance(5000);
    expect(lines[0]).toMatch(/^warn the API server refuses/);
    expect(failures[0]).toMatchObject({ code: 'forbidden' });
    expect(reflector.synced).toBe(false);
  });

  it('starts anew, without haste, when the server ends the watch', async () => {
    const { clock, client, reflector } = start();
    await clock.advance(700_000);
    expect(client.calls.length).toBeGreaterThanOrEqual(2);
    expect(client.calls.length).toBeLessThanOrEqual(4);
    client.seed(resources.configMaps, map('a'));
    await clock.advance(0);
    expect(reflector.store.size).toBe(1);
  });
});
