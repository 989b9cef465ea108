import { describe, expect, it } from 'vitest';
import { createFakeClient } from '../../../kube/fake-client.ts';
import { resources } from '../../../kube/resources.ts';
import type { CsiDriver } from '../../../kube/types/volume.ts';
import { createFakeClock } from '../../../lib/fake-clock.ts';
import { silentLog } from '../../../lib/log.ts';
import { createCsiLimits } from './csi-limits.ts';

const driver = (seconds?: number): CsiDriver => ({
  metadata: { name: 'disk.example.com' },
  spec: seconds === undefined ? {} : { nodeAllocatableUpdatePeriodSeconds: seconds },
});

async function open() {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  const here = new Set<string>();
  const asked: number[] = [];
  let fails = false;
  const stop = new AbortController();
  const limits = createCsiLimits({
    client,
    clock,
    log: silentLog,
    has: (name) => here.has(name),
    async ask() {
      asked.push(clock.monotonicMs());
      if (fails) throw new Error('the driver does not answer');
    },
  });
  const running = limits.run(stop.signal);
  const began = clock.monotonicMs();
  return {
    clock,
    client,
    limits,
    /** Seconds since the beginning. */
    asked: () => asked.map((at) => (at - began) / 1000),
    failing(whether: boolean) {
      fails = whether;
    },
    async set(seconds?: number) {
      client.seed(resources.csiDrivers, driver(seconds));
      await clock.advance(0);
    },
    async register() {
      here.add('disk.example.com');
      limits.changed('disk.example.com');
      await clock.advance(0);
    },
    async deregister() {
      here.delete('disk.example.com');
      limits.changed('disk.example.com');
      await clock.advance(0);
    },
    async stop() {
      stop.abort();
      await running;
    },
  };
}

describe('how many volumes of a driver this node takes', () => {
  it('ends at once where it is stopped before it began', async () => {
    const clock = createFakeClock();
    const limits = createCsiLimits({
      client: createFakeClient({ clock }),
      clock,
      log: silentLog,
      has: () => false,
      ask: () => Promise.resolve(),
    });
    await limits.run(AbortSignal.abort());
  });

  it('is asked again as often as the cluster says, also when it did not answer', async () => {
    const it = await open();
    await it.set(30);
    await it.register();
    await it.clock.advance(30_000);
    it.failing(true);
    await it.clock.advance(30_000);
    it.failing(false);
    await it.clock.advance(31_000);
    expect(it.asked()).toEqual([30, 60, 90]);
    await it.stop();
    await it.clock.advance(100_000);
    expect(it.asked()).toHaveLength(3);
  });

  it('follows what the cluster says while the driver is here', async () => {
    const it = await open();
    await it.set();
    await it.register();
    await it.clock.advance(100_000);
    expect(it.asked()).toEqual([]);
    await it.set(20);
    await it.clock.advance(20_000);
    await it.set(50);
    await it.clock.advance(50_000);
    expect(it.asked()).toEqual([120, 170]);
    await it.set();
    await it.clock.advance(100_000);
    expect(it.asked()).toHaveLength(2);
    await it.set(20);
    await it.deregister();
    await it.clock.advance(100_000);
    expect(it.asked()).toHaveLength(2);
    await it.stop();
  });

  it('is asked at once where a volume found no room, but not at each try, and only where the cluster wants it', async () => {
    const it = await open();
    await it.set();
    await it.register();
    expect(it.limits.exhausted('disk.example.com')).toBe(false);
    expect(it.asked()).toEqual([]);
    await it.set(3_600);
    for (let second = 0; second < 11; second++) {
      expect(it.limits.exhausted('disk.example.com')).toBe(true);
      await it.clock.advance(1_000);
    }
    expect(it.asked()).toEqual([0, 10]);
    await it.stop();
  });

  it('watches nothing on a node without drivers', async () => {
    const it = await open();
    await it.set(30);
    await it.clock.advance(60_000);
    expect(it.client.calls).toEqual([]);
    await it.stop();
    expect(it.client.calls).toEqual([]);
  });
});
