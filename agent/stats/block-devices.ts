// Names and counters of block devices, by their numbers.
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';

/** What /proc/diskstats says of a device since it is there. Times are milliseconds, sectors have 512 bytes. */
export interface DiskCounters {
  readonly reads: number;
  readonly readsMerged: number;
  readonly sectorsRead: number;
  readonly readMs: number;
  readonly writes: number;
  readonly writesMerged: number;
  readonly sectorsWritten: number;
  readonly writeMs: number;
  readonly inProgress: number;
  readonly busyMs: number;
  readonly weightedMs: number;
}

export interface Diskstats {
  /** By MAJOR:MINOR. */
  readonly byNumber: ReadonlyMap<string, DiskCounters>;
  /** By the kernel's name, `sda1`. */
  readonly byName: ReadonlyMap<string, DiskCounters>;
}

/** `   8       1 sda1 40 0 280 223 7 0 22 108 0 330 330 …`. Lines that make no sense are left out. */
export function parseDiskstats(text: string | undefined): Diskstats {
  const byNumber = new Map<string, DiskCounters>();
  const byName = new Map<string, DiskCounters>();
  for (const line of (text ?? '').split('\n')) {
    const [major, minor, name, ...counts] = line.trim().split(/\s+/);
    const values = counts.slice(0, 11).map(Number);
    if (!name || values.length < 11 || values.some((value) => !Number.isFinite(value))) continue;
    const counters: DiskCounters = {
      reads: values[0]!,
      readsMerged: values[1]!,
      sectorsRead: values[2]!,
      readMs: values[3]!,
      writes: values[4]!,
      writesMerged: values[5]!,
      sectorsWritten: values[6]!,
      writeMs: values[7]!,
      inProgress: values[8]!,
      busyMs: values[9]!,
      weightedMs: values[10]!,
    };
    byNumber.set(`${major}:${minor}`, counters);
    byName.set(name, counters);
  }
  return { byNumber, byName };
}

/** `/dev/sda` of `8:0`; the number where there is no such device. `sys` is where sysfs is mounted. */
export function deviceName(sys: string, number: string): string {
  try {
    // The link ends in the kernel's name, in which a slash is written as an exclamation mark.
    return `/dev/${basename(readlinkSync(`${sys}/dev/block/${number}`)).replaceAll('!', '/')}`;
  } catch {
    return number;
  }
}
