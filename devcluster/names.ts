// Names the API server makes up and names it accepts.
import { randomBytes, randomUUID } from 'node:crypto';

// No vowels and no look-alikes, so that no words come out.
const alphabet = 'bcdfghjklmnpqrstvwxz2456789';

export const randomSuffix = (length = 5): string =>
  [...randomBytes(length)].map((byte) => alphabet[byte % alphabet.length]).join('');

export const newUid = (): string => randomUUID();

/** Seconds, as the API writes times. */
export const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

const label = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;

export const isDnsLabel = (name: string): boolean => name.length <= 63 && label.test(name);
export const isDnsSubdomain = (name: string): boolean =>
  name.length <= 253 && name.split('.').every((part) => part.length > 0 && label.test(part));
