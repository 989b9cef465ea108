// Eviction thresholds: `memory.available: 100Mi`, `nodefs.available: 10%`. Pure.
import { quantityValue } from '../fields/quantity-value.ts';
import { parseGoDuration } from '../../lib/go-duration.ts';
import type { KubeletConfiguration } from '../config.ts';

export const signals = [
  'memory.available',
  'allocatableMemory.available',
  'nodefs.available',
  'nodefs.inodesFree',
  'imagefs.available',
  'imagefs.inodesFree',
  'containerfs.available',
  'containerfs.inodesFree',
  'pid.available',
] as const;
export type Signal = (typeof signals)[number];

/** An amount in whole units (bytes, inodes, processes), or a share of the capacity between 0 and 1. */
export type ThresholdValue = { readonly amount: number } | { readonly share: number };

export interface Threshold {
  readonly signal: Signal;
  readonly value: ThresholdValue;
  /** 0 for a hard threshold. */
  readonly graceMs: number;
  readonly hard: boolean;
  readonly minimumReclaim: ThresholdValue | undefined;
}

export type ThresholdSettings = Pick<
  KubeletConfiguration,
  'evictionHard' | 'evictionSoft' | 'evictionSoftGracePeriod' | 'evictionMinimumReclaim'
>;

const isSignal = (name: string): name is Signal => (signals as readonly string[]).includes(name);

/** Undefined where the text is `0`, `0%` or `100%`: the threshold is switched off, as upstream has it. A string says what is wrong. */
export function parseThresholdValue(text: string): ThresholdValue | undefined | string {
  if (text === '0%' || text === '100%') return undefined;
  if (text.endsWith('%')) {
    const percent = Number(text.slice(0, -1));
    if (!(percent > 0 && percent < 100)) return `"${text}" is not a percentage between 0% and 100%`;
    return { share: percent / 100 };
  }
  try {
    const amount = Number(quantityValue(text));
    return amount < 0 ? `"${text}" is negative` : { amount };
  } catch {
    return `"${text}" is neither a quantity nor a percentage`;
  }
}

/** The threshold's value in whole units. */
export const thresholdAmount = (value: ThresholdValue, capacity: number): number =>
  'amount' in value ? value.amount : Math.floor(capacity * value.share);

interface Parsed {
  readonly thresholds: readonly Threshold[];
  /** What is wrong, by the field's name and signal. */
  readonly problems: readonly { readonly path: readonly string[]; readonly message: string }[];
}

/** Thresholds in the order memory, disk, processes; soft ones carry their grace period. */
export function parseThresholds(settings: ThresholdSettings): Parsed {
  const problems: { path: string[]; message: string }[] = [];
  const thresholds: Threshold[] = [];
  const reclaim = new Map<string, ThresholdValue>();
  const parse = (field: string, name: string, text: string): ThresholdValue | undefined => {
    if (!isSignal(name)) {
      problems.push({ path: [field, name], message: `is not one of ${signals.join(', ')}` });
      return undefined;
    }
    const value = parseThresholdValue(text);
    if (typeof value !== 'string') return value;
    problems.push({ path: [field, name], message: value });
    return undefined;
  };
  for (const [name, text] of Object.entries(settings.evictionMinimumReclaim)) {
    const value = parse('evictionMinimumReclaim', name, text);
    if (value) reclaim.set(name, value);
  }
  const add = (field: 'evictionHard' | 'evictionSoft'): void => {
    for (const [name, text] of Object.entries(settings[field])) {
      const value = parse(field, name, text);
      if (value === undefined) continue;
      const hard = field === 'evictionHard';
      const grace = hard ? 0 : parseGoDuration(settings.evictionSoftGracePeriod[name] ?? '');
      if (grace === undefined) {
        problems.push({ path: [field, name], message: 'needs a duration under evictionSoftGracePeriod' });
        continue;
      }
      thresholds.push({ signal: name as Signal, value, graceMs: grace, hard, minimumReclaim: reclaim.get(name) });
    }
  };
  add('evictionHard');
  add('evictionSoft');
  thresholds.sort((a, b) => signals.indexOf(a.signal) - signals.indexOf(b.signal));
  return { thresholds, problems };
}
