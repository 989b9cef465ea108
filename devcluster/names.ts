// Names, times and selectors as the API server makes them up and writes them.
import { randomBytes } from 'node:crypto';
import type { LabelSelector } from '../kube/types/meta.ts';

// No vowels and no look-alikes, so that no words come out.
const alphabet = 'bcdfghjklmnpqrstvwxz2456789';

export const safeText = (bytes: Uint8Array): string =>
  [...bytes].map((byte) => alphabet[byte % alphabet.length]).join('');
export const randomSuffix = (): string => safeText(randomBytes(5));

/** Seconds, as the API writes times. */
export const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

/** A label selector as kubectl prints it and as the API's query takes it. */
export function selectorText(selector: LabelSelector | undefined): string {
  const equals = Object.entries(selector?.matchLabels ?? {}).map(([key, value]) => `${key}=${value}`);
  const expressions = (selector?.matchExpressions ?? []).map(({ key, operator, values = [] }) => {
    if (operator === 'Exists') return key;
    if (operator === 'DoesNotExist') return `!${key}`;
    return `${key} ${operator.toLowerCase()} (${values.join(',')})`;
  });
  return [...equals.sort(), ...expressions].join(',');
}
