// Tells early that memory runs short, between the regular looks: by the kernel's count of time lost to reclaim (PSI), by MemAvailable coming
// near the threshold, by what the pods together use coming near their limit, and on cgroup version 2 by events of the pods' cgroup, which
// come at once. Version 1 tells events through an eventfd only, which Node.js has not: there the second's look is all. Reading costs
// microseconds.
import { type FSWatcher, watch } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import { readPseudoFile } from '../stats/pseudo-files.ts';
import { parseMeminfo } from './host-facts.ts';

export interface MemoryAlarmDeps {
  readonly clock: Clock;
  /** Default: /proc. */
  readonly proc?: string;
}

/** The memory controller's folder of the cgroup that holds those of all pods; it may not be there yet. */
export interface PodsMemory {
  readonly version: 1 | 2;
  readonly folder: string;
}

export interface MemoryAlarmOptions {
  /** The hard threshold of memory.available, in bytes. */
  readonly thresholdBytes: number;
  readonly podsMemory?: PodsMemory | undefined;
}

const everyMs = 1000;
/** More stalled than this within a second is trouble, in microseconds. */
const stalledUs = 100_000;
/** So much of the threshold left is near to it. */
const near = 1.5;

const files = {
  1: { limit: 'memory.limit_in_bytes', usage: 'memory.usage_in_bytes', cache: /^total_inactive_file (\d+)/m },
  2: { limit: 'memory.max', usage: 'memory.current', cache: /^inactive_file (\d+)/m },
} as const;

/** Microseconds in which some task waited for memory. */
export const parsePsiTotal = (text: string): number => Number(/^some .*total=(\d+)/m.exec(text)?.[1] ?? 0);

const read = (path: string): string => readPseudoFile(path) ?? '';

/** What pods together may still use, in bytes, file cache that can go not counted; undefined where they are not limited. */
export function podsLeft({ version, folder }: PodsMemory, enough: number): number | undefined {
  const { limit, usage, cache } = files[version];
  const most = Number.parseInt(read(join(folder, limit)), 10);
  const used = Number.parseInt(read(join(folder, usage)), 10);
  // Not a number: `max`, or no such folder. The kernel says "unlimited" as the largest multiple of a page.
  if (Number.isNaN(most - used) || most > 2 ** 62) return undefined;
  if (most - used > enough) return most - used;
  return most - used + Number(cache.exec(read(join(folder, 'memory.stat')))?.[1] ?? 0);
}

/** Follows memory.events of a cgroup that may come later or go: `look` once a second. */
function followEvents(podsMemory: PodsMemory | undefined, onEvent: () => void): { look(): void; close(): void } {
  let events: FSWatcher | undefined;
  const close = (): void => {
    events?.close();
    events = undefined;
  };
  return {
    close,
    look() {
      if (events || podsMemory?.version !== 2) return;
      try {
        events = watch(join(podsMemory.folder, 'memory.events'), { persistent: false }, (what) => {
          // The cgroup is gone, and its file with it.
          if (what === 'rename') close();
          else onEvent();
        });
        events.on('error', close);
      } catch {
        // Not there yet; the other signs remain.
      }
    },
  };
}

/** Calls `onAlarm` at most once a second, until the signal aborts. */
export async function watchMemory(
  deps: MemoryAlarmDeps,
  options: MemoryAlarmOptions,
  onAlarm: () => void,
  signal: AbortSignal,
): Promise<void> {
  const proc = deps.proc ?? '/proc';
  const { podsMemory } = options;
  const enough = options.thresholdBytes * near;
  let told = false;
  const events = followEvents(podsMemory, () => {
    if (!told) onAlarm();
    told = true;
  });
  events.look();
  let before = parsePsiTotal(read(`${proc}/pressure/memory`));
  const isShort = (): boolean => {
    const available = parseMeminfo(read(`${proc}/meminfo`), 'MemAvailable');
    if (available > 0 && available < enough) return true;
    const left = podsMemory && podsLeft(podsMemory, enough);
    return left !== undefined && left < enough;
  };
  try {
    while (!signal.aborted) {
      await deps.clock.sleep(everyMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      const total = parsePsiTotal(read(`${proc}/pressure/memory`));
      const trouble = total - before > stalledUs || isShort();
      if (!told && trouble) onAlarm();
      told = false;
      before = total;
      events.look();
    }
  } finally {
    events.close();
  }
}
