// What eviction looks at, taken from the node's statistics, and which thresholds it crosses. Pure.
import type { FsStats, Summary } from '../stats/summary-types.ts';
import { type Signal, type Threshold, thresholdAmount } from './thresholds.ts';

export interface Observation {
  /** Whole units: bytes, inodes, processes. */
  readonly available: number;
  readonly capacity: number;
  /** When it was measured, milliseconds since the epoch. */
  readonly atMs: number;
}

export type Observations = ReadonlyMap<Signal, Observation>;

/** The resource that a crossed threshold makes eviction reclaim. */
export type Starved = 'memory' | 'ephemeral-storage' | 'inodes' | 'pids';

export const starvedOf = (signal: Signal): Starved => {
  if (signal.endsWith('inodesFree')) return 'inodes';
  if (signal === 'pid.available') return 'pids';
  return signal === 'memory.available' || signal === 'allocatableMemory.available' ? 'memory' : 'ephemeral-storage';
};

export type PressureKind = 'memory' | 'disk' | 'pid';

export const pressureOf = (signal: Signal): PressureKind => {
  const starved = starvedOf(signal);
  if (starved === 'memory') return 'memory';
  return starved === 'pids' ? 'pid' : 'disk';
};

const at = (time: string | undefined): number => (time === undefined ? 0 : Date.parse(time));

export function observe(summary: Summary): Observations {
  const found = new Map<Signal, Observation>();
  const add = (signal: Signal, available: number | undefined, capacity: number | undefined, time: string): void => {
    if (available !== undefined && capacity !== undefined) found.set(signal, { available, capacity, atMs: at(time) });
  };
  const memory = (signal: Signal, stats: Summary['node']['memory']): void => {
    if (stats?.availableBytes === undefined || stats.workingSetBytes === undefined) return;
    add(signal, stats.availableBytes, stats.availableBytes + stats.workingSetBytes, stats.time);
  };
  const disk = (name: 'nodefs' | 'imagefs' | 'containerfs', stats: FsStats | undefined): void => {
    if (!stats) return;
    add(`${name}.available`, stats.availableBytes, stats.capacityBytes, stats.time);
    add(`${name}.inodesFree`, stats.inodesFree, stats.inodes, stats.time);
  };
  const { node } = summary;
  memory('memory.available', node.memory);
  memory('allocatableMemory.available', node.systemContainers?.find(({ name }) => name === 'pods')?.memory);
  disk('nodefs', node.fs);
  disk('imagefs', node.runtime?.imageFs);
  disk('containerfs', node.runtime?.containerFs);
  if (node.rlimit) add('pid.available', node.rlimit.maxpid - node.rlimit.curproc, node.rlimit.maxpid, node.rlimit.time);
  return found;
}

/** Thresholds that are crossed; with `withReclaim` also those that are not yet far enough on the good side again. */
export const crossed = (
  thresholds: readonly Threshold[],
  observations: Observations,
  withReclaim: boolean,
): Threshold[] =>
  thresholds.filter(({ signal, value, minimumReclaim }) => {
    const seen = observations.get(signal);
    if (!seen) return false;
    const more = withReclaim && minimumReclaim ? thresholdAmount(minimumReclaim, seen.capacity) : 0;
    return seen.available < thresholdAmount(value, seen.capacity) + more;
  });

/** Memory first: it is the one that kills. */
export const byUrgency = (thresholds: readonly Threshold[]): Threshold[] =>
  [...thresholds].sort((a, b) => Number(starvedOf(b.signal) === 'memory') - Number(starvedOf(a.signal) === 'memory'));

/** The hard memory threshold holds for what pods may use as well, where that is enforced. */
export const withAllocatable = (thresholds: readonly Threshold[], enforced: readonly string[]): Threshold[] => [
  ...thresholds,
  ...(enforced.includes('pods')
    ? thresholds
        .filter(({ signal, hard }) => hard && signal === 'memory.available')
        .map((threshold): Threshold => ({ ...threshold, signal: 'allocatableMemory.available' }))
    : []),
];
