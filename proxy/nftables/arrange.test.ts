import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { arrange } from './arrange.ts';

describe('arrange', () => {
  it.each([
    [[], ['a', 'b'], ['a', 'b']],
    [
      ['a', 'b', 'c'],
      ['b', 'c'],
      ['c', 'b'],
    ],
    [
      ['a', 'b', 'c'],
      ['a', 'b'],
      ['a', 'b'],
    ],
    [['a', 'b', 'c'], ['c'], ['c']],
    [
      ['a', 'b'],
      ['b', 'c'],
      ['c', 'b'],
    ],
    [
      ['a', 'b'],
      ['a', 'b', 'c'],
      ['a', 'b', 'c'],
    ],
    [
      ['a', 'a', 'b'],
      ['a', 'b'],
      ['a', 'b'],
    ],
    [['a', 'b'], [], []],
  ])('%j to hold %j becomes %j', (before, wanted, row) => {
    expect(arrange(before, wanted)).toEqual(row);
  });

  it('holds exactly what is wanted, and moves no more than it must', () => {
    const names = fc.uniqueArray(fc.constantFrom(...'abcdefghij'), { maxLength: 10 });
    fc.assert(
      fc.property(names, names, (before, wanted) => {
        const row = arrange(before, wanted);
        expect([...row].sort()).toEqual([...wanted].sort());
        // Whatever stays and is not beyond the new end keeps its index.
        before.forEach((endpoint, at) => {
          if (at < row.length && wanted.includes(endpoint)) expect(row[at]).toBe(endpoint);
        });
      }),
    );
  });
});
