// /metrics/resource: what metrics-server and the autoscalers behind it read.
import { createExposition, labelText } from '../../lib/exposition.ts';
import type * as s from './summary-types.ts';

const seconds = (ns: number | undefined): number | undefined => (ns === undefined ? undefined : ns / 1e9);
const at = (part: { time: string } | undefined): number => Date.parse(part?.time ?? '');

/** `failed`: nothing could be collected; then only that is said. `times` are those of the samples, to the millisecond. */
export function resourcePage(summary: s.Summary | undefined, timeMs: number): string {
  const page = createExposition();
  const containers = (summary?.pods ?? []).flatMap((pod) =>
    pod.containers.map((container) => {
      const { name, namespace } = pod.podRef;
      return { container, labels: labelText({ container: container.name, namespace, pod: name }) };
    }),
  );
  const pods = (summary?.pods ?? []).map((pod) => {
    const { name, namespace } = pod.podRef;
    return { pod, labels: labelText({ namespace, pod: name }) };
  });
  const { node } = summary ?? {};

  const cpu = page.family(
    'container_cpu_usage_seconds_total',
    'counter',
    'Cumulative cpu time consumed by the container in core-seconds',
  );
  for (const { container, labels } of containers)
    cpu.sample(labels, seconds(container.cpu?.usageCoreNanoSeconds), timeMs);
  const memory = page.family(
    'container_memory_working_set_bytes',
    'gauge',
    'Current working set of the container in bytes',
  );
  for (const { container, labels } of containers) memory.sample(labels, container.memory?.workingSetBytes, timeMs);
  const start = page.family(
    'container_start_time_seconds',
    'gauge',
    'Start time of the container since unix epoch in seconds',
  );
  for (const { container, labels } of containers)
    if (container.startTime !== null) start.sample(labels, at({ time: container.startTime }) / 1000);
  const swapLimit = page.family(
    'container_swap_limit_bytes',
    'gauge',
    'Current amount of the container swap limit in bytes. Reported only on non-windows systems',
  );
  for (const { container, labels } of containers) {
    const { swapAvailableBytes, swapUsageBytes = 0 } = container.swap ?? {};
    if (swapAvailableBytes !== undefined) swapLimit.sample(labels, swapAvailableBytes + swapUsageBytes, timeMs);
  }
  const swap = page.family(
    'container_swap_usage_bytes',
    'gauge',
    'Current amount of the container swap usage in bytes. Reported only on non-windows systems',
  );
  for (const { container, labels } of containers) swap.sample(labels, container.swap?.swapUsageBytes, timeMs);

  page
    .family('node_cpu_usage_seconds_total', 'counter', 'Cumulative cpu time consumed by the node in core-seconds')
    .sample('', seconds(node?.cpu?.usageCoreNanoSeconds), timeMs);
  page
    .family('node_memory_working_set_bytes', 'gauge', 'Current working set of the node in bytes')
    .sample('', node?.memory?.workingSetBytes, timeMs);
  page
    .family(
      'node_swap_usage_bytes',
      'gauge',
      'Current swap usage of the node in bytes. Reported only on non-windows systems',
    )
    .sample('', node?.swap?.swapUsageBytes, timeMs);

  const podCpu = page.family(
    'pod_cpu_usage_seconds_total',
    'counter',
    'Cumulative cpu time consumed by the pod in core-seconds',
  );
  for (const { pod, labels } of pods) podCpu.sample(labels, seconds(pod.cpu?.usageCoreNanoSeconds), timeMs);
  const podMemory = page.family('pod_memory_working_set_bytes', 'gauge', 'Current working set of the pod in bytes');
  for (const { pod, labels } of pods) podMemory.sample(labels, pod.memory?.workingSetBytes, timeMs);
  const podSwap = page.family(
    'pod_swap_usage_bytes',
    'gauge',
    'Current amount of the pod swap usage in bytes. Reported only on non-windows systems',
  );
  for (const { pod, labels } of pods) podSwap.sample(labels, pod.swap?.swapUsageBytes, timeMs);

  const failed = summary ? 0 : 1;
  page
    .family('resource_scrape_error', 'gauge', '1 if there was an error while getting container metrics, 0 otherwise')
    .sample('', failed);
  return page.text();
}
