// /metrics/cadvisor: figures of every pod, sandbox and container under cAdvisor's names, labels and units, for the dashboards that know them.
import { cpus } from 'node:os';
import {
  createExposition,
  type Exposition,
  labelText,
  type MetricType,
  timeText,
  withLabel,
} from '../../lib/exposition.ts';
import type { CgroupSample } from './cgroup-sample.ts';
import type { Look } from './collect.ts';
import type { InterfaceCounters } from './proc.ts';
import { createSlicer } from './pseudo-files.ts';

interface Row {
  readonly labels: string;
  /** The sample's time as it is shown. */
  readonly at: string;
  readonly sample: CgroupSample;
  readonly startedAtMs: number;
  readonly interfaces: readonly InterfaceCounters[];
}

type Of = (sample: CgroupSample) => number | undefined;
type Figure = readonly [name: string, type: MetricType, help: string, of: Of];

const s9 = (ns: number | undefined): number | undefined => (ns === undefined ? undefined : ns / 1e9);
const s6 = (us: number | undefined): number | undefined => (us === undefined ? undefined : us / 1e6);
const quota = (sample: CgroupSample, value: number | undefined): number | undefined =>
  sample.cpu?.quotaUs === undefined ? undefined : value;

const figures: readonly Figure[] = [
  [
    'container_cpu_cfs_periods_total',
    'counter',
    'Number of elapsed enforcement period intervals.',
    (s) => quota(s, s.cpu?.periods),
  ],
  [
    'container_cpu_cfs_throttled_periods_total',
    'counter',
    'Number of throttled period intervals.',
    (s) => quota(s, s.cpu?.throttledPeriods),
  ],
  [
    'container_cpu_cfs_throttled_seconds_total',
    'counter',
    'Total time duration the container has been throttled.',
    (s) => quota(s, s9(s.cpu?.throttledNs)),
  ],
  [
    'container_cpu_system_seconds_total',
    'counter',
    'Cumulative system cpu time consumed in seconds.',
    (s) => s9(s.cpu?.systemNs),
  ],
  [
    'container_cpu_user_seconds_total',
    'counter',
    'Cumulative user cpu time consumed in seconds.',
    (s) => s9(s.cpu?.userNs),
  ],
  ['container_memory_cache', 'gauge', 'Number of bytes of page cache memory.', (s) => s.memory?.cache],
  ['container_memory_failcnt', 'counter', 'Number of memory usage hits limits', (s) => s.memory?.failures],
  ['container_memory_kernel_usage', 'gauge', 'Size of kernel memory allocated in bytes.', (s) => s.memory?.kernel],
  ['container_memory_mapped_file', 'gauge', 'Size of memory mapped files in bytes.', (s) => s.memory?.mapped],
  ['container_memory_max_usage_bytes', 'gauge', 'Maximum memory usage recorded in bytes', (s) => s.memory?.maxUsage],
  ['container_memory_rss', 'gauge', 'Size of RSS in bytes.', (s) => s.memory?.rss],
  ['container_memory_swap', 'gauge', 'Container swap usage in bytes.', (s) => s.memory?.swapUsage],
  [
    'container_memory_total_active_file_bytes',
    'gauge',
    'Current total active file in bytes.',
    (s) => s.memory?.activeFile,
  ],
  [
    'container_memory_total_inactive_file_bytes',
    'gauge',
    'Current total inactive file in bytes.',
    (s) => s.memory?.inactiveFile,
  ],
  [
    'container_memory_usage_bytes',
    'gauge',
    'Current memory usage in bytes, including all memory regardless of when it was accessed',
    (s) => s.memory?.usage,
  ],
  ['container_memory_working_set_bytes', 'gauge', 'Current working set in bytes.', (s) => s.memory?.workingSet],
  [
    'container_oom_events_total',
    'counter',
    'Count of out of memory events observed for the container',
    (s) => s.memory?.oomKills,
  ],
  [
    'container_pressure_cpu_stalled_seconds_total',
    'counter',
    'Total time duration no tasks in the container could make progress due to CPU congestion.',
    (s) => s6(s.cpu?.psi?.full.totalUs),
  ],
  [
    'container_pressure_cpu_waiting_seconds_total',
    'counter',
    'Total time duration tasks in the container have waited due to CPU congestion.',
    (s) => s6(s.cpu?.psi?.some.totalUs),
  ],
  [
    'container_pressure_io_stalled_seconds_total',
    'counter',
    'Total time duration no tasks in the container could make progress due to IO congestion.',
    (s) => s6(s.ioPsi?.full.totalUs),
  ],
  [
    'container_pressure_io_waiting_seconds_total',
    'counter',
    'Total time duration tasks in the container have waited due to IO congestion.',
    (s) => s6(s.ioPsi?.some.totalUs),
  ],
  [
    'container_pressure_memory_stalled_seconds_total',
    'counter',
    'Total time duration no tasks in the container could make progress due to memory congestion.',
    (s) => s6(s.memory?.psi?.full.totalUs),
  ],
  [
    'container_pressure_memory_waiting_seconds_total',
    'counter',
    'Total time duration tasks in the container have waited due to memory congestion.',
    (s) => s6(s.memory?.psi?.some.totalUs),
  ],
  ['container_processes', 'gauge', 'Number of processes running inside the container.', (s) => s.processes?.current],
  ['container_threads', 'gauge', 'Number of threads running inside the container', (s) => s.processes?.current],
  [
    'container_threads_max',
    'gauge',
    'Maximum number of threads allowed inside the container, infinity if value is zero',
    (s) => s.processes && (s.processes.max ?? 0),
  ],
  ['container_spec_cpu_period', 'gauge', 'CPU period of the container.', (s) => s.cpu?.periodUs],
  ['container_spec_cpu_quota', 'gauge', 'CPU quota of the container.', (s) => s.cpu?.quotaUs],
  ['container_spec_cpu_shares', 'gauge', 'CPU share of the container.', (s) => s.cpu?.shares],
  [
    'container_spec_memory_limit_bytes',
    'gauge',
    'Memory limit for the container.',
    (s) => s.memory && (s.memory.limit ?? 0),
  ],
  [
    'container_spec_memory_swap_limit_bytes',
    'gauge',
    'Memory swap limit for the container.',
    (s) => s.memory && (s.memory.swapLimit ?? 0),
  ],
];

const networkFigures: readonly (readonly [string, string, keyof InterfaceCounters])[] = [
  ['container_network_receive_bytes_total', 'Cumulative count of bytes received', 'rxBytes'],
  ['container_network_receive_errors_total', 'Cumulative count of errors encountered while receiving', 'rxErrors'],
  [
    'container_network_receive_packets_dropped_total',
    'Cumulative count of packets dropped while receiving',
    'rxDropped',
  ],
  ['container_network_receive_packets_total', 'Cumulative count of packets received', 'rxPackets'],
  ['container_network_transmit_bytes_total', 'Cumulative count of bytes transmitted', 'txBytes'],
  ['container_network_transmit_errors_total', 'Cumulative count of errors encountered while transmitting', 'txErrors'],
  [
    'container_network_transmit_packets_dropped_total',
    'Cumulative count of packets dropped while transmitting',
    'txDropped',
  ],
  ['container_network_transmit_packets_total', 'Cumulative count of packets transmitted', 'txPackets'],
];

const ioFigures: readonly (readonly [string, string, 'readBytes' | 'writeBytes' | 'reads' | 'writes'])[] = [
  ['container_fs_reads_bytes_total', 'Cumulative count of bytes read', 'readBytes'],
  ['container_fs_reads_total', 'Cumulative count of reads completed', 'reads'],
  ['container_fs_writes_bytes_total', 'Cumulative count of bytes written', 'writeBytes'],
  ['container_fs_writes_total', 'Cumulative count of writes completed', 'writes'],
];

const blank = { container: '', id: '', image: '', name: '', namespace: '', pod: '' };

function rowsOf(look: Look): Row[] {
  const rows: Row[] = [];
  const add = (
    labels: Partial<typeof blank>,
    sample: CgroupSample,
    startedAtMs: number,
    interfaces: readonly InterfaceCounters[] = [],
  ): void =>
    void rows.push({
      labels: labelText({ ...blank, ...labels }),
      at: timeText(sample.timeMs),
      sample,
      startedAtMs,
      interfaces,
    });
  if (look.root) add({ id: '/' }, look.root.sample, look.host.bootMs, look.hostInterfaces);
  for (const { path, sample } of look.system) if (path !== '/') add({ id: path }, sample, look.host.bootMs);
  for (const { pod, usage, sandbox, containers, interfaces } of look.pods) {
    const of = { pod: pod.metadata.name, namespace: pod.metadata.namespace ?? '' };
    const startedAtMs = Date.parse(pod.status?.startTime ?? '') || 0;
    if (usage) add({ ...of, id: usage.path }, usage.sample, startedAtMs);
    if (sandbox) add({ ...of, id: sandbox.path, name: sandbox.id }, sandbox.sample, startedAtMs, interfaces);
    for (const { id, path, name, image, sample, startedAtMs: at } of containers)
      add({ ...of, id: path, name: id, image, container: name }, sample, at);
  }
  return rows;
}

function machine(page: Exposition, look: Look): void {
  page.family('machine_cpu_cores', 'gauge', 'Number of logical CPU cores.').sample('', cpus().length);
  page
    .family('machine_memory_bytes', 'gauge', 'Amount of memory installed on the machine.')
    .sample('', look.host.memory.total);
  page
    .family('machine_swap_bytes', 'gauge', 'Amount of swap memory available on the machine.')
    .sample('', look.host.memory.swapTotal);
}

/** In pieces of some tens of KiB: with a hundred pods the page has megabytes, which nobody needs at once. */
export async function* cadvisorPage(look: Look): AsyncGenerator<string, void> {
  const slicer = createSlicer();
  const page = createExposition();
  const rows = rowsOf(look);
  const usage = page.family('container_cpu_usage_seconds_total', 'counter', 'Cumulative cpu time consumed in seconds.');
  for (const { labels, at, sample } of rows)
    usage.sample(withLabel(labels, 'cpu', 'total'), s9(sample.cpu?.usageNs), at);
  for (const [name, type, help, of] of figures) {
    const family = page.family(name, type, help);
    for (const { labels, at, sample } of rows) family.sample(labels, of(sample), at);
    yield page.text();
    await slicer.breathe();
  }
  const failures = page.family(
    'container_memory_failures_total',
    'counter',
    'Cumulative count of memory allocation failures.',
  );
  for (const { labels, at, sample } of rows) {
    const { memory } = sample;
    const scoped = withLabel(labels, 'scope', 'hierarchy');
    failures.sample(withLabel(scoped, 'failure_type', 'pgfault'), memory?.pageFaults, at);
    failures.sample(withLabel(scoped, 'failure_type', 'pgmajfault'), memory?.majorPageFaults, at);
  }
  for (const [name, help, key] of ioFigures) {
    const family = page.family(name, 'counter', help);
    for (const { labels, at, sample } of rows)
      for (const device of sample.io) family.sample(withLabel(labels, 'device', device.device), device[key], at);
    yield page.text();
    await slicer.breathe();
  }
  for (const [name, help, key] of networkFigures) {
    const family = page.family(name, 'counter', help);
    for (const { labels, at, interfaces } of rows)
      for (const one of interfaces) family.sample(withLabel(labels, 'interface', one.name), Number(one[key]), at);
    yield page.text();
    await slicer.breathe();
  }
  const seen = page.family('container_last_seen', 'gauge', 'Last time a container was seen by the exporter');
  for (const { labels, at, sample } of rows) seen.sample(labels, Math.trunc(sample.timeMs / 1000), at);
  const start = page.family(
    'container_start_time_seconds',
    'gauge',
    'Start time of the container since unix epoch in seconds.',
  );
  for (const { labels, startedAtMs } of rows) if (startedAtMs > 0) start.sample(labels, startedAtMs / 1000);
  page
    .family('container_scrape_error', 'gauge', '1 if there was an error while getting container metrics, 0 otherwise')
    .sample('', 0);
  machine(page, look);
  yield page.text();
}
