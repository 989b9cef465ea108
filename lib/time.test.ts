// The tools that deal in time: aborts, back-off, token bucket, the fake clock itself.
import { describe, expect, it } from 'vitest';
import { abandonOn, isTimeout, withTimeout } from './abort.ts';
import { createBackoff } from './backoff.ts';
import { systemClock } from './clock.ts';
import { createFakeClock } from './fake-clock.ts';
import { createTokenBucket } from './token-bucket.ts';

describe('abandonOn', () => {
  it('gives the result, the error, or the reason of the signal', async () => {
    const { signal } = new AbortController();
    expect(await abandonOn(Promise.resolve(1), signal)).toBe(1);
    await expect(abandonOn(Promise.reject(new Error('no')), signal)).rejects.toThrow('no');
    const controller = new AbortController();
    const never = abandonOn(new Promise(() => undefined), controller.signal);
    controller.abort(new Error('enough'));
    await expect(never).rejects.toThrow('enough');
    await expect(abandonOn(Promise.reject(new Error('late')), controller.signal)).rejects.toThrow('enough');
  });
});

describe('withTimeout', () => {
  it('ends with a TimeoutError though the work heeds nothing', async () => {
    const clock = createFakeClock();
    let aborted = false;
    const work = withTimeout(clock, 'the thing', 100, undefined, (signal) => {
      signal.addEventListener('abort', () => {
        aborted = true;
      });
      return new Promise(() => undefined);
    });
    const outcome = expect(work).rejects.toSatisfy(isTimeout);
    await clock.advance(100);
    await outcome;
    expect(aborted).toBe(true);
  });

  it('leaves no timer behind, and passes the parent on', async () => {
    const clock = createFakeClock();
    const parent = new AbortController();
    expect(await withTimeout(clock, 'x', 100, parent.signal, async () => 5)).toBe(5);
    expect(clock.nextDue()).toBeUndefined();
    const work = withTimeout(clock, 'x', 100, parent.signal, (signal) => clock.sleep(50, signal));
    parent.abort(new Error('parent'));
    await expect(work).rejects.toThrow('parent');
    expect(clock.nextDue()).toBeUndefined();
    await expect(withTimeout(clock, 'x', 100, parent.signal, async () => 5)).rejects.toThrow('parent');
  });
});

describe('the back-off', () => {
  it('doubles to its limit, by key, and starts over', () => {
    const backoff = createBackoff({ initialMs: 10, maxMs: 50, resetAfterMs: 1000 });
    expect([1, 2, 3, 4].map((now) => backoff.next('a', now))).toEqual([10, 20, 40, 50]);
    expect(backoff.next('b', 4)).toBe(10);
    expect(backoff.remainingMs('a', 14)).toBe(40);
    expect(backoff.remainingMs('c', 14)).toBe(0);
    expect(backoff.currentMs('a')).toBe(50);
    expect(backoff.next('a', 2000)).toBe(10);
    backoff.reset('a');
    expect(backoff.currentMs('a')).toBe(0);
  });

  it('adds jitter to the delay, not to what is doubled', () => {
    const backoff = createBackoff({ initialMs: 10, maxMs: 50, jitter: 0.5 }, () => 1);
    expect([backoff.next('a', 0), backoff.next('a', 0)]).toEqual([15, 30]);
  });
});

describe('the token bucket', () => {
  it('gives a burst, then so many a second', async () => {
    const clock = createFakeClock();
    const bucket = createTokenBucket(clock, { burst: 2, perSecond: 10 });
    expect([bucket.tryTake(), bucket.tryTake(), bucket.tryTake()]).toEqual([true, true, false]);
    await clock.advance(100);
    expect([bucket.tryTake(), bucket.tryTake()]).toEqual([true, false]);
  });

  it('lets those who wait through in their order, and those who give up take nothing', async () => {
    const clock = createFakeClock();
    const bucket = createTokenBucket(clock, { burst: 1, perSecond: 10 });
    const passed: [string, number][] = [];
    const take = (name: string, signal?: AbortSignal): Promise<void> =>
      bucket.take(signal).then(
        () => void passed.push([name, Math.round(clock.monotonicMs())]),
        () => undefined,
      );
    const quitter = new AbortController();
    void take('a');
    void take('b');
    void take('c', quitter.signal);
    quitter.abort();
    await clock.advance(0);
    void take('d');
    await clock.advance(1000);
    expect(passed).toEqual([
      ['a', 0],
      ['b', 100],
      ['d', 200],
    ]);
  });
});

describe('clocks', () => {
  it('the fake one fires what is due in its order, also what is set meanwhile', async () => {
    const clock = createFakeClock();
    const fired: string[] = [];
    clock.setTimer(20, () => void fired.push('20'));
    clock.setTimer(10, () => {
      fired.push('10');
      clock.setTimer(5, () => void fired.push('15'));
    });
    clock.setTimer(30, () => void fired.push('30')).cancel();
    await clock.advance(50);
    expect(fired).toEqual(['10', '15', '20']);
    expect(clock.monotonicMs()).toBe(50);
  });

  it('a sleep ends with the reason of its signal', async () => {
    for (const clock of [systemClock, createFakeClock()]) {
      const controller = new AbortController();
      const sleeping = clock.sleep(60_000, controller.signal);
      controller.abort(new Error('up'));
      await expect(sleeping).rejects.toThrow('up');
      await expect(clock.sleep(1, controller.signal)).rejects.toThrow('up');
    }
  });
});
