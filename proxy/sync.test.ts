// The sync loop against the fake backend, with time standing still.
import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import type { Service } from '../kube/types/core.ts';
import { createFakeBackend } from './fake-backend.ts';
import { createProxyState } from './state.ts';
import { createSync } from './sync.ts';

const service = (name: string, port = 80): Service => ({
  metadata: { namespace: 'ns', name },
  spec: { clusterIP: '10.96.0.1', ports: [{ port }] },
});
const keyOf = (name: string): string => `ns/${name}:/TCP`;

function setUp(names: readonly string[] = []) {
  const clock = createFakeClock();
  const backend = createFakeBackend();
  const refusals: string[] = [];
  const stop = new AbortController();
  const state = createProxyState({
    nodeName: 'n1',
    startedAtMs: 0,
    onDirty: (family) => family === 'IPv4' && sync.wake(),
  });
  const set = (name: string, after: Service | undefined): void =>
    state.services.change({ key: `ns/${name}`, before: undefined, after });
  const sync = createSync({
    backend,
    state,
    clock,
    log: silentLog,
    onWritten: () => undefined,
    onFailure: () => undefined,
    onRefused: (key) => refusals.push(key),
  });
  for (const name of names) set(name, service(name));
  const done = sync.run(stop.signal);
  return {
    clock,
    backend,
    sync,
    refusals,
    set,
    programmed: () => [...backend.programmed.keys()].sort(),
    end: async () => {
      stop.abort();
      await clock.advance(200);
      await done;
    },
  };
}

describe('sync', () => {
  it('writes everything first, then what changed, the first change at once', async () => {
    const t = setUp(['a', 'b']);
    expect(t.sync.synced).toBe(false);
    await t.clock.advance(0);
    expect(t.sync.synced).toBe(true);
    expect(t.backend.applied).toEqual([{ keys: [keyOf('a'), keyOf('b')], full: true }]);
    await t.clock.advance(1000);
    t.set('c', service('c'));
    await t.clock.advance(0);
    expect(t.backend.applied.at(-1)).toEqual({ keys: [keyOf('c')], full: false });
    await t.clock.advance(1000);
    t.set('a', undefined);
    await t.clock.advance(0);
    expect(t.programmed()).toEqual([keyOf('b'), keyOf('c')]);
    await t.end();
  });

  it.each(['check', 'rewrite'] as const)(
    'asked for a %s while everything is written, does it afterwards',
    async (what) => {
      const t = setUp(['a']);
      await t.clock.advance(1000);
      const writing = Promise.withResolvers<void>();
      t.backend.delay = () => writing.promise;
      t.sync.rewrite('full');
      await t.clock.advance(0);
      const under = t.backend.applied.length;
      t.backend.programmed.clear();
      if (what === 'check') t.sync.check('others were here');
      else t.sync.rewrite('full');
      await t.clock.advance(500);
      writing.resolve();
      await t.clock.advance(500);
      expect(t.backend.applied.slice(under)).toEqual([{ keys: [keyOf('a')], full: true }]);
      // And it is not deaf afterwards.
      await t.clock.advance(10_000);
      t.backend.flush();
      await t.clock.advance(500);
      expect(t.programmed()).toEqual([keyOf('a')]);
      await t.end();
    },
  );

  it('a part that is due is written though nothing is dirty, and where it fails everything is', async () => {
    const t = setUp(['a']);
    await t.clock.advance(1000);
    t.sync.rewrite('part');
    await t.clock.advance(0);
    expect(t.backend.applied.slice(1)).toEqual([{ keys: [], full: false }]);
    await t.clock.advance(1000);
    t.backend.failNext = 1;
    t.sync.rewrite('part');
    t.set('b', service('b'));
    await t.clock.advance(1000);
    expect(t.backend.applied.slice(2)).toEqual([
      { keys: [], full: false },
      { keys: [keyOf('a'), keyOf('b')], full: true },
    ]);
    expect(t.refusals).toEqual([]);
    await t.end();
  });

  it('what is refused without any service port is tried again after a while, not at once and for ever', async () => {
    const t = setUp();
    t.backend.refuseAll = true;
    await t.clock.advance(1_000);
    expect(t.backend.applied.length).toBeLessThan(8);
    t.backend.refuseAll = false;
    await t.clock.advance(2_000);
    expect(t.sync.synced).toBe(true);
    await t.end();
  });

  it.each([0, 50])(
    'blames no service port for what others took away, told of it %i ms after the refusal',
    async (ms) => {
      const t = setUp(['a', 'b']);
      await t.clock.advance(1000);
      t.backend.refused.add(keyOf('a'));
      const under = t.backend.applied.length;
      t.set('a', service('a', 81));
      await t.clock.advance(ms);
      t.backend.refused.clear();
      t.backend.flush();
      await t.clock.advance(500);
      expect(t.refusals).toEqual([]);
      expect(t.backend.applied.slice(under)).toEqual([
        { keys: [keyOf('a')], full: false },
        { keys: [keyOf('a'), keyOf('b')], full: true },
      ]);
      expect(t.programmed()).toEqual([keyOf('a'), keyOf('b')]);
      await t.end();
    },
  );

  it('takes a burst in few writes, and waits no longer than 100 ms', async () => {
    const t = setUp(['a']);
    await t.clock.advance(1000);
    const before = t.backend.applied.length;
    for (let at = 0; at < 100; at++) {
      t.set(`s${at}`, service(`s${at}`));
      await t.clock.advance(2);
    }
    await t.clock.advance(150);
    expect(t.backend.programmed.size).toBe(101);
    const writes = t.backend.applied.length - before;
    expect(writes).toBeGreaterThan(1);
    expect(writes).toBeLessThan(10);
    await t.end();
  });

  it('coalesces what comes while a write is under way', async () => {
    const t = setUp(['a']);
    await t.clock.advance(1000);
    const held = Promise.withResolvers<void>();
    t.backend.delay = () => held.promise;
    t.set('b', service('b'));
    await t.clock.advance(0);
    t.set('c', service('c'));
    t.set('d', service('d'));
    await t.clock.advance(50);
    t.backend.delay = () => Promise.resolve();
    held.resolve();
    await t.clock.advance(200);
    expect(t.backend.applied.slice(1).map(({ keys }) => keys)).toEqual([[keyOf('b')], [keyOf('c'), keyOf('d')]]);
    await t.end();
  });

  it('after a failure reads the kernel and writes everything, soon and then less soon', async () => {
    const t = setUp(['a']);
    await t.clock.advance(1000);
    t.backend.failNext = 2;
    t.set('b', service('b'));
    await t.clock.advance(0);
    expect(t.sync.trouble).toContain('told to fail');
    await t.clock.advance(100);
    expect(t.backend.programmed.size).toBe(1);
    await t.clock.advance(200);
    expect(t.backend.applied.map(({ full }) => full)).toEqual([true, false, true, true]);
    expect(t.programmed()).toEqual([keyOf('a'), keyOf('b')]);
    expect(t.sync.trouble).toBeUndefined();
    await t.end();
  });

  it('finds the guilty service port, reports it once, and serves all others', async () => {
    const names = Array.from({ length: 37 }, (_, at) => `s${at}`);
    const t = setUp(names);
    t.backend.refused.add(keyOf('s17'));
    await t.clock.advance(10);
    expect(t.backend.programmed.size).toBe(36);
    expect(t.refusals).toEqual([keyOf('s17')]);
    expect([...t.sync.refused().keys()]).toEqual([keyOf('s17')]);
    await t.clock.advance(300_000);
    expect(t.refusals).toHaveLength(1);
    t.backend.refused.clear();
    await t.clock.advance(60_000);
    expect(t.backend.programmed.size).toBe(37);
    expect(t.sync.refused().size).toBe(0);
    await t.end();
  });

  it('a port that was refused, has changed and is refused again does not fail the write of everything', async () => {
    const t = setUp(['a', 'b']);
    t.backend.refused.add(keyOf('a'));
    await t.clock.advance(100);
    expect([...t.sync.refused().keys()]).toEqual([keyOf('a')]);
    t.set('a', service('a', 81));
    t.set('c', service('c'));
    t.sync.rewrite('full');
    await t.clock.advance(50);
    expect(t.refusals).toEqual([keyOf('a'), keyOf('a')]);
    expect(t.sync.trouble).toBeUndefined();
    expect(t.programmed()).toEqual([keyOf('b'), keyOf('c')]);
    await t.end();
  });

  it('keeps what a refused port had, and tries again when it changes', async () => {
    const t = setUp(['a', 'b']);
    await t.clock.advance(1000);
    t.backend.refused.add(keyOf('a'));
    t.set('a', service('a', 81));
    t.set('b', service('b', 82));
    await t.clock.advance(200);
    expect(t.backend.programmed.get(keyOf('a'))?.port.port).toBe(80);
    expect(t.backend.programmed.get(keyOf('b'))?.port.port).toBe(82);
    t.backend.refused.clear();
    t.set('a', service('a', 83));
    await t.clock.advance(200);
    expect(t.backend.programmed.get(keyOf('a'))?.port.port).toBe(83);
    await t.end();
  });

  it('tries what was refused again when the kernel has been read, not only what worked last', async () => {
    const t = setUp(['a', 'b']);
    await t.clock.advance(1000);
    t.backend.refused.add(keyOf('a'));
    t.set('a', service('a', 81));
    await t.clock.advance(200);
    t.backend.refused.clear();
    t.backend.flush();
    await t.clock.advance(1000);
    expect(t.backend.programmed.get(keyOf('a'))?.port.port).toBe(81);
    expect(t.sync.refused().size).toBe(0);
    await t.end();
  });

  it('mends a foreign flush within a second, and checks by itself every hour', async () => {
    const t = setUp(['a']);
    await t.clock.advance(10_000);
    t.backend.flush();
    t.backend.flush();
    await t.clock.advance(999);
    expect(t.programmed()).toEqual([keyOf('a')]);
    expect(t.backend.applied).toHaveLength(2);
    t.backend.programmed.clear();
    await t.clock.advance(3_600_000);
    expect(t.programmed()).toEqual([keyOf('a')]);
    await t.end();
  });

  it('does not fight for ever at full speed with someone who flushes again and again', async () => {
    const t = setUp(['a']);
    await t.clock.advance(10_000);
    const before = t.backend.applied.length;
    for (let at = 0; at < 100; at++) {
      t.backend.flush();
      await t.clock.advance(100);
    }
    expect(t.backend.applied.length - before).toBeLessThan(12);
    await t.end();
  });
});
