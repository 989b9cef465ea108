// Why a pod was evicted, in the kubelet's words. Pure.
import type { Pod } from '../../kube/types/pod.ts';
import { units } from '../../kube/scheduling/amounts.ts';
import type { ContainerStats, PodStats } from '../stats/summary-types.ts';
import { formatBytes } from './capacity.ts';
import { type Observations, type Starved, starvedOf } from './eviction-signals.ts';
import { type Threshold, thresholdAmount } from './thresholds.ts';

export const evictedReason = 'Evicted';

const amount = (starved: Starved, value: number): string =>
  starved === 'memory' || starved === 'ephemeral-storage' ? formatBytes(value) : String(value);

export interface PressureReport {
  readonly message: string;
  /** For the Event: the kubelet's, which controllers and monitoring read. None where nothing is known of the pod's use. */
  readonly annotations?: Readonly<Record<string, string>>;
}

export function pressureReport(
  starved: Starved,
  pod: Pod,
  stats: PodStats | undefined,
  thresholds: readonly Threshold[],
  observations: Observations,
): PressureReport {
  let message = `The node was low on resource: ${starved}. `;
  const threshold = thresholds.find(({ signal }) => starvedOf(signal) === starved && observations.has(signal));
  const seen = threshold && observations.get(threshold.signal);
  if (threshold && seen) {
    const quantity = thresholdAmount(threshold.value, seen.capacity);
    message += `Threshold quantity: ${amount(starved, quantity)}, available: ${amount(starved, seen.available)}. `;
  }
  if (!stats) return { message };
  const annotations: Record<string, string> = {};
  const podRequest = pod.spec.resources?.requests?.memory;
  if (starved === 'memory' && podRequest !== undefined && stats.memory) {
    const usage = formatBytes(stats.memory.workingSetBytes ?? 0);
    message += `Pod ${pod.metadata.name} was using ${usage}, request is ${podRequest}, has larger consumption of memory. `;
    annotations['offending_pod'] = pod.metadata.name;
    annotations['offending_pod_usage'] = usage;
  }
  const offending: { name: string; usage: string }[] = [];
  const containers = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])];
  for (const used of stats.containers) {
    const container = containers.find(({ name }) => name === used.name);
    const bytes = usageOf(used, starved);
    if (!container || bytes === undefined) continue;
    const request = container.resources?.requests?.[starved];
    if (bytes <= units(request)) continue;
    const usage = formatBytes(bytes);
    message += `Container ${container.name} was using ${usage}, request is ${request ?? '0'}, has larger consumption of ${starved}. `;
    offending.push({ name: container.name, usage });
  }
  annotations['offending_containers'] = offending.map(({ name }) => name).join(',');
  annotations['offending_containers_usage'] = offending.map(({ usage }) => usage).join(',');
  annotations['starved_resource'] = starved;
  return { message, annotations };
}

/** Bytes; undefined where nobody knows, or the resource is not counted in bytes. */
function usageOf({ memory, rootfs, logs }: ContainerStats, starved: Starved): number | undefined {
  if (starved === 'memory') return memory?.workingSetBytes;
  if (starved !== 'ephemeral-storage' || rootfs?.usedBytes === undefined || logs?.usedBytes === undefined)
    return undefined;
  return rootfs.usedBytes + logs.usedBytes;
}

export const admissionMessage = (conditions: readonly string[]): string =>
  `The node had condition: [${conditions.join(' ')}]. `;
