// The exact value of a quantity as an integer, rounded up as Go's Value and MilliValue do.
import type { QuantityString } from '../../kube/types/meta.ts';

const shape = /^([+-]?)(\d*)(?:\.(\d*))?(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i))?$/;
const decimal: Readonly<Record<string, number>> = { n: -9, u: -6, m: -3, k: 3, M: 6, G: 9, T: 12, P: 15, E: 18 };
const binary = ['Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

/** `quantity` times 10^`scale`, rounded away from zero; a RangeError for what is no quantity. */
export function quantityScaled(quantity: QuantityString | number, scale: number): bigint {
  const match = shape.exec(String(quantity));
  if (!match || `${match[2]}${match[3] ?? ''}` === '') throw new RangeError(`"${quantity}" is not a quantity`);
  const [, sign, whole = '', fraction = '', exponent, suffix] = match;
  let numerator = BigInt(`${whole}${fraction}` || '0');
  let power = scale - fraction.length;
  if (exponent !== undefined) power += Number(exponent.slice(1));
  else if (suffix !== undefined && binary.includes(suffix)) numerator <<= BigInt(10 * (binary.indexOf(suffix) + 1));
  else if (suffix !== undefined) power += decimal[suffix]!;
  if (Math.abs(power) > 60) throw new RangeError(`"${quantity}" is out of range`);
  const scaled = power >= 0 ? numerator * 10n ** BigInt(power) : ceilDiv(numerator, 10n ** BigInt(-power));
  return sign === '-' ? -scaled : scaled;
}

const ceilDiv = (a: bigint, b: bigint): bigint => (a + b - 1n) / b;

export const quantityValue = (quantity: QuantityString | number): bigint => quantityScaled(quantity, 0);
export const quantityMilliValue = (quantity: QuantityString | number): bigint => quantityScaled(quantity, 3);
