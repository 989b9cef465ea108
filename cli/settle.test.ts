import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import { engine, settle } from './settle.ts';

describe('settle', () => {
  const recorded = () => {
    const done: string[] = [];
    return { done, keepCode: () => void done.push('code'), collect: () => void done.push('collect') };
  };

  it('keeps the code before a collection could drop it, once, half a minute after the start', async () => {
    const clock = createFakeClock();
    const engineOf = recorded();
    const settled = settle({ clock, log: silentLog }, new AbortController().signal, engineOf);
    await clock.advance(29_000);
    expect(engineOf.done).toEqual([]);
    await clock.advance(1_000);
    await settled;
    expect(engineOf.done).toEqual(['code', 'collect']);
  });

  it('is over at once where the daemon ends before', async () => {
    const clock = createFakeClock();
    const stopping = new AbortController();
    const engineOf = recorded();
    const settled = settle({ clock, log: silentLog }, stopping.signal, engineOf);
    stopping.abort();
    await settled;
    expect(engineOf.done).toEqual([]);
  });

  it('goes on where the code cannot be kept', async () => {
    const clock = createFakeClock();
    const keepCode = (): void => {
      throw new Error('no space left on device');
    };
    const settled = settle({ clock, log: silentLog }, new AbortController().signal, { ...recorded(), keepCode });
    await clock.advance(30_000);
    await settled;
  });

  it('collects what nothing holds', async () => {
    // In a function of its own, so that no register of this one holds the object.
    const weak = (() => new WeakRef({ large: new Array<number>(1000).fill(1) }))();
    await new Promise((resolve) => setImmediate(resolve));
    engine.collect();
    expect(weak.deref()).toBeUndefined();
  });
});
