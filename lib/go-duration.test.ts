import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatGoDuration, parseGoDuration } from './go-duration.ts';

describe('Go durations', () => {
  it.each([
    ['0', 0],
    ['0s', 0],
    ['10s', 10_000],
    ['1m0s', 60_000],
    ['1h30m', 5_400_000],
    ['1.5s', 1500],
    ['-1.5h', -5_400_000],
    ['.5s', 500],
    ['100ms', 100],
    ['250us', 0.25],
    ['250µs', 0.25],
  ])('%s is %d ms', (text, ms) => expect(parseGoDuration(text)).toBeCloseTo(ms, 9));

  it.each(['', '10', 's', '1d', '1m 3s', '--1s', '1.s.', 'abc', '5 s'])('%j is none', (text) =>
    expect(parseGoDuration(text)).toBeUndefined(),
  );

  it.each([
    [60_000, '1m0s'],
    [3_600_000, '1h0m0s'],
    [1500, '1.5s'],
    [100, '100ms'],
    [0.25, '250µs'],
    [-90_000, '-1m30s'],
  ])('%d ms is written %s', (ms, text) => expect(formatGoDuration(ms)).toBe(text));

  it('what is written reads back', () => {
    fc.assert(
      fc.property(fc.integer({ min: -1e12, max: 1e12 }), (ms) => {
        expect(parseGoDuration(formatGoDuration(ms))).toBeCloseTo(ms, 3);
      }),
    );
  });
});
