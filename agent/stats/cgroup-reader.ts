// What a cgroup has used, from cgroup v1 or v2, in one shape. By path: nothing is searched for.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseKeyed, readNumber, readPseudoFile } from './pseudo-files.ts';

export interface Psi {
  readonly some: PsiLine;
  readonly full: PsiLine;
}
export interface PsiLine {
  /** Microseconds stalled since the cgroup was made. */
  readonly totalUs: number;
  readonly avg10: number;
  readonly avg60: number;
  readonly avg300: number;
}

export interface DeviceIo {
  /** MAJOR:MINOR. */
  readonly device: string;
  readonly readBytes: number;
  readonly writeBytes: number;
  readonly reads: number;
  readonly writes: number;
}

export interface CgroupSample {
  /** When it was read, milliseconds since the epoch. */
  readonly timeMs: number;
  readonly cpu:
    | {
        readonly usageNs: number;
        readonly userNs: number;
        readonly systemNs: number;
        readonly periods: number;
        readonly throttledPeriods: number;
        readonly throttledNs: number;
        /** Microseconds of CPU in each period; undefined: no quota. */
        readonly quotaUs: number | undefined;
        readonly periodUs: number | undefined;
        readonly shares: number | undefined;
        readonly psi?: Psi | undefined;
      }
    | undefined;
  /** Bytes, but for counts. */
  readonly memory:
    | {
        readonly usage: number;
        /** Usage less the file cache that can be dropped at once. */
        readonly workingSet: number;
        readonly limit: number | undefined;
        readonly maxUsage: number | undefined;
        readonly rss: number;
        readonly cache: number;
        readonly mapped: number;
        readonly kernel: number;
        readonly activeFile: number;
        readonly inactiveFile: number;
        readonly pageFaults: number;
        readonly majorPageFaults: number;
        readonly failures: number;
        readonly oomKills: number;
        readonly swapUsage: number | undefined;
        readonly swapLimit: number | undefined;
        readonly psi?: Psi | undefined;
      }
    | undefined;
  readonly processes: { readonly current: number; readonly max: number | undefined } | undefined;
  readonly io: readonly DeviceIo[];
  readonly ioPsi?: Psi | undefined;
}

export interface CgroupReader {
  readonly version: 1 | 2;
  /** `path` begins with a slash and names the cgroup in every hierarchy. Undefined where there is no such cgroup. */
  read(path: string, nowMs: number): CgroupSample | undefined;
  /** A process in the cgroup; undefined where there is none. */
  firstPid(path: string): number | undefined;
}

const tickNs = 10_000_000; // USER_HZ is 100 on every architecture Linux shows to user space.

export function parsePsi(text: string | undefined): Psi | undefined {
  if (!text) return undefined;
  const none: PsiLine = { totalUs: 0, avg10: 0, avg60: 0, avg300: 0 };
  const line = (name: string): PsiLine => {
    const found = new RegExp(`^${name} avg10=([\\d.]+) avg60=([\\d.]+) avg300=([\\d.]+) total=(\\d+)`, 'm').exec(text);
    if (!found) return none;
    return { avg10: Number(found[1]), avg60: Number(found[2]), avg300: Number(found[3]), totalUs: Number(found[4]) };
  };
  return { some: line('some'), full: line('full') };
}

/** `io.stat` of cgroup v2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`. */
export function parseIoStat(text: string | undefined): DeviceIo[] {
  return (text ?? '').split('\n').flatMap((line) => {
    const [device, ...fields] = line.split(' ');
    if (!device || fields.length === 0) return [];
    const values = new Map(fields.map((field) => field.split('=') as [string, string]));
    const of = (name: string): number => Number(values.get(name) ?? 0);
    return [{ device, readBytes: of('rbytes'), writeBytes: of('wbytes'), reads: of('rios'), writes: of('wios') }];
  });
}

/** `blkio.throttle.io_service_bytes` and `…io_serviced` of cgroup v1: `8:0 Read 1` lines. */
export function parseBlkio(bytes: string | undefined, counts: string | undefined): DeviceIo[] {
  const devices = new Map<string, { readBytes: number; writeBytes: number; reads: number; writes: number }>();
  const note = (text: string | undefined, read: 'readBytes' | 'reads', write: 'writeBytes' | 'writes'): void => {
    for (const line of (text ?? '').split('\n')) {
      const [device = '', kind, value] = line.split(' ');
      if (value === undefined || (kind !== 'Read' && kind !== 'Write')) continue;
      const entry = devices.get(device) ?? { readBytes: 0, writeBytes: 0, reads: 0, writes: 0 };
      entry[kind === 'Read' ? read : write] = Number(value);
      devices.set(device, entry);
    }
  };
  note(bytes, 'readBytes', 'writeBytes');
  note(counts, 'reads', 'writes');
  return [...devices].map(([device, values]) => ({ device, ...values }));
}

const positive = (value: number | undefined): number | undefined =>
  value !== undefined && value > 0 ? value : undefined;

function readV2(folder: string, timeMs: number): CgroupSample | undefined {
  const cpuText = readPseudoFile(join(folder, 'cpu.stat'));
  if (cpuText === undefined) return undefined;
  const cpu = parseKeyed(cpuText);
  const [quota, period] = (readPseudoFile(join(folder, 'cpu.max')) ?? '').trim().split(' ');
  const weight = readNumber(join(folder, 'cpu.weight'));
  const usage = readNumber(join(folder, 'memory.current'));
  const stat = usage === undefined ? {} : parseKeyed(readPseudoFile(join(folder, 'memory.stat')));
  const events = usage === undefined ? {} : parseKeyed(readPseudoFile(join(folder, 'memory.events')));
  const processes = readNumber(join(folder, 'pids.current'));
  return {
    timeMs,
    cpu: {
      usageNs: (cpu.usage_usec ?? 0) * 1000,
      userNs: (cpu.user_usec ?? 0) * 1000,
      systemNs: (cpu.system_usec ?? 0) * 1000,
      periods: cpu.nr_periods ?? 0,
      throttledPeriods: cpu.nr_throttled ?? 0,
      throttledNs: (cpu.throttled_usec ?? 0) * 1000,
      quotaUs: quota && quota !== 'max' ? Number(quota) : undefined,
      periodUs: period ? Number(period) : undefined,
      shares: weight === undefined ? undefined : Math.trunc(((weight - 1) * 262_142) / 9999) + 2,
      psi: parsePsi(readPseudoFile(join(folder, 'cpu.pressure'))),
    },
    memory:
      usage === undefined
        ? undefined
        : {
            usage,
            workingSet: Math.max(0, usage - (stat.inactive_file ?? 0)),
            limit: readNumber(join(folder, 'memory.max')),
            maxUsage: readNumber(join(folder, 'memory.peak')),
            rss: stat.anon ?? 0,
            cache: stat.file ?? 0,
            mapped: stat.file_mapped ?? 0,
            kernel: stat.kernel ?? 0,
            activeFile: stat.active_file ?? 0,
            inactiveFile: stat.inactive_file ?? 0,
            pageFaults: stat.pgfault ?? 0,
            majorPageFaults: stat.pgmajfault ?? 0,
            failures: events.max ?? 0,
            oomKills: events.oom_kill ?? 0,
            swapUsage: readNumber(join(folder, 'memory.swap.current')),
            swapLimit: readNumber(join(folder, 'memory.swap.max')),
            psi: parsePsi(readPseudoFile(join(folder, 'memory.pressure'))),
          },
    processes: processes === undefined ? undefined : { current: processes, max: readNumber(join(folder, 'pids.max')) },
    io: parseIoStat(readPseudoFile(join(folder, 'io.stat'))),
    ioPsi: parsePsi(readPseudoFile(join(folder, 'io.pressure'))),
  };
}

function readV1(root: string, path: string, timeMs: number): CgroupSample | undefined {
  const of = (controller: string, file: string): string => join(root, controller, path, file);
  const usageNs = readNumber(of('cpuacct', 'cpuacct.usage'));
  const usage = readNumber(of('memory', 'memory.usage_in_bytes'));
  if (usageNs === undefined && usage === undefined) return undefined;
  const ticks = parseKeyed(readPseudoFile(of('cpuacct', 'cpuacct.stat')));
  const cpu = parseKeyed(readPseudoFile(of('cpu', 'cpu.stat')));
  const stat = parseKeyed(readPseudoFile(of('memory', 'memory.stat')));
  const oom = parseKeyed(readPseudoFile(of('memory', 'memory.oom_control')));
  const both = readNumber(of('memory', 'memory.memsw.limit_in_bytes'));
  const limit = readNumber(of('memory', 'memory.limit_in_bytes'));
  const processes = readNumber(of('pids', 'pids.current'));
  return {
    timeMs,
    cpu:
      usageNs === undefined
        ? undefined
        : {
            usageNs,
            userNs: (ticks.user ?? 0) * tickNs,
            systemNs: (ticks.system ?? 0) * tickNs,
            periods: cpu.nr_periods ?? 0,
            throttledPeriods: cpu.nr_throttled ?? 0,
            throttledNs: cpu.throttled_time ?? 0,
            quotaUs: positive(readNumber(of('cpu', 'cpu.cfs_quota_us'))),
            periodUs: readNumber(of('cpu', 'cpu.cfs_period_us')),
            shares: readNumber(of('cpu', 'cpu.shares')),
          },
    memory:
      usage === undefined
        ? undefined
        : {
            usage,
            workingSet: Math.max(0, usage - (stat.total_inactive_file ?? 0)),
            limit,
            maxUsage: readNumber(of('memory', 'memory.max_usage_in_bytes')),
            rss: stat.total_rss ?? 0,
            cache: stat.total_cache ?? 0,
            mapped: stat.total_mapped_file ?? 0,
            kernel: readNumber(of('memory', 'memory.kmem.usage_in_bytes')) ?? 0,
            activeFile: stat.total_active_file ?? 0,
            inactiveFile: stat.total_inactive_file ?? 0,
            pageFaults: stat.total_pgfault ?? 0,
            majorPageFaults: stat.total_pgmajfault ?? 0,
            failures: readNumber(of('memory', 'memory.failcnt')) ?? 0,
            oomKills: oom.oom_kill ?? 0,
            swapUsage: stat.total_swap,
            swapLimit: both === undefined || limit === undefined ? undefined : Math.max(0, both - limit),
          },
    processes: processes === undefined ? undefined : { current: processes, max: readNumber(of('pids', 'pids.max')) },
    io: parseBlkio(
      readPseudoFile(of('blkio', 'blkio.throttle.io_service_bytes')),
      readPseudoFile(of('blkio', 'blkio.throttle.io_serviced')),
    ),
  };
}

/** `root` is where cgroups are mounted, `/sys/fs/cgroup`. */
export function createCgroupReader(root: string): CgroupReader {
  const version = existsSync(join(root, 'cgroup.controllers')) ? 2 : 1;
  return {
    version,
    read: (path, nowMs) => (version === 2 ? readV2(join(root, path), nowMs) : readV1(root, path, nowMs)),
    firstPid(path) {
      const folder = version === 2 ? join(root, path) : join(root, 'memory', path);
      const pid = Number.parseInt(readPseudoFile(join(folder, 'cgroup.procs')) ?? '', 10);
      return Number.isNaN(pid) || pid <= 0 ? undefined : pid;
    },
  };
}
