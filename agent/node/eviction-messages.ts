// Why a pod was evicted, in the kubelet's words. Pure.
import type { Pod } from '../../kube/types/pod.ts';
import { units } from '../../kube/scheduling/amounts.ts';
import type { PodStats } from '../stats/summary-types.ts';
import { formatBytes } from './capacity.ts';
import { type Observations, type Starved, starvedOf } from './eviction-signals.ts';
import { type Threshold, thresholdAmount } from './thresholds.ts';

export const evictedReason = 'Evicted';

const amount = (starved: Starved, value: number): string =>
  starved === 'memory' || starved === 'ephemeral-storage' ? formatBytes(value) : String(value);

export function pressureMessage(
  starved: Starved,
  pod: Pod,
  stats: PodStats | undefined,
  thresholds: readonly Threshold[],
  observations: Observations,
): string {
  let message = `The node was low on resource: ${starved}. `;
  const threshold = thresholds.find(({ signal }) => starvedOf(signal) === starved && observations.has(signal));
  const seen = threshold && observations.get(threshold.signal);
  if (threshold && seen) {
    const quantity = thresholdAmount(threshold.value, seen.capacity);
    message += `Threshold quantity: ${amount(starved, quantity)}, available: ${amount(starved, seen.available)}. `;
  }
  if (!stats || (starved !== 'memory' && starved !== 'ephemeral-storage')) return message;
  const podRequest = pod.spec.resources?.requests?.memory;
  if (starved === 'memory' && podRequest !== undefined && stats.memory)
    message += `Pod ${pod.metadata.name} was using ${formatBytes(stats.memory.workingSetBytes ?? 0)}, request is ${podRequest}, has larger consumption of memory. `;
  const containers = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])];
  for (const used of stats.containers) {
    const container = containers.find(({ name }) => name === used.name);
    const usage =
      starved === 'memory'
        ? used.memory?.workingSetBytes
        : used.rootfs?.usedBytes === undefined || used.logs?.usedBytes === undefined
          ? undefined
          : used.rootfs.usedBytes + used.logs.usedBytes;
    if (!container || usage === undefined) continue;
    const request = container.resources?.requests?.[starved];
    if (usage > units(request))
      message += `Container ${container.name} was using ${formatBytes(usage)}, request is ${request ?? '0'}, has larger consumption of ${starved}. `;
  }
  return message;
}

export const admissionMessage = (conditions: readonly string[]): string =>
  `The node had condition: [${conditions.join(' ')}]. `;
