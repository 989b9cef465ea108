// What a scrape of the statistics costs with many pods: each page in all, in processor time, and the longest stretch of the event loop it took.
// Over a tree of cgroups made for it, of either version, or over real ones (root). A made container has two processes with
// `--files` open files each, a third of them sockets; real ones have none. `node bench/scrape.ts [--pods 100] [--tree v2|v1|real] [--files 12] [--rounds 20]`
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { ContainerId, SandboxId } from '../cri/types.ts';
import type { Pod } from '../kube/types/pod.ts';
import { createNodeStats } from '../agent/stats/node-stats.ts';
import { systemClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { watchLoop } from './loop-watch.ts';

const { values } = parseArgs({
  options: {
    pods: { type: 'string', default: '100' },
    tree: { type: 'string', default: 'v2' },
    files: { type: 'string', default: '12' },
    rounds: { type: 'string', default: '20' },
  },
});
const count = Number(values.pods);
const rounds = Number(values.rounds);
const openFiles = Number(values.files);
const real = values.tree === 'real';
const parent = '/stevedore-bench';
const controllers = ['cpu', 'cpuacct', 'memory', 'pids', 'blkio'];
const stats = [
  'anon',
  'file',
  'kernel',
  'kernel_stack',
  'pagetables',
  'sec_pagetables',
  'percpu',
  'sock',
  'vmalloc',
  'shmem',
  'zswap',
  'zswapped',
  'file_mapped',
  'file_dirty',
  'file_writeback',
  'swapcached',
  'anon_thp',
  'file_thp',
  'shmem_thp',
  'inactive_anon',
  'active_anon',
  'inactive_file',
  'active_file',
  'unevictable',
  'slab_reclaimable',
  'slab_unreclaimable',
  'slab',
  'workingset_refault_anon',
  'workingset_refault_file',
  'workingset_activate_anon',
  'workingset_activate_file',
  'workingset_restore_anon',
  'workingset_restore_file',
  'workingset_nodereclaim',
  'pgscan',
  'pgsteal',
  'pgscan_kswapd',
  'pgscan_direct',
  'pgsteal_kswapd',
  'pgsteal_direct',
  'pgfault',
  'pgmajfault',
  'pgrefill',
  'pgactivate',
  'pgdeactivate',
  'pglazyfree',
  'pglazyfreed',
  'thp_fault_alloc',
  'thp_collapse_alloc',
]; // prettier-ignore
const pressure = (kind: string): string =>
  `some avg10=0.00 avg60=0.10 avg300=0.22 total=${kind.length}82734\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7263\n`;

const cpuStat = (usageUs: number): string =>
  `usage_usec ${usageUs}\nuser_usec 5273645\nsystem_usec 3000000\nnice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 10\nnr_throttled 2\nthrottled_usec 700\nnr_bursts 0\nburst_usec 0\n`;

const v2 = (path: string): Record<string, string> => ({
  [`${path}/cpu.stat`]: cpuStat(8_273_645),
  [`${path}/cpu.max`]: '50000 100000\n',
  [`${path}/cpu.weight`]: '39\n',
  [`${path}/memory.current`]: '10485760\n',
  [`${path}/memory.max`]: '20971520\n',
  [`${path}/memory.peak`]: '11534336\n',
  [`${path}/memory.swap.current`]: '0\n',
  [`${path}/memory.swap.max`]: 'max\n',
  [`${path}/memory.stat`]: stats.map((name, at) => `${name} ${at * 40_960}\n`).join(''),
  [`${path}/memory.events`]: 'low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\noom_group_kill 0\n',
  [`${path}/pids.current`]: '4\n',
  [`${path}/pids.max`]: 'max\n',
  [`${path}/io.stat`]: '8:0 rbytes=100352 wbytes=2007040 rios=31 wios=43 dbytes=0 dios=0\n',
  [`${path}/cgroup.procs`]: '4242\n4243\n',
  ...Object.fromEntries(['cpu', 'memory', 'io'].map((kind) => [`${path}/${kind}.pressure`, pressure(kind)])),
});

const v1 = (path: string): Record<string, string> => ({
  [`cpuacct/${path}/cpuacct.usage`]: '5000000000\n',
  [`cpuacct/${path}/cpuacct.stat`]: 'user 300\nsystem 200\n',
  [`cpu/${path}/cpu.stat`]: 'nr_periods 10\nnr_throttled 2\nthrottled_time 700000\n',
  [`cpu/${path}/cpu.cfs_quota_us`]: '50000\n',
  [`cpu/${path}/cpu.cfs_period_us`]: '100000\n',
  [`cpu/${path}/cpu.shares`]: '1024\n',
  [`memory/${path}/memory.usage_in_bytes`]: '10485760\n',
  [`memory/${path}/memory.max_usage_in_bytes`]: '11485760\n',
  [`memory/${path}/memory.kmem.usage_in_bytes`]: '1048576\n',
  [`memory/${path}/memory.failcnt`]: '0\n',
  [`memory/${path}/memory.limit_in_bytes`]: '20971520\n',
  [`memory/${path}/memory.memsw.limit_in_bytes`]: '20971520\n',
  [`memory/${path}/memory.stat`]: ['', 'total_']
    .flatMap((prefix) =>
      [
        'cache',
        'rss',
        'rss_huge',
        'shmem',
        'mapped_file',
        'dirty',
        'writeback',
        'swap',
        'pgpgin',
        'pgpgout',
        'pgfault',
        'pgmajfault',
        'inactive_anon',
        'active_anon',
        'inactive_file',
        'active_file',
        'unevictable',
      ].map((name) => `${prefix}${name} 1048576\n`),
    ) // prettier-ignore
    .join(''),
  [`memory/${path}/memory.oom_control`]: 'oom_kill_disable 0\nunder_oom 0\noom_kill 1\n',
  [`memory/${path}/cgroup.procs`]: '4242\n',
  [`pids/${path}/pids.current`]: '4\n',
  [`pids/${path}/pids.max`]: '100\n',
  [`blkio/${path}/blkio.throttle.io_service_bytes`]:
    '8:0 Read 100\n8:0 Write 200\n8:0 Sync 300\n8:0 Async 0\n8:0 Discard 0\n8:0 Total 300\nTotal 300\n',
  [`blkio/${path}/blkio.throttle.io_serviced`]:
    '8:0 Read 3\n8:0 Write 4\n8:0 Sync 7\n8:0 Async 0\n8:0 Discard 0\n8:0 Total 7\nTotal 7\n',
});

const uids = Array.from({ length: count }, (_, at) => `uid-${at}`);
const hex = (text: string): string => Buffer.from(text.padEnd(32, 'x')).toString('hex');
const podPath = (uid: string): string => `${parent}/pod${uid}`;
const cgroups = [
  parent,
  ...uids.flatMap((uid) => [podPath(uid), ...['c', 's'].map((kind) => `${podPath(uid)}/${hex(kind + uid)}`)]),
];

const sandboxes = new Set(uids.map((uid) => `${podPath(uid)}/${hex(`s${uid}`)}`));
const scratch = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'scrape-'));
const mount = real ? '/sys/fs/cgroup' : scratch;
const folders = real ? controllers.flatMap((name) => cgroups.map((path) => join(mount, name, path))) : [];
if (real) for (const folder of folders) mkdirSync(folder, { recursive: true });
else {
  if (values.tree === 'v2') writeFileSync(join(mount, 'cgroup.controllers'), 'cpu memory pids io\n');
  for (const path of ['', ...cgroups])
    for (const [file, text] of Object.entries(values.tree === 'v2' ? v2(path) : v1(path))) {
      mkdirSync(dirname(join(mount, file)), { recursive: true });
      writeFileSync(join(mount, file), text);
    }
}

/** A tree of /proc with the processes of made cgroups; the host's own books are copies. */
function makeProcesses(proc: string): void {
  let pid = 5000;
  const process = (files: number): number => {
    const folder = join(proc, String(++pid));
    mkdirSync(join(folder, 'fd'), { recursive: true });
    for (let fd = 0; fd < files; fd++)
      symlinkSync(fd % 3 === 0 ? `socket:[${pid}${fd}]` : '/dev/null', join(folder, `fd/${fd}`));
    copyFileSync('/proc/self/limits', join(folder, 'limits'));
    mkdirSync(join(folder, 'net'));
    copyFileSync('/proc/self/net/dev', join(folder, 'net/dev'));
    return pid;
  };
  for (const path of cgroups) {
    const kind = path.split('/').length < 4 ? 'pod' : sandboxes.has(path) ? 'sandbox' : 'container';
    const pids = kind === 'pod' ? [] : kind === 'sandbox' ? [process(3)] : [process(openFiles), process(openFiles)];
    const text = pids.map((one) => `${one}\n`).join('');
    for (const folder of values.tree === 'v2' ? [''] : ['cpu', 'memory'])
      writeFileSync(join(mount, folder, path, 'cgroup.procs'), text);
  }
  for (const file of ['stat', 'meminfo', 'vmstat', 'loadavg', 'diskstats', 'self/mountinfo']) {
    mkdirSync(dirname(join(proc, file)), { recursive: true });
    copyFileSync(join('/proc', file), join(proc, file));
  }
  mkdirSync(join(proc, 'self/fd'));
  symlinkSync('/dev/null', join(proc, 'self/fd/0'));
}
if (!real) makeProcesses(join(scratch, 'proc'));

const image = 'registry.k8s.io/e2e-test-images/agnhost@sha256:'.padEnd(110, '7');
const pods = uids.map(
  (uid, at): Pod => ({
    metadata: { name: `web-6d4b75cb6d-${at}`, namespace: `team-${at % 7}`, uid },
    spec: { containers: [{ name: 'app', image }] },
    status: {
      phase: 'Running',
      startTime: '2026-01-01T00:00:00Z',
      containerStatuses: [
        {
          name: 'app',
          image,
          imageID: image,
          ready: true,
          restartCount: 0,
          state: { running: { startedAt: '2026-01-01T00:00:01Z' } },
        },
      ],
    },
  }),
);
const node = createNodeStats(
  {
    clock: systemClock,
    log: silentLog,
    runtime: {
      listContainerStats: () => Promise.resolve([]),
      imageFilesystem: () => Promise.resolve({ image: [], container: [] }),
    },
    pods: {
      pods: () => pods,
      container: (uid) => ({ id: hex(`c${uid}`) as ContainerId, state: 'running' }),
      sandbox: (uid) => ({ id: hex(`s${uid}`) as SandboxId }),
      cgroup: (pod) => podPath(pod.metadata.uid ?? ''),
    },
    volumes: () => Promise.resolve([]),
  },
  {
    nodeName: 'bench',
    rootFolder: scratch,
    podLogsFolder: scratch,
    cgroupMount: mount,
    podsCgroup: parent,
    proc: real ? '/proc' : join(scratch, 'proc'),
  },
);

const threadMs = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
};
const median = (list: readonly number[]): string => [...list].sort((a, b) => a - b)[list.length >> 1]!.toFixed(1);

/** Pods and their containers used the processor since the last scrape, their sandboxes did not. Real cgroups are empty, and stay idle. */
let usage = 8_273_645;
function work(): void {
  usage += 1000;
  if (!real)
    for (const path of cgroups)
      if (!sandboxes.has(path))
        if (values.tree === 'v2') writeFileSync(join(mount, `${path}/cpu.stat`), cpuStat(usage));
        else writeFileSync(join(mount, `cpuacct/${path}/cpuacct.usage`), `${usage * 1000}\n`);
}

try {
  console.log(`${count} pods, ${cgroups.length} cgroups, ${values.tree}`);
  const loop = watchLoop();
  const pages: Record<string, () => Promise<number>> = {
    '/metrics/cadvisor': async () => {
      let length = 0;
      for await (const piece of node.cadvisorPage()) length += Buffer.byteLength(piece);
      return length;
    },
    '/metrics/resource': async () => (await node.resourcePage()).length,
    '/stats/summary?only_cpu_and_memory=true': async () =>
      JSON.stringify(await node.summary({ onlyCpuAndMemory: true })).length,
    '/stats/summary': async () => JSON.stringify(await node.summary({ onlyCpuAndMemory: false })).length,
  };
  for (const [name, page] of Object.entries(pages)) {
    const wall: number[] = [];
    const cpu: number[] = [];
    const stretch: number[] = [];
    let length = 0;
    for (let round = 0; round < rounds; round++) {
      await sleep(1_050); // A look younger than a second would serve again.
      work();
      loop.take();
      const [began, used] = [performance.now(), threadMs()];
      length = await page();
      wall.push(performance.now() - began);
      cpu.push(threadMs() - used);
      await sleep(5);
      stretch.push(loop.take().cpuMs);
    }
    // The first scrape compiles and finds the paths; the others are what every 15 s costs.
    console.log(
      `${name}: ${(length / 1024).toFixed(0)} KiB; wall ${median(wall)} ms (first ${wall[0]!.toFixed(1)}, longest ${Math.max(...wall).toFixed(1)}); processor ${median(cpu)} ms (first ${cpu[0]!.toFixed(1)}); longest stretch ${median(stretch)} ms (worst ${Math.max(...stretch).toFixed(1)})`,
    );
  }
  loop.stop();
} finally {
  for (const folder of folders.reverse()) rmdirSync(folder);
  rmSync(scratch, { recursive: true, force: true });
}
