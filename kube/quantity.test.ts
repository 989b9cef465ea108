import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addQuantities,
  canonicalQuantity,
  compareQuantities,
  formatQuantity,
  milliOf,
  parseQuantity,
  type Quantity,
  QuantityError,
  quantityMilliValue,
  quantityOf,
  quantityOfMilli,
  quantityValue,
  subtractQuantities,
  unitsOf,
} from './quantity.ts';

describe('quantities', () => {
  // As a kube-apiserver 1.36 answered them.
  it.each([
    ['0', '0'],
    ['0m', '0'],
    ['0Ki', '0'],
    ['1.5', '1500m'],
    ['1.500', '1.500'],
    ['5.000', '5'],
    ['100m', '100m'],
    ['1000m', '1'],
    ['1500m', '1500m'],
    ['0.1', '100m'],
    ['1e3', '1e3'],
    ['1E3', '1E3'],
    ['12e6', '12e6'],
    ['15e-1', '1500e-3'],
    ['1000e3', '1e6'],
    ['1000k', '1M'],
    ['999k', '999k'],
    ['1024', '1024'],
    ['1Ki', '1Ki'],
    ['1024Ki', '1Mi'],
    ['1025Ki', '1025Ki'],
    ['1.5Gi', '1536Mi'],
    ['0.5Ki', '512'],
    ['0.3Gi', '322122547200m'],
    ['512Ki', '512Ki'],
    ['65536Ki', '64Mi'],
    ['7Ei', '7Ei'],
    ['9Ei', '9223372036854775807'],
    ['10000', '10k'],
    ['-1.5Gi', '-1536Mi'],
  ])('%s is %s', (text, canonical) => {
    expect(canonicalQuantity(text)).toBe(canonical);
  });

  it.each(['', '.', 'm', '1x', '1 Gi', ' 1', '1ki', '1e', '--1', '1,5', '1mi', 'Ki', '1.5.5', '0x10'])(
    'refuses %j',
    (text) => {
      expect(() => parseQuantity(text)).toThrow(QuantityError);
    },
  );

  it.each([
    ['1', 1, 1000],
    ['100m', 1, 100],
    ['1500m', 2, 1500],
    ['1u', 1, 1],
    ['2Ki', 2048, 2_048_000],
    ['-1500m', -2, -1500],
    ['0', 0, 0],
  ])('%s is %d whole and %d thousandths, rounded up', (text, units, milli) => {
    expect(unitsOf(text)).toBe(units);
    expect(milliOf(text)).toBe(milli);
  });

  it('rounds away from zero at 10⁻⁹', () => {
    expect(canonicalQuantity('0.0000000001')).toBe('1n');
    expect(canonicalQuantity('-0.0000000011')).toBe('-2n');
  });

  const anyFormat = fc.constantFrom<Quantity['format']>('decimal', 'binary', 'exponent');
  const anyQuantity = fc.oneof(
    fc
      .record({ units: fc.bigInt(-(2n ** 62n), 2n ** 62n), format: anyFormat })
      .map(({ units, format }) => quantityOf(units, format)),
    fc
      .record({ milli: fc.maxSafeInteger(), format: anyFormat })
      .map(({ milli, format }) => quantityOfMilli(milli, format)),
  );

  it('what is written reads as the same amount, and is canonical', () => {
    fc.assert(
      fc.property(anyQuantity, (quantity) => {
        const text = formatQuantity(quantity);
        expect(parseQuantity(text).nano).toBe(quantity.nano);
        expect(canonicalQuantity(text)).toBe(text);
      }),
    );
  });

  it('adds, subtracts and compares exactly', () => {
    fc.assert(
      fc.property(anyQuantity, anyQuantity, (a, b) => {
        expect(subtractQuantities(addQuantities(a, b), b).nano).toBe(a.nano);
        // Equal ones too: a sum, since the negative of zero is another zero.
        expect(Math.sign(compareQuantities(a, b)) + Math.sign(compareQuantities(b, a))).toBe(0);
        expect(compareQuantities(a, b) === 0).toBe(subtractQuantities(a, b).nano === 0n);
      }),
    );
    expect(formatQuantity(addQuantities(parseQuantity('0'), parseQuantity('1Gi')))).toBe('1Gi');
    expect(formatQuantity(addQuantities(parseQuantity('0.1'), parseQuantity('0.2')))).toBe('300m');
  });

  it('never rounds down', () => {
    fc.assert(
      fc.property(anyQuantity, (quantity) => {
        const magnitude = quantity.nano < 0n ? -quantity.nano : quantity.nano;
        for (const [value, unit] of [
          [quantityValue(quantity), 10n ** 9n],
          [quantityMilliValue(quantity), 10n ** 6n],
        ] as const) {
          const rounded = (value < 0n ? -value : value) * unit;
          expect(rounded >= magnitude && rounded - magnitude < unit).toBe(true);
        }
      }),
    );
  });
});
