// What a cgroup has used, in one shape for cgroup v1 and v2.

export type Depth = 'core' | 'full';

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
  /** Bytes by what the kernel calls the operation: Read and Write, on version 1 Sync, Async, Discard and Total too. */
  readonly byOperation: readonly (readonly [operation: string, bytes: number])[];
  /** What a scheduler counts for each cgroup (BFQ with its debugging on, or the old CFQ). Version 1. */
  readonly scheduler?: Readonly<Partial<Record<SchedulerCount, number>>> | undefined;
  /** What the cost model of I/O charged, microseconds. Version 2, where `io.cost.qos` is on. */
  readonly cost?: {
    readonly usageUs: number;
    readonly waitUs: number;
    readonly indebtUs: number;
    readonly indelayUs: number;
  };
}
/** Times are nanoseconds. */
export type SchedulerCount =
  | 'sectorsRead'
  | 'sectorsWritten'
  | 'readsMerged'
  | 'writesMerged'
  | 'readNs'
  | 'writeNs'
  | 'serviceNs'
  | 'queued';

export interface CgroupSample {
  /** When it was read, milliseconds since the epoch. */
  readonly timeMs: number;
  /** `core` has processor, memory and swap alone: what autoscalers read. */
  readonly depth: Depth;
  /** When its limits were read, which change by somebody's hand only. */
  readonly limitsAtMs: number;
  /** How many looks in a row found that nothing had run in it since the one before. */
  readonly idleLooks: number;
  readonly cpu:
    | {
        readonly usageNs: number;
        readonly userNs: number;
        readonly systemNs: number;
        readonly periods: number;
        readonly throttledPeriods: number;
        readonly throttledNs: number;
        /** Periods in which more than the quota was used, as `cpu.cfs_burst_us` allows. */
        readonly bursts: number;
        readonly burstNs: number;
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
        /** What the kernel spares as long as it can: `memory.soft_limit_in_bytes`, or `memory.min`. */
        readonly reservation: number | undefined;
        readonly maxUsage: number | undefined;
        readonly rss: number;
        readonly cache: number;
        readonly mapped: number;
        readonly kernel: number;
        readonly activeFile: number;
        readonly inactiveFile: number;
        readonly pageFaults: number;
        readonly majorPageFaults: number;
        /** Without those of the cgroups below it; version 2 knows only both together. */
        readonly ownPageFaults: number;
        readonly ownMajorPageFaults: number;
        readonly failures: number;
        readonly oomKills: number;
        readonly swapUsage: number | undefined;
        readonly swapLimit: number | undefined;
        /** As it is written in the cgroup: on version 1 of memory and swap together. */
        readonly swapLimitAsSet: number | undefined;
        readonly psi?: Psi | undefined;
      }
    | undefined;
  readonly processes: { readonly current: number; readonly max: number | undefined } | undefined;
  readonly io: readonly DeviceIo[];
  readonly ioPsi?: Psi | undefined;
}

/** What the look before found, and what of it may serve again. */
export interface ReadOptions {
  readonly depth: Depth;
  /** The sample before of the same cgroup, of the same depth or deeper. */
  readonly before?: CgroupSample | undefined;
  /** The limits of `before` serve again. */
  readonly keepLimits: boolean;
}
