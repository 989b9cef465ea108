import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFakeClock } from './fake-clock.ts';
import { createKeyedQueue } from './keyed-queue.ts';

function start(options: { concurrency?: number; fail?: (key: string, run: number) => boolean; runMs?: number } = {}) {
  const clock = createFakeClock();
  const runs: string[] = [];
  const errors: [string, number][] = [];
  const running = new Set<string>();
  let most = 0;
  let overlapped = false;
  const queue = createKeyedQueue<string>(
    {
      clock,
      async reconcile(key, signal) {
        if (running.has(key)) overlapped = true;
        running.add(key);
        most = Math.max(most, running.size);
        runs.push(key);
        const run = runs.filter((other) => other === key).length;
        try {
          if (options.runMs) await clock.sleep(options.runMs, signal);
          if (options.fail?.(key, run)) throw new Error('failed');
        } finally {
          running.delete(key);
        }
      },
      onError: (key, _, retryInMs) => void errors.push([key, retryInMs]),
    },
    options.concurrency === undefined ? {} : { concurrency: options.concurrency },
  );
  return { clock, queue, runs, errors, most: () => most, overlapped: () => overlapped };
}

describe('the keyed queue', () => {
  it('coalesces wakes, before a run and during it', async () => {
    const { clock, queue, runs } = start({ runMs: 10 });
    queue.wake('a');
    queue.wake('a');
    await clock.advance(5);
    for (let at = 0; at < 5; at++) queue.wake('a');
    expect(queue.size()).toBe(1);
    await clock.advance(50);
    expect(runs).toEqual(['a', 'a']);
    expect(queue.size()).toBe(0);
  });

  it('runs no more at once than it may, and each key alone', async () => {
    const { clock, queue, runs, most, overlapped } = start({ concurrency: 2, runMs: 10 });
    for (const key of ['a', 'b', 'c', 'd', 'a', 'b']) queue.wake(key);
    await clock.advance(100);
    expect(runs).toEqual(['a', 'b', 'c', 'd', 'a', 'b']);
    expect(most()).toBe(2);
    expect(overlapped()).toBe(false);
  });

  it('backs off a key that fails and starts over after a success', async () => {
    const { clock, queue, runs, errors } = start({ fail: (_, run) => run < 4 || run === 5 });
    queue.wake('a');
    await clock.advance(10_000);
    expect(runs).toHaveLength(4);
    queue.wake('a');
    await clock.advance(10_000);
    expect(errors.map(([, retryInMs]) => retryInMs)).toEqual([100, 200, 400, 100]);
  });

  it('wakes at the earliest of several times', async () => {
    const { clock, queue, runs } = start();
    queue.wakeAfter('a', 500);
    queue.wakeAfter('a', 100);
    queue.wakeAfter('a', 900);
    await clock.advance(99);
    expect(runs).toEqual([]);
    await clock.advance(2000);
    expect(runs).toEqual(['a']);
  });

  it('forgets what waits, and runs a key alone that was forgotten and woken again', async () => {
    const { clock, queue, runs, overlapped } = start({ concurrency: 1, runMs: 10 });
    queue.wakeAfter('z', 5);
    queue.forget('z');
    queue.wake('a');
    queue.wake('b');
    queue.forget('b');
    queue.wake('b');
    await clock.advance(15);
    queue.wake('b');
    await clock.advance(100);
    expect(runs).toEqual(['a', 'b', 'b']);
    expect(overlapped()).toBe(false);
  });

  it('stops: aborts what runs and starts nothing more', async () => {
    const { clock, queue, runs, errors } = start({ concurrency: 1, runMs: 1000 });
    queue.wake('a');
    queue.wake('b');
    await clock.advance(0);
    await queue.stop();
    queue.wake('c');
    await clock.advance(5000);
    expect(runs).toEqual(['a']);
    expect(errors).toEqual([]);
  });

  it('never runs a key twice at once nor loses a wake, whatever the order', async () => {
    const step = fc.record({
      act: fc.constantFrom('wake', 'wakeAfter', 'forget', 'advance'),
      key: fc.constantFrom('a', 'b', 'c'),
      ms: fc.nat(30),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 30 }),
        fc.integer({ min: 1, max: 3 }),
        async (steps, concurrency) => {
          const { clock, queue, runs, overlapped } = start({ concurrency, runMs: 7, fail: (_, run) => run % 3 === 0 });
          for (const { act, key, ms } of steps) {
            if (act === 'advance') await clock.advance(ms);
            else if (act === 'wakeAfter') queue.wakeAfter(key, ms);
            else queue[act === 'wake' ? 'wake' : 'forget'](key);
          }
          for (const key of ['a', 'b', 'c']) queue.wake(key);
          await clock.advance(1000);
          for (const key of ['a', 'b', 'c']) expect(runs).toContain(key);
          expect(overlapped()).toBe(false);
          expect(queue.size()).toBe(0);
          await queue.stop();
        },
      ),
      { numRuns: 40 },
    );
  });
});
