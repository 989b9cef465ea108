// In which order pods go: first those above their requests, then by priority, then by how far above. Pure; the kubelet's order.
import type { Pod } from '../../kube/types/pod.ts';
import { podRequests } from '../../kube/scheduling/pod-resources.ts';
import type { FsStats, PodStats } from '../stats/summary-types.ts';
import { type Starved, starvedOf } from './eviction-signals.ts';
import type { Signal } from './thresholds.ts';

export type StatsOf = (pod: Pod) => PodStats | undefined;
type Compare = (a: Pod, b: Pod) => number;
type Part = 'rootfs' | 'logs' | 'volumes';

/** What a pod uses of a resource; undefined where nothing is known of the pod. */
type UsageOf = (pod: Pod) => number | undefined;

/** Names of volumes whose bytes are the node's own. */
export const localVolumes = (pod: Pod): Set<string> =>
  new Set(
    (pod.spec.volumes ?? [])
      .filter(
        (volume) => volume.hostPath || volume.configMap || (volume.emptyDir && volume.emptyDir.medium !== 'Memory'),
      )
      .map(({ name }) => name),
  );

const amountOf = (stats: FsStats | undefined, starved: Starved): number =>
  (starved === 'inodes' ? stats?.inodesUsed : stats?.usedBytes) ?? 0;

export function diskUsage(pod: Pod, stats: PodStats, parts: readonly Part[], starved: Starved): number {
  let sum = 0;
  for (const container of stats.containers) {
    if (parts.includes('rootfs')) sum += amountOf(container.rootfs, starved);
    if (parts.includes('logs')) sum += amountOf(container.logs, starved);
  }
  if (parts.includes('volumes')) {
    const names = localVolumes(pod);
    for (const volume of stats.volume ?? []) if (names.has(volume.name)) sum += amountOf(volume, starved);
  }
  return sum;
}

const trueFirst = (a: boolean, b: boolean): number => Number(b) - Number(a);
const byPriority: Compare = (a, b) => (a.spec.priority ?? 0) - (b.spec.priority ?? 0);

function byExcess(usageOf: UsageOf, requestOf: (pod: Pod) => number): [exceeds: Compare, excess: Compare] {
  const known = (a: Pod, b: Pod, compare: (ua: number, ub: number) => number): number => {
    const [ua, ub] = [usageOf(a), usageOf(b)];
    return ua === undefined || ub === undefined ? trueFirst(ua === undefined, ub === undefined) : compare(ua, ub);
  };
  return [
    (a, b) => known(a, b, (ua, ub) => trueFirst(ua > requestOf(a), ub > requestOf(b))),
    (a, b) => known(a, b, (ua, ub) => ub - requestOf(b) - (ua - requestOf(a))),
  ];
}

const partsOf = (signal: Signal, dedicatedImageFs: boolean): Part[] => {
  if (!dedicatedImageFs) return ['rootfs', 'logs', 'volumes'];
  return signal.startsWith('nodefs') ? ['logs', 'volumes'] : ['rootfs'];
};

/** The pods, the first to go first. */
export function rankPods(
  pods: readonly Pod[],
  statsOf: StatsOf,
  signal: Signal,
  dedicatedImageFs: boolean,
): readonly Pod[] {
  const starved = starvedOf(signal);
  const order: Compare[] = [];
  if (starved === 'pids') {
    const [, most] = byExcess(
      (pod) => {
        const stats = statsOf(pod);
        return stats && (stats.process_stats?.process_count ?? 0);
      },
      () => 0,
    );
    order.push(byPriority, most);
  } else if (starved === 'memory') {
    const [exceeds, excess] = byExcess(
      (pod) => {
        const stats = statsOf(pod);
        return stats && (stats.memory?.workingSetBytes ?? 0);
      },
      (pod) => podRequests(pod).memory ?? 0,
    );
    order.push(exceeds, byPriority, excess);
  } else {
    const parts = partsOf(signal, dedicatedImageFs);
    const [exceeds, excess] = byExcess(
      (pod) => {
        const stats = statsOf(pod);
        return stats && diskUsage(pod, stats, parts, starved);
      },
      // Nobody requests inodes.
      (pod) => (starved === 'inodes' ? 0 : (podRequests(pod)['ephemeral-storage'] ?? 0)),
    );
    order.push(exceeds, byPriority, excess);
  }
  return [...pods].sort((a, b) => {
    for (const compare of order) {
      const result = compare(a, b);
      if (result !== 0) return result;
    }
    return 0;
  });
}
