// Names, times and selectors as the API server makes them up, accepts and writes them.
import { randomBytes } from 'node:crypto';
import type { LabelSelector } from '../kube/types/meta.ts';

// No vowels and no look-alikes, so that no words come out.
const alphabet = 'bcdfghjklmnpqrstvwxz2456789';

export const safeText = (bytes: Uint8Array): string =>
  [...bytes].map((byte) => alphabet[byte % alphabet.length]).join('');
export const randomSuffix = (length = 5): string => safeText(randomBytes(length));

/** Seconds, as the API writes times. */
export const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

const label = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;

export const isDnsLabel = (name: string): boolean => name.length <= 63 && label.test(name);
export const isDnsSubdomain = (name: string): boolean =>
  name.length <= 253 && name.split('.').every((part) => part.length > 0 && label.test(part));

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
