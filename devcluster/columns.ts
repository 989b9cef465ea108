// The kit columns of a table are made of.
import { at } from './kinds.ts';
import type { Obj } from './store.ts';

export interface Column {
  readonly name: string;
  readonly type?: 'string' | 'integer';
  /** Printed with -o wide only. */
  readonly wide?: boolean;
  value(object: Obj, nowMs: number): string | number;
}

export const col = (name: string, value: Column['value'], wide = false): Column => ({
  name,
  value,
  ...(wide ? { wide } : {}),
});
export const text = (name: string, path: string, absent = '<none>', wide = false): Column =>
  col(name, (object) => textAt(object, path) || absent, wide);
export const textAt = (object: Obj, path: string): string => {
  const value = at(object, path);
  return value === undefined || value === null ? '' : String(value);
};

export const nameColumn: Column = col('Name', (object) => object.metadata.name);
export const ageColumn: Column = col('Age', (object, now) => since(object.metadata.creationTimestamp, now));

export const since = (time: string | null | undefined, nowMs: number): string =>
  time ? humanDuration(nowMs - Date.parse(time)) : '<unknown>';

/** Two units at most, as kubectl writes durations. */
export function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < -1) return '<invalid>';
  if (seconds < 0) return '0s';
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return seconds % 60 ? `${minutes}m${seconds % 60}s` : `${minutes}m`;
  if (minutes < 180) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 8) return minutes % 60 ? `${hours}h${minutes % 60}m` : `${hours}h`;
  if (hours < 48) return `${hours}h`;
  const days = Math.floor(hours / 24);
  if (hours < 192) return hours % 24 ? `${days}d${hours % 24}h` : `${days}d`;
  if (days < 730) return `${days}d`;
  const years = Math.floor(days / 365);
  return days % 365 && years < 8 ? `${years}y${days % 365}d` : `${years}y`;
}
