// Tells early that memory runs short, between the regular looks: by the kernel's count of time lost to reclaim (PSI), by events of the pods'
// cgroup (v2: memory.events is notified), and by MemAvailable coming near the threshold. Reading them costs microseconds.
import { type FSWatcher, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Clock } from '../../lib/clock.ts';
import { parseMeminfo } from './host-facts.ts';

export interface MemoryAlarmDeps {
  readonly clock: Clock;
  /** Default: /proc. */
  readonly proc?: string;
}

export interface MemoryAlarmOptions {
  /** The hard threshold of memory.available, in bytes. */
  readonly thresholdBytes: number;
  /** The pods' cgroup of version 2, for its memory.events; undefined on version 1. */
  readonly podsCgroup?: string | undefined;
}

const everyMs = 1000;
/** More stalled than this within a second is trouble, in microseconds. */
const stalledUs = 100_000;

/** Microseconds in which some task waited for memory. */
export const parsePsiTotal = (text: string): number => Number(/^some .*total=(\d+)/m.exec(text)?.[1] ?? 0);

/** Calls `onAlarm` at most once a second, until the signal aborts. */
export async function watchMemory(
  deps: MemoryAlarmDeps,
  options: MemoryAlarmOptions,
  onAlarm: () => void,
  signal: AbortSignal,
): Promise<void> {
  const proc = deps.proc ?? '/proc';
  const read = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
  let events: FSWatcher | undefined;
  let told = false;
  try {
    if (options.podsCgroup !== undefined) {
      events = watch(`${options.podsCgroup}/memory.events`, { persistent: false }, () => {
        if (!told) onAlarm();
        told = true;
      });
      events.on('error', () => events?.close());
    }
  } catch {
    // No such cgroup: the other two signs remain.
  }
  let before = parsePsiTotal(await read(`${proc}/pressure/memory`));
  try {
    while (!signal.aborted) {
      await deps.clock.sleep(everyMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      const total = parsePsiTotal(await read(`${proc}/pressure/memory`));
      const available = parseMeminfo(await read(`${proc}/meminfo`), 'MemAvailable');
      const short = available > 0 && available < options.thresholdBytes * 1.5;
      if (!told && (short || total - before > stalledUs)) onAlarm();
      told = false;
      before = total;
    }
  } finally {
    events?.close();
  }
}
