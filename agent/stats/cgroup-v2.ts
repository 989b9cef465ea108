// A cgroup of version 2.
import type { CgroupSample, Depth, ReadOptions } from './cgroup-sample.ts';
import { isCalm, keyed, parseIoStat, parsePsi } from './cgroup-text.ts';
import { parseNumber, type PseudoFolder, readNumber, readPseudoFile } from './pseudo-files.ts';

type Cpu = NonNullable<CgroupSample['cpu']>;
type Memory = NonNullable<CgroupSample['memory']>;

function limitsOf(folder: string, hasMemory: boolean) {
  const [quota, period] = (readPseudoFile(`${folder}/cpu.max`) ?? '').trim().split(' ');
  const weight = readNumber(`${folder}/cpu.weight`);
  return {
    quotaUs: quota && quota !== 'max' ? Number(quota) : undefined,
    periodUs: period ? Number(period) : undefined,
    shares: weight === undefined ? undefined : Math.trunc(((weight - 1) * 262_142) / 9999) + 2,
    memory: hasMemory ? readNumber(`${folder}/memory.max`) : undefined,
    reservation: hasMemory ? readNumber(`${folder}/memory.min`) : undefined,
    swap: hasMemory ? readNumber(`${folder}/memory.swap.max`) : undefined,
    processes: readNumber(`${folder}/pids.max`),
  };
}

const limitsIn = (sample: CgroupSample) => ({
  quotaUs: sample.cpu?.quotaUs,
  periodUs: sample.cpu?.periodUs,
  shares: sample.cpu?.shares,
  memory: sample.memory?.limit,
  reservation: sample.memory?.reservation,
  swap: sample.memory?.swapLimit,
  processes: sample.processes?.max,
});

/** What changes only where something runs. Stalls go on while nothing runs: they are read until they have died down. */
function activity(
  files: PseudoFolder,
  depth: Depth,
  still: CgroupSample | undefined,
  memory: 'none' | 'of the root' | 'counted',
) {
  if (depth === 'core') return undefined;
  const calm =
    still !== undefined &&
    still.idleLooks > 0 &&
    isCalm(still.cpu?.psi) &&
    isCalm(still.memory?.psi) &&
    isCalm(still.ioPsi);
  const psi = calm
    ? { cpu: still.cpu?.psi, memory: still.memory?.psi, io: still.ioPsi }
    : {
        cpu: parsePsi(files.read('cpu.pressure')),
        memory: memory === 'none' ? undefined : parsePsi(files.read('memory.pressure')),
        io: parsePsi(files.read('io.pressure')),
      };
  const hasMemory = memory === 'counted';
  if (still?.memory) {
    const { failures, oomKills, maxUsage } = still.memory;
    return { psi, failures, oomKills, maxUsage, processes: still.processes?.current, io: still.io };
  }
  const events = hasMemory ? files.read('memory.events') : undefined;
  return {
    psi,
    failures: keyed(events, 'max') ?? 0,
    oomKills: keyed(events, 'oom_kill') ?? 0,
    maxUsage: hasMemory ? parseNumber(files.read('memory.peak')) : undefined,
    processes: parseNumber(files.read('pids.current')),
    io: parseIoStat(files.read('io.stat')),
  };
}

export function readV2(files: PseudoFolder, timeMs: number, options: ReadOptions): CgroupSample | undefined {
  const { depth, before } = options;
  const cpuText = readPseudoFile(`${files.folder}/cpu.stat`);
  if (cpuText === undefined) return undefined;
  const usageNs = (keyed(cpuText, 'usage_usec') ?? 0) * 1000;
  const counted = parseNumber(files.read('memory.current'));
  const stat = files.read('memory.stat');
  // The root has no usage of its own: what is anonymous and what is of files is what version 1 says of its root.
  const usage = counted ?? (stat === undefined ? undefined : (keyed(stat, 'anon') ?? 0) + (keyed(stat, 'file') ?? 0));
  const still = before?.depth === depth && before.cpu?.usageNs === usageNs ? before : undefined;
  const limits = before && options.keepLimits ? limitsIn(before) : limitsOf(files.folder, counted !== undefined);
  const active = activity(
    files,
    depth,
    still,
    counted !== undefined ? 'counted' : usage === undefined ? 'none' : 'of the root',
  );
  const of = (name: string): number => keyed(stat, name) ?? 0;
  const inactiveFile = of('inactive_file');

  const cpu: Cpu = {
    usageNs,
    userNs: (keyed(cpuText, 'user_usec') ?? 0) * 1000,
    systemNs: (keyed(cpuText, 'system_usec') ?? 0) * 1000,
    periods: keyed(cpuText, 'nr_periods') ?? 0,
    throttledPeriods: keyed(cpuText, 'nr_throttled') ?? 0,
    throttledNs: (keyed(cpuText, 'throttled_usec') ?? 0) * 1000,
    bursts: keyed(cpuText, 'nr_bursts') ?? 0,
    burstNs: (keyed(cpuText, 'burst_usec') ?? 0) * 1000,
    quotaUs: limits.quotaUs,
    periodUs: limits.periodUs,
    shares: limits.shares,
    psi: active?.psi.cpu,
  };
  const memory: Memory | undefined =
    usage === undefined
      ? undefined
      : {
          usage,
          workingSet: Math.max(0, usage - inactiveFile),
          limit: limits.memory,
          reservation: limits.reservation,
          maxUsage: active?.maxUsage,
          rss: of('anon'),
          cache: of('file'),
          mapped: of('file_mapped'),
          kernel: of('kernel'),
          activeFile: of('active_file'),
          inactiveFile,
          pageFaults: of('pgfault'),
          majorPageFaults: of('pgmajfault'),
          ownPageFaults: of('pgfault'),
          ownMajorPageFaults: of('pgmajfault'),
          failures: active?.failures ?? 0,
          oomKills: active?.oomKills ?? 0,
          swapUsage: parseNumber(files.read('memory.swap.current')),
          swapLimit: limits.swap,
          swapLimitAsSet: limits.swap,
          psi: active?.psi.memory,
        };
  return {
    timeMs,
    depth,
    limitsAtMs: before && options.keepLimits ? before.limitsAtMs : timeMs,
    idleLooks: still ? still.idleLooks + 1 : 0,
    cpu,
    memory,
    processes: active?.processes === undefined ? undefined : { current: active.processes, max: limits.processes },
    io: active?.io ?? [],
    ioPsi: active?.psi.io,
  };
}
