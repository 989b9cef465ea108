import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { expand } from './expansion.ts';

const values = new Map([
  ['A', 'a'],
  ['B', '$(A)'],
  ['EMPTY', ''],
]);
const lookup = (name: string): string | undefined => values.get(name);

describe('$(NAME)', () => {
  it.each([
    ['', ''],
    ['text', 'text'],
    ['$(A)', 'a'],
    ['x$(A)y$(A)', 'xaya'],
    ['$(B)', '$(A)'],
    ['$(EMPTY)|', '|'],
    ['$(UNKNOWN)', '$(UNKNOWN)'],
    ['$$(A)', '$(A)'],
    ['$$$(A)', '$a'],
    ['$$$$(A)', '$$(A)'],
    ['$', '$'],
    ['a$', 'a$'],
    ['$A', '$A'],
    ['$(A', '$(A'],
    ['$(', '$('],
    ['$()', '$()'],
    ['$(A)$', 'a$'],
    ['$(A $(A)', '$(A $(A)'],
    ['$é', '$é'],
  ])('%s is %s', (text, expected) => expect(expand(text, lookup)).toBe(expected));

  it('leaves text without a dollar sign alone and never throws', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const result = expand(text, lookup);
        if (!text.includes('$')) expect(result).toBe(text);
      }),
    );
  });

  it('gives back what was escaped', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(expand(text.replaceAll('$', '$$$$'), lookup)).toBe(text);
      }),
    );
  });
});
