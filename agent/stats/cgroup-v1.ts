// A cgroup of version 1: the same path in the hierarchy of each controller.
import type { CgroupSample, Depth, ReadOptions } from './cgroup-sample.ts';
import { type BlkioTexts, hasDevices, keyed, parseBlkio } from './cgroup-text.ts';
import { parseNumber, type PseudoFolder, readNumber } from './pseudo-files.ts';

export interface ControllerFolders {
  readonly cpu: PseudoFolder;
  readonly cpuacct: PseudoFolder;
  readonly memory: PseudoFolder;
  readonly pids: PseudoFolder;
  readonly blkio: PseudoFolder;
}

const tickNs = 10_000_000; // USER_HZ is 100 on every architecture Linux shows to user space.

const positive = (value: number | undefined): number | undefined =>
  value !== undefined && value > 0 ? value : undefined;

function limitsOf({ cpu, memory, pids }: ControllerFolders) {
  const limit = readNumber(`${memory.folder}/memory.limit_in_bytes`);
  const both = parseNumber(memory.read('memory.memsw.limit_in_bytes'));
  return {
    quotaUs: positive(readNumber(`${cpu.folder}/cpu.cfs_quota_us`)),
    periodUs: readNumber(`${cpu.folder}/cpu.cfs_period_us`),
    shares: readNumber(`${cpu.folder}/cpu.shares`),
    memory: limit,
    reservation: parseNumber(memory.read('memory.soft_limit_in_bytes')),
    swap: both === undefined || limit === undefined ? undefined : Math.max(0, both - limit),
    both,
    processes: readNumber(`${pids.folder}/pids.max`),
  };
}

const limitsIn = (sample: CgroupSample) => ({
  quotaUs: sample.cpu?.quotaUs,
  periodUs: sample.cpu?.periodUs,
  shares: sample.cpu?.shares,
  memory: sample.memory?.limit,
  reservation: sample.memory?.reservation,
  swap: sample.memory?.swapLimit,
  both: sample.memory?.swapLimitAsSet,
  processes: sample.processes?.max,
});

/** Who counts I/O, the one that says most first. A scheduler counts for the devices that use it, and there may be none. */
const counters = [
  { of: (name: string) => `blkio.bfq.${name}_recursive`, scheduler: true },
  { of: (name: string) => `blkio.${name}_recursive`, scheduler: true }, // CFQ, before Linux 5.0.
  { of: (name: string) => `blkio.throttle.${name}_recursive`, scheduler: false },
  { of: (name: string) => `blkio.throttle.${name}`, scheduler: false },
] as const;

function blkioOf(blkio: PseudoFolder): BlkioTexts {
  for (const { of, scheduler } of counters) {
    const bytes = blkio.read(of('io_service_bytes'));
    if (bytes === undefined) continue;
    if (!hasDevices(bytes)) {
      if (scheduler) continue;
      // What is not counted of all below it is not counted of it alone.
      return {};
    }
    return {
      io_service_bytes: bytes,
      io_serviced: blkio.read(of('io_serviced')),
      ...(scheduler
        ? {
            sectors: blkio.read(of('sectors')),
            io_service_time: blkio.read(of('io_service_time')),
            io_merged: blkio.read(of('io_merged')),
            io_queued: blkio.read(of('io_queued')),
          }
        : {}),
    };
  }
  return {};
}

/** What changes only where something runs. */
function activity(
  files: ControllerFolders,
  depth: Depth,
  still: CgroupSample | undefined,
  limits: ReturnType<typeof limitsOf>,
) {
  if (depth === 'core') return undefined;
  if (still?.cpu && still.memory) {
    const { userNs, systemNs, periods, throttledPeriods, throttledNs, bursts, burstNs } = still.cpu;
    const { failures, oomKills, maxUsage, kernel } = still.memory;
    const current = still.processes?.current;
    const cpu = { userNs, systemNs, periods, throttledPeriods, throttledNs, bursts, burstNs };
    return { cpu, memory: { failures, oomKills, maxUsage, kernel }, processes: current, io: still.io };
  }
  const ticks = files.cpuacct.read('cpuacct.stat');
  // Who has no quota is never throttled.
  const throttling = limits.quotaUs === undefined ? undefined : files.cpu.read('cpu.stat');
  const oom = files.memory.read('memory.oom_control');
  return {
    cpu: {
      userNs: (keyed(ticks, 'user') ?? 0) * tickNs,
      systemNs: (keyed(ticks, 'system') ?? 0) * tickNs,
      periods: keyed(throttling, 'nr_periods') ?? 0,
      throttledPeriods: keyed(throttling, 'nr_throttled') ?? 0,
      throttledNs: keyed(throttling, 'throttled_time') ?? 0,
      bursts: keyed(throttling, 'nr_bursts') ?? 0,
      burstNs: keyed(throttling, 'burst_time') ?? 0,
    },
    memory: {
      failures: parseNumber(files.memory.read('memory.failcnt')) ?? 0,
      oomKills: keyed(oom, 'oom_kill') ?? 0,
      maxUsage: parseNumber(files.memory.read('memory.max_usage_in_bytes')),
      kernel: parseNumber(files.memory.read('memory.kmem.usage_in_bytes')) ?? 0,
    },
    processes: parseNumber(files.pids.read('pids.current')),
    io: parseBlkio(blkioOf(files.blkio)),
  };
}

const noTime = { userNs: 0, systemNs: 0, periods: 0, throttledPeriods: 0, throttledNs: 0, bursts: 0, burstNs: 0 };

export function readV1(files: ControllerFolders, timeMs: number, options: ReadOptions): CgroupSample | undefined {
  const { depth, before } = options;
  const usageNs = readNumber(`${files.cpuacct.folder}/cpuacct.usage`);
  const usage = readNumber(`${files.memory.folder}/memory.usage_in_bytes`);
  if (usageNs === undefined && usage === undefined) return undefined;
  const stat = usage === undefined ? undefined : files.memory.read('memory.stat');
  const still =
    before?.depth === depth && usageNs !== undefined && before.cpu?.usageNs === usageNs ? before : undefined;
  const limits = before && options.keepLimits ? limitsIn(before) : limitsOf(files);
  const active = activity(files, depth, still, limits);
  const of = (name: string): number => keyed(stat, name) ?? 0;
  const inactiveFile = of('total_inactive_file');
  return {
    timeMs,
    depth,
    limitsAtMs: before && options.keepLimits ? before.limitsAtMs : timeMs,
    idleLooks: still ? still.idleLooks + 1 : 0,
    cpu:
      usageNs === undefined
        ? undefined
        : {
            usageNs,
            ...(active?.cpu ?? noTime),
            quotaUs: limits.quotaUs,
            periodUs: limits.periodUs,
            shares: limits.shares,
          },
    memory:
      usage === undefined
        ? undefined
        : {
            usage,
            workingSet: Math.max(0, usage - inactiveFile),
            limit: limits.memory,
            reservation: limits.reservation,
            maxUsage: active?.memory.maxUsage,
            rss: of('total_rss'),
            cache: of('total_cache'),
            mapped: of('total_mapped_file'),
            kernel: active?.memory.kernel ?? 0,
            activeFile: of('total_active_file'),
            inactiveFile,
            pageFaults: of('total_pgfault'),
            majorPageFaults: of('total_pgmajfault'),
            ownPageFaults: of('pgfault'),
            ownMajorPageFaults: of('pgmajfault'),
            failures: active?.memory.failures ?? 0,
            oomKills: active?.memory.oomKills ?? 0,
            swapUsage: keyed(stat, 'total_swap'),
            swapLimit: limits.swap,
            swapLimitAsSet: limits.both,
          },
    processes: active?.processes === undefined ? undefined : { current: active.processes, max: limits.processes },
    io: active?.io ?? [],
  };
}
