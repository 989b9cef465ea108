// Resource quantities (`100m`, `1.5Gi`, `1e3`), exact and written as Kubernetes' resource.Quantity writes them: no finer than 10⁻⁹
// (rounded away from zero), binary ones capped at 2⁶³−1, with the largest suffix of its family that leaves no fraction.

/** `decimal`: 1k is 1000. `binary`: 1Ki is 1024. `exponent`: 1e3. */
export type QuantityFormat = 'decimal' | 'binary' | 'exponent';

export interface Quantity {
  /** The amount in units of 10⁻⁹. */
  readonly nano: bigint;
  readonly format: QuantityFormat;
  /** How it was written, where Kubernetes keeps that although it is not quite canonical (`1.500`, `1E3`). */
  readonly text?: string;
}

/** A text that is no quantity. */
export class QuantityError extends Error {
  override name = 'QuantityError';
}

const nanoPerUnit = 10n ** 9n;
const largest = 2n ** 63n - 1n;

const decimalSuffixes: readonly (readonly [string, number])[] = [
  ['n', -9],
  ['u', -6],
  ['m', -3],
  ['', 0],
  ['k', 3],
  ['M', 6],
  ['G', 9],
  ['T', 12],
  ['P', 15],
  ['E', 18],
];
const binarySuffixes: readonly (readonly [string, bigint])[] = [
  ['Ki', 10n],
  ['Mi', 20n],
  ['Gi', 30n],
  ['Ti', 40n],
  ['Pi', 50n],
  ['Ei', 60n],
];

const syntax = /^([+-]?)(\d*)(?:\.(\d*))?(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)$/;

/** Throws a QuantityError for what Kubernetes would refuse. */
export function parseQuantity(text: string | number): Quantity {
  const match = syntax.exec(String(text));
  const [, sign, whole = '', fraction = '', exponent, suffix = ''] = match ?? [];
  if (!match || whole + fraction === '')
    throw new QuantityError(
      `${JSON.stringify(text)} is no quantity: expected a number with an optional suffix such as m, k, M, Ki, Mi or e3`,
    );
  const digits = BigInt(whole + fraction);
  const binary = binarySuffixes.find(([name]) => name === suffix);
  let amount: Fraction;
  let format: QuantityFormat;
  if (binary) {
    format = 'binary';
    amount = { over: digits * nanoPerUnit * 2n ** binary[1], under: tenTo(fraction.length) };
  } else {
    const power =
      exponent === undefined ? decimalSuffixes.find(([name]) => name === suffix)![1] : powerOf(exponent, text);
    format = exponent === undefined ? 'decimal' : 'exponent';
    const scale = power + 9 - fraction.length;
    amount = scale >= 0 ? { over: digits * tenTo(scale), under: 1n } : { over: digits, under: tenTo(-scale) };
  }
  const nano = divideUp(amount);
  const capped = format === 'binary' && nano > largest * nanoPerUnit ? largest * nanoPerUnit : nano;
  if (format === 'binary' && capped < nanoPerUnit) format = 'decimal';
  const kept = keepsText(whole, fraction, exponent, suffix) ? { text: String(text) } : {};
  return { nano: sign === '-' ? -capped : capped, format, ...kept };
}

// Upstream's fast path does not write anew what looks canonical to it.
function keepsText(whole: string, fraction: string, exponent: string | undefined, suffix: string): boolean {
  const digits = whole.replace(/^0+(?=.)/, '') + fraction;
  const binary = binarySuffixes.find(([name]) => name === suffix);
  if (binary) {
    const precision = 14 - digits.length - Math.trunc((Number(binary[1]) * 3) / 10);
    return fraction === '' && precision >= 0 && BigInt(digits) % 8n !== 0n;
  }
  const power =
    exponent === undefined ? decimalSuffixes.find(([name]) => name === suffix)![1] : Number(exponent.slice(1));
  const scale = power - fraction.length;
  return digits.length <= 18 && scale >= -9 && scale % 3 === 0 && !digits.endsWith('000') && !digits.startsWith('0');
}

interface Fraction {
  readonly over: bigint;
  readonly under: bigint;
}

const tenTo = (power: number): bigint => 10n ** BigInt(power);

function powerOf(exponent: string, text: string | number): number {
  const power = Number(exponent.slice(1));
  // Kubernetes reads the exponent as an int32; beyond this all amounts are capped, or rounded up to 1n, anyway.
  if (Math.abs(power) > 2 ** 31 - 1)
    throw new QuantityError(`${JSON.stringify(text)} is no quantity: the exponent is too large`);
  return Math.max(-1000, Math.min(1000, power));
}

const divideUp = ({ over, under }: Fraction): bigint => (over + under - 1n) / under;

/** Rounds away from zero, as upstream's Value and MilliValue do. */
const roundAway = (amount: bigint, unit: bigint): bigint =>
  amount < 0n ? -((-amount + unit - 1n) / unit) : (amount + unit - 1n) / unit;

/** The canonical text: what the API server would store. */
export function formatQuantity(quantity: Quantity): string {
  const { nano, text } = quantity;
  if (text !== undefined) return text;
  if (nano === 0n) return '0';
  const sign = nano < 0n ? '-' : '';
  const amount = nano < 0n ? -nano : nano;
  const fine = amount % nanoPerUnit !== 0n;
  if (quantity.format === 'binary' && amount >= 1024n * nanoPerUnit && !fine) {
    const whole = amount / nanoPerUnit;
    const suffix = binarySuffixes.findLast(([, bits]) => whole % 2n ** bits === 0n);
    return suffix ? `${sign}${whole >> suffix[1]}${suffix[0]}` : `${sign}${whole}`;
  }
  let power = -9;
  for (let rest = amount; rest % 1000n === 0n && (quantity.format === 'exponent' || power < 18); rest /= 1000n)
    power += 3;
  const digits = amount / tenTo(power + 9);
  if (quantity.format === 'exponent') return `${sign}${digits}${power === 0 ? '' : `e${power}`}`;
  return `${sign}${digits}${decimalSuffixes.find(([, of]) => of === power)![0]}`;
}

/** Parses and writes it anew. */
export const canonicalQuantity = (text: string | number): string => formatQuantity(parseQuantity(text));

/** The amount in whole units, rounded up (away from zero). */
export const quantityValue = (quantity: Quantity): bigint => roundAway(quantity.nano, nanoPerUnit);

/** The amount in thousandths, rounded up (away from zero): CPU as millicores. */
export const quantityMilliValue = (quantity: Quantity): bigint => roundAway(quantity.nano, 1_000_000n);

/** Whole units of a text as a number; beyond 2⁵³ not exact. Throws a QuantityError. */
export const unitsOf = (text: string | number): number => Number(quantityValue(parseQuantity(text)));

/** Thousandths of a text as a number; beyond 2⁵³ not exact. Throws a QuantityError. */
export const milliOf = (text: string | number): number => Number(quantityMilliValue(parseQuantity(text)));

export const quantityOf = (units: bigint | number, format: QuantityFormat = 'decimal'): Quantity => ({
  nano: BigInt(units) * nanoPerUnit,
  format,
});

export const quantityOfMilli = (milli: bigint | number, format: QuantityFormat = 'decimal'): Quantity => ({
  nano: BigInt(milli) * 1_000_000n,
  format,
});

/** The sum, written as `a` is; as `b` where `a` is zero. */
export const addQuantities = (a: Quantity, b: Quantity): Quantity => ({
  nano: a.nano + b.nano,
  format: a.nano === 0n ? b.format : a.format,
});

export const subtractQuantities = (a: Quantity, b: Quantity): Quantity => ({
  nano: a.nano - b.nano,
  format: a.nano === 0n ? b.format : a.format,
});

/** Negative where a is less than b, 0 where they are the same amount, positive where it is more. */
export const compareQuantities = (a: Quantity, b: Quantity): number => (a.nano < b.nano ? -1 : a.nano > b.nano ? 1 : 0);

export const isZeroQuantity = (quantity: Quantity): boolean => quantity.nano === 0n;
