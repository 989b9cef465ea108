// Pods that use more local storage than they said they would: emptyDir sizeLimit, the pod's and its containers' ephemeral-storage limits. Pure.
import type { Pod } from '../../kube/types/pod.ts';
import { units } from '../../kube/scheduling/amounts.ts';
import { podLimits } from '../../kube/scheduling/pod-resources.ts';
import type { PodStats } from '../stats/summary-types.ts';
import { formatBytes } from './capacity.ts';

export interface Excess {
  /** For the metric kubelet_evictions. */
  readonly signal: 'emptydirfs.limit' | 'ephemeralpodfs.limit' | 'ephemeralcontainerfs.limit';
  readonly message: string;
}

function emptyDirExcess(pod: Pod, stats: PodStats): Excess | undefined {
  for (const { name, emptyDir } of pod.spec.volumes ?? []) {
    const limit = emptyDir?.sizeLimit;
    const used = stats.volume?.find((volume) => volume.name === name)?.usedBytes;
    if (limit === undefined || used === undefined || units(limit) <= 0 || used <= units(limit)) continue;
    return { signal: 'emptydirfs.limit', message: `Usage of EmptyDir volume "${name}" exceeds the limit "${limit}". ` };
  }
  return undefined;
}

function podExcess(pod: Pod, stats: PodStats): Excess | undefined {
  const limit = podLimits(pod)['ephemeral-storage'];
  const used = stats['ephemeral-storage']?.usedBytes ?? 0;
  if (limit === undefined || used <= limit) return undefined;
  return {
    signal: 'ephemeralpodfs.limit',
    message: `Pod ephemeral local storage usage exceeds the total limit of containers ${formatBytes(limit)}. `,
  };
}

function containerExcess(pod: Pod, stats: PodStats, dedicatedImageFs: boolean): Excess | undefined {
  for (const used of stats.containers) {
    const container = pod.spec.containers.find(({ name }) => name === used.name);
    const limit = container?.resources?.limits?.['ephemeral-storage'];
    if (limit === undefined || units(limit) === 0) continue;
    const bytes = (used.logs?.usedBytes ?? 0) + (dedicatedImageFs ? 0 : (used.rootfs?.usedBytes ?? 0));
    if (bytes > units(limit))
      return {
        signal: 'ephemeralcontainerfs.limit',
        message: `Container ${used.name} exceeded its local ephemeral storage limit "${limit}". `,
      };
  }
  return undefined;
}

/** Undefined where the pod keeps to its limits. */
export const localStorageExcess = (pod: Pod, stats: PodStats, dedicatedImageFs: boolean): Excess | undefined =>
  emptyDirExcess(pod, stats) ?? podExcess(pod, stats) ?? containerExcess(pod, stats, dedicatedImageFs);

/** Whether the pod has a limit that its statistics must be held against. */
export const limitsLocalStorage = (pod: Pod): boolean =>
  (pod.spec.volumes ?? []).some(({ emptyDir }) => emptyDir?.sizeLimit !== undefined) ||
  podLimits(pod)['ephemeral-storage'] !== undefined ||
  [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].some(
    ({ resources }) => resources?.limits?.['ephemeral-storage'] !== undefined,
  );
