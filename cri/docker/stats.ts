// Statistics of running containers. Docker's `usage` counts the page cache; the working set leaves out what can be dropped at once.
import type { ContainerStats } from 'dockerode';
import type * as t from '../types.ts';

interface MemoryNumbers {
  readonly usage?: number;
  readonly limit?: number;
  readonly stats?: Readonly<Record<string, number | undefined>>;
}

/** usage − inactive_file, in the names of cgroup v1 and v2. */
export function memoryOf(memory: MemoryNumbers, timestampMs: number, limitBytes: number): t.ContainerStats['memory'] {
  const { usage, stats = {} } = memory;
  if (usage === undefined) return undefined;
  const inactive = stats.total_inactive_file ?? stats.inactive_file ?? 0;
  const workingSetBytes = Math.max(0, usage - inactive);
  return {
    timestampMs,
    usageBytes: usage,
    workingSetBytes,
    // The kernel's "no limit" is no limit of the container's.
    availableBytes: limitBytes > 0 ? Math.max(0, limitBytes - workingSetBytes) : undefined,
    rssBytes: stats.total_rss ?? stats.anon ?? stats.rss,
    pageFaults: stats.total_pgfault ?? stats.pgfault,
    majorPageFaults: stats.total_pgmajfault ?? stats.pgmajfault,
  };
}

export function statsOf(
  about: Pick<t.ContainerStats, 'id' | 'metadata' | 'labels' | 'annotations'>,
  stats: ContainerStats,
  limitBytes: number,
): t.ContainerStats {
  const timestampMs = Math.max(0, Date.parse(stats.read) || 0);
  return {
    ...about,
    // A container that ended while it was asked about has only zeroes.
    cpu: timestampMs > 0 ? { timestampMs, usageCoreNanoSeconds: stats.cpu_stats.cpu_usage.total_usage } : undefined,
    memory: timestampMs > 0 ? memoryOf(stats.memory_stats, timestampMs, limitBytes) : undefined,
  };
}
