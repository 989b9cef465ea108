import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createLanes } from './paced-runtime.ts';

describe('lanes', () => {
  it('let so many begin at a time, in the order they came, also after one failed', async () => {
    const clock = createFakeClock();
    const lane = createLanes({ clock }, { width: 2 });
    const begun: number[] = [];
    const ends: { resolve(): void; reject(error: Error): void }[] = [];
    const works = [0, 1, 2, 3].map((at) =>
      lane(() => {
        begun.push(at);
        return new Promise<void>((resolve, reject) => ends.push({ resolve, reject }));
      }).catch((error: Error) => error.message),
    );
    await clock.advance(10);
    expect(begun).toEqual([0, 1]);
    ends[1]?.reject(new Error('no'));
    await clock.advance(10);
    expect(begun).toEqual([0, 1, 2]);
    expect(await works[1]).toBe('no');
  });

  it('do not wait for what hangs', async () => {
    const clock = createFakeClock();
    const lane = createLanes({ clock }, { width: 1, patienceMs: 2_000 });
    let begun = 0;
    for (let at = 0; at < 3; at++)
      void lane(() => {
        begun++;
        return new Promise<void>(() => undefined);
      });
    await clock.advance(1_999);
    expect(begun).toBe(1);
    await clock.advance(2);
    expect(begun).toBe(2);
    await clock.advance(2_000);
    expect(begun).toBe(3);
  });

  it('do not begin what was cancelled in its turn, and let the next one', async () => {
    const clock = createFakeClock();
    const lane = createLanes({ clock }, { width: 1 });
    const begun: string[] = [];
    let end: () => void = () => undefined;
    const work = (name: string) => () => {
      begun.push(name);
      return new Promise<void>((resolve) => (end = resolve));
    };
    const cancel = new AbortController();
    const first = lane(work('first'), cancel.signal);
    const second = lane(work('second'), cancel.signal).catch((error: unknown) => error);
    const third = lane(work('third'));
    await clock.advance(0);
    cancel.abort('gone');
    expect(await second).toBe('gone');
    // What has begun goes on.
    end();
    await first;
    await clock.advance(0);
    expect(begun).toEqual(['first', 'third']);
    end();
    await third;
    await expect(lane(work('fourth'), cancel.signal)).rejects.toBe('gone');
    expect(begun).toEqual(['first', 'third']);
  });
});
