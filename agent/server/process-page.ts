// The figures of this process, under Prometheus' usual names. Read when they are asked for: prom-client's own collectors wake the process a
// hundred times a second to measure the event loop.
import { readdir } from 'node:fs/promises';
import { getHeapStatistics } from 'node:v8';
import { createExposition } from '../../lib/exposition.ts';
import { readPseudoFile } from '../stats/pseudo-files.ts';

const startedSeconds = (Date.now() - process.uptime() * 1000) / 1000;
let previousLoop = performance.eventLoopUtilization();

export async function processPage(): Promise<string> {
  const page = createExposition();
  const { user, system } = process.cpuUsage();
  page
    .family('process_cpu_seconds_total', 'counter', 'Total user and system CPU time spent in seconds.')
    .sample('', (user + system) / 1e6);
  page
    .family('process_start_time_seconds', 'gauge', 'Start time of the process since unix epoch in seconds.')
    .sample('', startedSeconds);
  page
    .family('process_resident_memory_bytes', 'gauge', 'Resident memory size in bytes.')
    .sample('', process.memoryUsage.rss());
  const virtual = /^VmSize:\s+(\d+)/m.exec(readPseudoFile('/proc/self/status') ?? '');
  page
    .family('process_virtual_memory_bytes', 'gauge', 'Virtual memory size in bytes.')
    .sample('', Number(virtual?.[1] ?? Number.NaN) * 1024);
  const files = await readdir('/proc/self/fd').catch(() => undefined);
  page.family('process_open_fds', 'gauge', 'Number of open file descriptors.').sample('', files?.length);
  const limit = /^Max open files\s+(\d+)/m.exec(readPseudoFile('/proc/self/limits') ?? '');
  page
    .family('process_max_fds', 'gauge', 'Maximum number of open file descriptors.')
    .sample('', Number(limit?.[1] ?? Number.NaN));
  const heap = getHeapStatistics();
  page
    .family('nodejs_heap_size_total_bytes', 'gauge', 'Process heap size from Node.js in bytes.')
    .sample('', heap.total_heap_size);
  page
    .family('nodejs_heap_size_used_bytes', 'gauge', 'Process heap size used from Node.js in bytes.')
    .sample('', heap.used_heap_size);
  page
    .family('nodejs_external_memory_bytes', 'gauge', 'Node.js external memory size in bytes.')
    .sample('', heap.external_memory);
  const loop = performance.eventLoopUtilization();
  page
    .family(
      'nodejs_eventloop_utilization',
      'gauge',
      'Share of time the event loop was busy since the last scrape, 0 to 1.',
    )
    .sample('', performance.eventLoopUtilization(loop, previousLoop).utilization);
  previousLoop = loop;
  return page.text();
}
