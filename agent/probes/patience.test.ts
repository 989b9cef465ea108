import { describe, expect, it } from 'vitest';
import { TimeoutError } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { patiently, withPatience } from './patience.ts';

const { signal } = new AbortController();
const never = (inner: AbortSignal): Promise<never> =>
  new Promise((_, reject) => inner.addEventListener('abort', () => reject(inner.reason)));

describe('the time limit of a probe', () => {
  it('ends the work when it is over, and not before', async () => {
    const clock = createFakeClock();
    let ended: unknown;
    const work = withPatience(clock, 'probe', 1_000, signal, never).catch((error: unknown) => {
      ended = error;
    });
    await clock.advance(999);
    expect(ended).toBeUndefined();
    await clock.advance(1);
    await work;
    expect(ended).toBeInstanceOf(TimeoutError);
  });

  it('counts a timer that fires late as if it had been on time', async () => {
    const timers: (() => void)[] = [];
    const clock = {
      setTimer: (_ms: number, fire: () => void) => {
        timers.push(fire);
        return { cancel: () => undefined };
      },
    } as unknown as Clock;
    const answer = Promise.withResolvers<string>();
    const work = withPatience(clock, 'probe', 1_000, signal, () => answer.promise);
    // The process stood still for ages: the first timer fires when everything is overdue, and the answer is read just after it.
    timers[0]!();
    answer.resolve('fine');
    expect(await work).toBe('fine');
    expect(timers).toHaveLength(2);
  });

  it('ends with its parent', async () => {
    const parent = new AbortController();
    const work = withPatience(createFakeClock(), 'probe', 1_000, parent.signal, never);
    parent.abort(new Error('stopping'));
    await expect(work).rejects.toThrow('stopping');
  });
});

describe('patience with what calls back', () => {
  const lab = () => {
    const clock = createFakeClock();
    const results: string[] = [];
    let settle: (result: string) => void = () => undefined;
    let givenUp = 0;
    const giveUp = patiently(
      clock,
      1_000,
      () => 'late',
      (settled: (result: string) => void) => {
        settle = settled;
        return () => {
          givenUp++;
        };
      },
      (result) => results.push(result),
    );
    return { clock, results, settle: (text: string) => settle(text), giveUp, givenUp: () => givenUp };
  };

  it('hands on what came in time, and leaves nothing behind', async () => {
    const { clock, results, settle, givenUp } = lab();
    await clock.advance(900);
    settle('fine');
    await clock.advance(5_000);
    expect([results, givenUp()]).toEqual([['fine'], 0]);
  });

  it('gives up when the time is over, and not before', async () => {
    const { clock, results, givenUp } = lab();
    await clock.advance(999);
    expect([results, givenUp()]).toEqual([[], 0]);
    await clock.advance(1);
    expect([results, givenUp()]).toEqual([['late'], 1]);
  });

  it('gives up when it is told to, and says no more', async () => {
    const { clock, results, giveUp, givenUp } = lab();
    await clock.advance(500);
    giveUp();
    await clock.advance(5_000);
    expect([results, givenUp()]).toEqual([[], 1]);
  });
});
