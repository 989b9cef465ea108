// cAdvisor's families: name, type, help, and where each figure comes from. The order of the page is the order here.
import type { MetricType } from '../../lib/exposition.ts';
import type { DiskCounters } from './block-devices.ts';
import type { CgroupSample, DeviceIo, SchedulerCount } from './cgroup-sample.ts';
import type { ProcessFigures } from './process-figures.ts';
import type { InterfaceCounters } from './proc.ts';

/** How full a file system is, as a row shows it. */
export interface FsFigures {
  readonly device: string;
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly inodes: number;
  readonly inodesFree: number;
  readonly disk: DiskCounters | undefined;
}

type Of = (sample: CgroupSample) => number | undefined;
type Figure = readonly [name: string, type: MetricType, help: string, of: Of];

const s9 = (ns: number | undefined): number | undefined => (ns === undefined ? undefined : ns / 1e9);
const s6 = (us: number | undefined): number | undefined => (us === undefined ? undefined : us / 1e6);
const quota = (sample: CgroupSample, value: number | undefined): number | undefined =>
  sample.cpu?.quotaUs === undefined ? undefined : value;

export const sampleFigures: readonly Figure[] = [
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
    'container_cpu_cfs_burst_periods_total',
    'counter',
    'Number of periods when burst occurs.',
    (s) => quota(s, s.cpu?.bursts),
  ],
  [
    'container_cpu_cfs_burst_seconds_total',
    'counter',
    'Total time duration the container has been bursted.',
    (s) => quota(s, s9(s.cpu?.burstNs)),
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
  [
    'container_memory_max_usage_bytes',
    'gauge',
    'Maximum memory usage recorded in bytes',
    (s) => s.memory && (s.memory.maxUsage ?? 0),
  ],
  ['container_memory_rss', 'gauge', 'Size of RSS in bytes.', (s) => s.memory?.rss],
  ['container_memory_swap', 'gauge', 'Container swap usage in bytes.', (s) => s.memory && (s.memory.swapUsage ?? 0)],
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
  ['container_threads', 'gauge', 'Number of threads running inside the container', (s) => s.processes?.current],
  [
    'container_threads_max',
    'gauge',
    'Maximum number of threads allowed inside the container, infinity if value is zero',
    (s) => s.processes && (s.processes.max ?? 0),
  ],
];

/** What a cgroup is set to: shown without a time. */
export const specFigures: readonly Figure[] = [
  ['container_spec_cpu_period', 'gauge', 'CPU period of the container.', (s) => s.cpu && (s.cpu.periodUs ?? 0)],
  ['container_spec_cpu_quota', 'gauge', 'CPU quota of the container.', (s) => s.cpu?.quotaUs],
  ['container_spec_cpu_shares', 'gauge', 'CPU share of the container.', (s) => s.cpu && (s.cpu.shares ?? 0)],
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
    (s) => s.memory && (s.memory.swapLimitAsSet ?? 0),
  ],
  [
    'container_spec_memory_reservation_limit_bytes',
    'gauge',
    'Memory reservation limit for the container.',
    (s) => s.memory && (s.memory.reservation ?? 0),
  ],
];

export const networkFigures: readonly (readonly [string, string, keyof InterfaceCounters])[] = [
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

export const processFigures: readonly (readonly [string, string, 'processes' | 'fileDescriptors' | 'sockets'])[] = [
  ['container_processes', 'Number of processes running inside the container.', 'processes'],
  ['container_file_descriptors', 'Number of open file descriptors for the container.', 'fileDescriptors'],
  ['container_sockets', 'Number of open sockets for the container.', 'sockets'],
] satisfies readonly (readonly [string, string, keyof ProcessFigures])[];

/** Of the cgroup, by the devices it used, and of the machine's disks. */
export interface IoFigure {
  readonly name: string;
  readonly type: MetricType;
  readonly help: string;
  readonly of?: (io: DeviceIo) => number | undefined;
  readonly ofDisk?: (disk: DiskCounters) => number;
}

const counted =
  (name: SchedulerCount) =>
  ({ scheduler }: DeviceIo): number | undefined =>
    scheduler?.[name];
const s3 = (ms: number): number => ms / 1e3;

export const ioFigures: readonly IoFigure[] = [
  {
    name: 'container_fs_reads_bytes_total',
    type: 'counter',
    help: 'Cumulative count of bytes read',
    of: (io) => io.readBytes,
  },
  {
    name: 'container_fs_reads_total',
    type: 'counter',
    help: 'Cumulative count of reads completed',
    of: (io) => io.reads,
    ofDisk: (disk) => disk.reads,
  },
  {
    name: 'container_fs_sector_reads_total',
    type: 'counter',
    help: 'Cumulative count of sector reads completed',
    of: counted('sectorsRead'),
    ofDisk: (disk) => disk.sectorsRead,
  },
  {
    name: 'container_fs_reads_merged_total',
    type: 'counter',
    help: 'Cumulative count of reads merged',
    of: counted('readsMerged'),
    ofDisk: (disk) => disk.readsMerged,
  },
  {
    name: 'container_fs_read_seconds_total',
    type: 'counter',
    help: 'Cumulative count of seconds spent reading',
    of: (io) => s9(io.scheduler?.readNs),
    ofDisk: (disk) => s3(disk.readMs),
  },
  {
    name: 'container_fs_writes_bytes_total',
    type: 'counter',
    help: 'Cumulative count of bytes written',
    of: (io) => io.writeBytes,
  },
  {
    name: 'container_fs_writes_total',
    type: 'counter',
    help: 'Cumulative count of writes completed',
    of: (io) => io.writes,
    ofDisk: (disk) => disk.writes,
  },
  {
    name: 'container_fs_sector_writes_total',
    type: 'counter',
    help: 'Cumulative count of sector writes completed',
    of: counted('sectorsWritten'),
    ofDisk: (disk) => disk.sectorsWritten,
  },
  {
    name: 'container_fs_writes_merged_total',
    type: 'counter',
    help: 'Cumulative count of writes merged',
    of: counted('writesMerged'),
    ofDisk: (disk) => disk.writesMerged,
  },
  {
    name: 'container_fs_write_seconds_total',
    type: 'counter',
    help: 'Cumulative count of seconds spent writing',
    of: (io) => s9(io.scheduler?.writeNs),
    ofDisk: (disk) => s3(disk.writeMs),
  },
  {
    name: 'container_fs_io_current',
    type: 'gauge',
    help: 'Number of I/Os currently in progress',
    of: counted('queued'),
    ofDisk: (disk) => disk.inProgress,
  },
  {
    name: 'container_fs_io_time_seconds_total',
    type: 'counter',
    help: 'Cumulative count of seconds spent doing I/Os',
    of: (io) => s9(io.scheduler?.serviceNs),
    ofDisk: (disk) => s3(disk.busyMs),
  },
  {
    name: 'container_fs_io_time_weighted_seconds_total',
    type: 'counter',
    help: 'Cumulative weighted I/O time in seconds',
    ofDisk: (disk) => s3(disk.weightedMs),
  },
  {
    name: 'container_fs_io_cost_usage_seconds_total',
    type: 'counter',
    help: 'Cumulative IOCost usage in seconds',
    of: (io) => s6(io.cost?.usageUs),
  },
  {
    name: 'container_fs_io_cost_wait_seconds_total',
    type: 'counter',
    help: 'Cumulative IOCost wait in seconds',
    of: (io) => s6(io.cost?.waitUs),
  },
  {
    name: 'container_fs_io_cost_indebt_seconds_total',
    type: 'counter',
    help: 'Cumulative IOCost debt in seconds',
    of: (io) => s6(io.cost?.indebtUs),
  },
  {
    name: 'container_fs_io_cost_indelay_seconds_total',
    type: 'counter',
    help: 'Cumulative IOCost delay in seconds',
    of: (io) => s6(io.cost?.indelayUs),
  },
];

export const fsFigures: readonly (readonly [
  string,
  string,
  'inodesFree' | 'inodes' | 'capacityBytes' | 'usedBytes',
])[] = [
  ['container_fs_inodes_free', 'Number of available Inodes', 'inodesFree'],
  ['container_fs_inodes_total', 'Number of Inodes', 'inodes'],
  [
    'container_fs_limit_bytes',
    'Number of bytes that can be consumed by the container on this filesystem.',
    'capacityBytes',
  ],
  ['container_fs_usage_bytes', 'Number of bytes that are consumed by the container on this filesystem.', 'usedBytes'],
];

/**
 * What the kubelet lists and never measures: it starts no reader of loads, and no runtime of its knows health checks. A query finds here what it
 * finds there.
 */
export const constants: readonly (readonly [name: string, help: string, value: number, suffixes: readonly string[]])[] =
  [
    ['container_cpu_load_average_10s', 'Value of container cpu load average over the last 10 seconds.', 0, ['']],
    ['container_cpu_load_d_average_10s', 'Value of container cpu load.d average over the last 10 seconds.', 0, ['']],
    [
      'container_tasks_state',
      'Number of tasks in given state',
      0,
      ['sleeping', 'running', 'stopped', 'uninterruptible', 'iowaiting'].map((state) => `,state="${state}"`),
    ],
    ['container_health_state', "The result of the container's health check", -1, ['']],
  ];
