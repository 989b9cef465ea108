// ServiceCIDRs as they come, and API servers that do not tell.
import { describe, expect, it } from 'vitest';
import type { KubeClient } from '../kube/client.ts';
import { ApiError } from '../kube/errors.ts';
import { createFakeClient } from '../kube/fake-client.ts';
import { resources } from '../kube/resources.ts';
import { createFakeClock } from '../lib/fake-clock.ts';
import { createLog } from '../lib/log.ts';
import { createServiceCidrs } from './service-cidrs.ts';

/** `speaks`: watches say nothing before. */
function setUp(speaks: Promise<void> = Promise.resolve()) {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  const lines: string[] = [];
  const log = createLog({ level: 'debug', format: 'text', write: (line) => lines.push(line) });
  const seen: string[] = [];
  const stop = new AbortController();
  const slow: KubeClient = {
    ...client,
    async *watch(resource, options) {
      await speaks;
      yield* client.watch(resource, options);
    },
  };
  const cidrs = createServiceCidrs({ client: slow, clock, log, onChange: () => seen.push(cidrs.networks().join(' ')) });
  const set = (name: string, ...networks: string[]) =>
    client.seed(resources.serviceCidrs, { metadata: { name }, spec: { cidrs: networks } });
  let settled = false;
  return {
    clock,
    client,
    cidrs,
    lines,
    seen,
    set,
    isSettled: () => settled,
    async start() {
      const done = cidrs.run(stop.signal);
      const settling = cidrs.settled(1_000, stop.signal).then(
        () => (settled = true),
        () => undefined,
      );
      await clock.advance(0);
      return async () => {
        stop.abort();
        await clock.advance(200);
        await done;
        await settling;
      };
    },
  };
}

describe('ServiceCIDRs', () => {
  it('are those of all objects, as these come and go', async () => {
    const t = setUp();
    t.set('kubernetes', '10.96.0.0/16', 'fd00::/112');
    const end = await t.start();
    expect(t.isSettled()).toBe(true);
    t.set('more', '10.97.0.0/24');
    await t.clock.advance(0);
    t.client.remove(resources.serviceCidrs, { name: 'more' });
    await t.clock.advance(0);
    expect(t.seen).toEqual([
      '10.96.0.0/16 fd00::/112',
      '10.96.0.0/16 fd00::/112 10.97.0.0/24',
      '10.96.0.0/16 fd00::/112',
    ]);
    expect(t.lines).toEqual([]);
    await end();
  });

  it.each([
    ['not-found', 404, 'this API server has none'],
    ['forbidden', 403, 'this identity may not list them'],
    ['unreachable', undefined, 'the API server does not answer'],
  ] as const)('that cannot be read (%s) are waited for a moment and told of once', async (code, status, why) => {
    const t = setUp();
    t.client.failNext(
      ({ resource }) => resource === resources.serviceCidrs,
      new ApiError(code, 'no', { status }),
      1_000,
    );
    const end = await t.start();
    await t.clock.advance(500);
    expect(t.isSettled()).toBe(true);
    await t.clock.advance(3_600_000);
    expect(t.cidrs.networks()).toEqual([]);
    expect(t.lines).toHaveLength(1);
    expect(t.lines[0]).toContain(why);
    await end();
  });

  it('are not waited for where the server is silent, and taken when it speaks', async () => {
    const spoken = Promise.withResolvers<void>();
    const t = setUp(spoken.promise);
    t.set('kubernetes', '10.96.0.0/16');
    const end = await t.start();
    await t.clock.advance(900);
    expect(t.isSettled()).toBe(false);
    await t.clock.advance(200);
    expect(t.isSettled()).toBe(true);
    spoken.resolve();
    await t.clock.advance(0);
    expect(t.cidrs.networks()).toEqual(['10.96.0.0/16']);
    await end();
  });

  it('that could be read once stay in use while the server is away', async () => {
    const t = setUp();
    t.set('kubernetes', '10.96.0.0/16');
    const end = await t.start();
    t.client.failNext(({ resource }) => resource === resources.serviceCidrs, new ApiError('unreachable', 'no'), 1_000);
    t.client.endWatches(new ApiError('unreachable', 'no'));
    await t.clock.advance(60_000);
    expect(t.cidrs.networks()).toEqual(['10.96.0.0/16']);
    expect(t.lines).toEqual([]);
    await end();
  });
});
