import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FilesystemUsage, RuntimeStatus, SandboxId, SandboxStatus } from '../../cri/types.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createCadvisor } from './cadvisor.ts';
import { createCgroupReader } from './cgroup-reader.ts';
import { firstMistake, pod, v1, v2 } from './cgroups.fixture.ts';
import { createCollector } from './collect.ts';
import { readMachine } from './machine-facts.ts';
import { createMachineFilesystems, machineMounts } from './machine-filesystems.ts';
import { createProcessCounter, softOpenFiles } from './process-figures.ts';
import { sandboxImage } from './sandbox-image.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cadvisor-'));
});
afterEach(async () => await rm(root, { recursive: true, force: true }));

const put = async (files: Readonly<Record<string, string>>): Promise<void> => {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
};

/** A process under `proc`, with what its files lead to. */
const runs = async (pid: number | 'self', links: readonly string[], openFiles = '1024'): Promise<void> => {
  const folder = join(root, `host/proc/${pid}`);
  await mkdir(join(folder, 'fd'), { recursive: true });
  for (const [fd, link] of links.entries()) await symlink(link, join(folder, `fd/${fd}`));
  await writeFile(
    join(folder, 'limits'),
    `Limit                     Soft Limit           Hard Limit           Units     \nMax processes             unlimited            unlimited            processes \nMax open files            ${openFiles.padEnd(20)} 524288               files     \n`,
  );
};

const under = (folder: string, files: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(files).map(([path, text]) => [`${folder}/${path}`, text]));

const topology = (cpu: number, socket: number, core: number): Record<string, string> => ({
  [`host/sys/devices/system/cpu/cpu${cpu}/topology/physical_package_id`]: `${socket}\n`,
  [`host/sys/devices/system/cpu/cpu${cpu}/topology/core_id`]: `${core}\n`,
});

const diskstats =
  '   8       0 sda 50 1 400 30 60 2 480 40 3 70 90 0 0 0 0 0 0\n   8       1 sda1 40 0 280 2500 7 1 22 1500 2 330 440\n';

/** A machine with one disk, a pod with an app of two processes, and a sandbox. */
async function machine(tree: typeof v1 | typeof v2): Promise<void> {
  const cgroups = ['kubepods', 'kubepods/burstable', 'kubepods/podu1', 'kubepods/podu1/c1', 'kubepods/podu1/s1'];
  for (const path of cgroups) {
    await put(under('cgroup', tree(path)));
    const [app, sandbox] = [path.endsWith('/c1'), path.endsWith('/s1')];
    const procs = app ? '4242\n4243\n' : sandbox ? '4100\n' : '';
    await put({ [tree === v1 ? `cgroup/cpu/${path}/cgroup.procs` : `cgroup/${path}/cgroup.procs`]: procs });
  }
  await put({
    'host/proc/self/mountinfo': [
      '27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw',
      '28 27 8:1 /run/netns /run/netns rw - ext4 /dev/sda1 rw',
      `29 27 0:23 / ${root}/shm rw - tmpfs tmpfs rw`,
      '30 27 0:40 / /var/lib/kubelet/pods/u1/volumes/kubernetes.io~projected/t rw - tmpfs tmpfs rw',
      '31 27 0:21 / /proc rw - proc proc rw',
    ].join('\n'),
    'host/proc/diskstats': diskstats,
    'host/proc/meminfo': 'MemTotal: 1000 kB\nSwapTotal: 300 kB\nSwapFree: 100 kB\n',
    'host/proc/loadavg': '0.1 0.1 0.1 2/345 999\n',
    'host/proc/sys/kernel/random/boot_id': 'boot-1\n',
    'host/proc/sys/kernel/osrelease': '6.18.0\n',
    'host/etc/machine-id': 'machine-1\n',
    'host/etc/os-release': 'PRETTY_NAME="Debian 12"\n',
    'host/sys/class/dmi/id/product_uuid': 'uuid-1\n',
    'host/sys/devices/system/edac/mc/mc0/dimm0/dimm_mem_type': 'Registered-DDR4\n',
    'host/sys/devices/system/edac/mc/mc0/dimm0/size': '16384\n',
    'host/sys/devices/system/edac/mc/mc0/dimm1/dimm_mem_type': 'Registered-DDR4\n',
    'host/sys/devices/system/edac/mc/mc0/dimm1/size': '16384\n',
    ...topology(0, 0, 0),
    ...topology(1, 0, 0),
    ...topology(2, 1, 0),
  });
  await mkdir(join(root, 'host/sys/dev/block'), { recursive: true });
  await mkdir(join(root, 'shm'));
  await symlink('../../devices/pci0000:00/block/sda', join(root, 'host/sys/dev/block/8:0'));
  await runs('self', ['/dev/null']);
  await runs(1, [], '524288');
  await runs(4100, ['/dev/null', '/dev/null']);
  await runs(4242, ['/dev/null', 'pipe:[1]', 'socket:[2]', 'anon_inode:[eventpoll]'], 'unlimited');
  await runs(4243, ['socket:[3]', 'socket:[4]']);
}

const collectorOf = (clock = createFakeClock(), shown: Pod = pod) => {
  const cgroups = createCgroupReader(join(root, 'cgroup'));
  const collector = createCollector(
    {
      clock,
      cgroups,
      pods: {
        pods: () => [shown],
        container: () => ({ id: 'c1', state: 'running' }),
        sandbox: () => ({ id: 's1' }),
        cgroup: () => '/kubepods/podu1',
      },
    },
    {
      proc: join(root, 'host/proc'),
      systemCgroups: { pods: '/kubepods' },
      levels: ['/kubepods/burstable', '/kubepods/besteffort'],
    },
  );
  return { clock, cgroups, collector };
};

const cadvisorOf = (
  { clock, cgroups }: ReturnType<typeof collectorOf>,
  layers: ReadonlyMap<string, FilesystemUsage> = new Map(),
) =>
  createCadvisor(
    { clock, log: silentLog, cgroups, layers: async () => layers, sandboxImage: async () => 'pause:1' },
    { proc: join(root, 'host/proc'), hostRoot: join(root, 'host'), rootFolder: '/var/lib' },
  );

const textOf = async (pieces: AsyncIterable<string>): Promise<string> => {
  let text = '';
  for await (const piece of pieces) text += piece;
  return text;
};

/** Samples of the page by name and labels, without their times. */
function samplesOf(page: string): (name: string, labels?: Readonly<Record<string, string>>) => number[] {
  const all = page.split('\n').flatMap((line) => {
    const found = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    return line.startsWith('#') || !found ? [] : [found];
  });
  return (name, labels = {}) =>
    all
      .filter(([, one, text = '']) => {
        const wanted = Object.entries(labels).every(([key, value]) => `,${text},`.includes(`,${key}="${value}",`));
        return one === name && wanted;
      })
      .map((found) => Number(found[3]));
}

/** All that the kubelet of 1.36 has on its page. */
const families = [
  'cadvisor_version_info',
  'container_blkio_device_usage_total',
  'container_cpu_cfs_burst_periods_total',
  'container_cpu_cfs_burst_seconds_total',
  'container_cpu_cfs_periods_total',
  'container_cpu_cfs_throttled_periods_total',
  'container_cpu_cfs_throttled_seconds_total',
  'container_cpu_load_average_10s',
  'container_cpu_load_d_average_10s',
  'container_cpu_system_seconds_total',
  'container_cpu_usage_seconds_total',
  'container_cpu_user_seconds_total',
  'container_file_descriptors',
  'container_fs_inodes_free',
  'container_fs_inodes_total',
  'container_fs_io_cost_indebt_seconds_total',
  'container_fs_io_cost_indelay_seconds_total',
  'container_fs_io_cost_usage_seconds_total',
  'container_fs_io_cost_wait_seconds_total',
  'container_fs_io_current',
  'container_fs_io_time_seconds_total',
  'container_fs_io_time_weighted_seconds_total',
  'container_fs_limit_bytes',
  'container_fs_read_seconds_total',
  'container_fs_reads_bytes_total',
  'container_fs_reads_merged_total',
  'container_fs_reads_total',
  'container_fs_sector_reads_total',
  'container_fs_sector_writes_total',
  'container_fs_usage_bytes',
  'container_fs_write_seconds_total',
  'container_fs_writes_bytes_total',
  'container_fs_writes_merged_total',
  'container_fs_writes_total',
  'container_health_state',
  'container_last_seen',
  'container_memory_cache',
  'container_memory_failcnt',
  'container_memory_failures_total',
  'container_memory_kernel_usage',
  'container_memory_mapped_file',
  'container_memory_max_usage_bytes',
  'container_memory_rss',
  'container_memory_swap',
  'container_memory_total_active_file_bytes',
  'container_memory_total_inactive_file_bytes',
  'container_memory_usage_bytes',
  'container_memory_working_set_bytes',
  'container_network_receive_bytes_total',
  'container_network_receive_errors_total',
  'container_network_receive_packets_dropped_total',
  'container_network_receive_packets_total',
  'container_network_transmit_bytes_total',
  'container_network_transmit_errors_total',
  'container_network_transmit_packets_dropped_total',
  'container_network_transmit_packets_total',
  'container_oom_events_total',
  'container_pressure_cpu_stalled_seconds_total',
  'container_pressure_cpu_waiting_seconds_total',
  'container_pressure_io_stalled_seconds_total',
  'container_pressure_io_waiting_seconds_total',
  'container_pressure_memory_stalled_seconds_total',
  'container_pressure_memory_waiting_seconds_total',
  'container_processes',
  'container_scrape_error',
  'container_sockets',
  'container_spec_cpu_period',
  'container_spec_cpu_quota',
  'container_spec_cpu_shares',
  'container_spec_memory_limit_bytes',
  'container_spec_memory_reservation_limit_bytes',
  'container_spec_memory_swap_limit_bytes',
  'container_start_time_seconds',
  'container_tasks_state',
  'container_threads',
  'container_threads_max',
  'container_ulimits_soft',
  'machine_cpu_books',
  'machine_cpu_cores',
  'machine_cpu_drawers',
  'machine_cpu_physical_cores',
  'machine_cpu_sockets',
  'machine_dimm_capacity_bytes',
  'machine_dimm_count',
  'machine_memory_bytes',
  'machine_nvm_avg_power_budget_watts',
  'machine_nvm_capacity',
  'machine_scrape_error',
  'machine_swap_bytes',
];

const app = { container: 'app' };
const sandbox = { name: 's1' };
const podRow = { id: '/kubepods/podu1' };

describe('the page of cAdvisor', () => {
  it.each([
    ['v1', v1],
    ['v2', v2],
  ] as const)('has what the processes of a cgroup hold: cgroup %s', async (_version, tree) => {
    await machine(tree);
    const given = collectorOf();
    const page = await textOf(cadvisorOf(given).page(await given.collector.look()));
    expect(firstMistake(page)).toBeUndefined();
    const of = samplesOf(page);
    expect(of('container_processes', app)).toEqual([2]);
    expect(of('container_file_descriptors', app)).toEqual([6]);
    expect(of('container_sockets', app)).toEqual([3]);
    expect(of('container_threads', app)).toEqual([4]);
    expect(of('container_ulimits_soft', { ...app, ulimit: 'max_open_files' })).toEqual([-1]);
    expect(of('container_file_descriptors', sandbox)).toEqual([2]);
    expect(of('container_ulimits_soft', sandbox)).toEqual([1024]);
    expect(of('container_processes', podRow)).toEqual([0]);
    expect(of('container_file_descriptors', podRow)).toEqual([0]);
    // Of pods and slices nobody is the first.
    expect(of('container_ulimits_soft')).toHaveLength(2);
  });

  it.each([
    ['v1', v1, ['Read', 'Write', 'Total'], 0, 0],
    ['v2', v2, ['Read', 'Write'], 4096, 0],
  ] as const)(
    'has devices by their names, limits and faults: cgroup %s',
    async (_version, tree, operations, reservation, swap) => {
      await machine(tree);
      const given = collectorOf();
      const page = await textOf(cadvisorOf(given).page(await given.collector.look()));
      const of = samplesOf(page);
      const disk = { ...app, device: '/dev/sda' };
      expect(of('container_fs_reads_bytes_total', disk)).toEqual([100]);
      expect(of('container_fs_writes_total', disk)).toEqual([4]);
      for (const operation of operations)
        expect(of('container_blkio_device_usage_total', { ...disk, major: '8', minor: '0', operation })).toHaveLength(
          1,
        );
      expect(of('container_blkio_device_usage_total', app)).toHaveLength(operations.length);
      expect(of('container_spec_memory_reservation_limit_bytes', app)).toEqual([reservation]);
      expect(of('container_spec_memory_swap_limit_bytes', app)).toEqual([swap]);
      // Settings have no time, as there.
      expect(page).toMatch(/^container_spec_memory_limit_bytes\{container="app",[^}]+\} \d+$/m);
      expect(of('container_memory_failures_total', { ...app, scope: 'hierarchy', failure_type: 'pgfault' })).toEqual([
        99,
      ]);
      expect(of('container_memory_failures_total', { ...app, scope: 'container' })).toHaveLength(2);
      // Without one who measures layers, containers have no file systems.
      expect(of('container_fs_usage_bytes', app)).toEqual([]);
      for (const name of ['container_cpu_load_average_10s', 'container_health_state', 'container_spec_cpu_shares'])
        expect(of(name, app), name).toHaveLength(1);
      expect(of('container_tasks_state', app)).toHaveLength(5);
      expect(page).toContain('container_processes{container="",id="/kubepods/burstable"');
      expect(page).not.toContain('/kubepods/besteffort');
      expect(page).toContain(
        'container_processes{container="",id="/kubepods/podu1/s1",image="pause:1",name="s1",namespace="default",pod="web"}',
      );
    },
  );

  it('has file systems, memory and disks of the machine under its root, and what it is', async () => {
    await machine(v2);
    // The root of version 2 has no memory.current.
    await put({
      'cgroup/cpu.stat': 'usage_usec 7000000\nuser_usec 1\nsystem_usec 1\n',
      'cgroup/memory.stat': 'anon 1000\nfile 500\ninactive_file 300\n',
      'cgroup/io.stat':
        '8:1 rbytes=1 wbytes=2 rios=3 wios=4\n8:0 rbytes=5 wbytes=6 rios=7 wios=8 cost.usage=2500000 cost.wait=1\n',
      'cgroup/cgroup.procs': '4243\n',
      'cgroup/kubepods/podu1/c1/memory.pressure': 'some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n',
      'cgroup/kubepods/podu1/c1/io.pressure': 'some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n',
      'host/proc/1/net/dev': ' Inter-|\n face |\n  eth0: 100 2 3 4 0 0 0 0 200 5 6 7 0 0 0 0\n',
    });
    const given = collectorOf();
    const page = await textOf(cadvisorOf(given).page(await given.collector.look()));
    expect(firstMistake(page)).toBeUndefined();
    const begun = [...page.matchAll(/^# TYPE (\w+) /gm)].map(([, name]) => name);
    expect(begun.toSorted()).toEqual(families);
    const of = samplesOf(page);
    const all = { id: '/' };
    expect(of('container_memory_usage_bytes', all)).toEqual([1500]);
    expect(of('container_memory_working_set_bytes', all)).toEqual([1200]);
    expect(of('container_memory_swap', all)).toEqual([200 * 1024]);
    expect(of('container_spec_memory_limit_bytes', all)).toEqual([1000 * 1024]);
    expect(of('container_spec_memory_swap_limit_bytes', all)).toEqual([300 * 1024]);
    expect(of('container_threads', all)).toEqual([345]);
    expect(of('container_file_descriptors', all)).toEqual([2]);
    expect(of('container_ulimits_soft', all)).toEqual([524_288]);
    const part = { ...all, device: '/dev/sda1' };
    expect(of('container_fs_limit_bytes', part)[0]).toBeGreaterThan(0);
    expect(of('container_fs_inodes_total', { ...all, device: `${root}/shm` })).toHaveLength(1);
    expect(of('container_fs_limit_bytes', all)).toHaveLength(2);
    expect(of('container_fs_sector_reads_total', part)).toEqual([280]);
    expect(of('container_fs_read_seconds_total', part)).toEqual([2.5]);
    expect(of('container_fs_io_time_weighted_seconds_total', part)).toEqual([0.44]);
    expect(of('container_fs_io_current', part)).toEqual([2]);
    expect(of('container_fs_io_current', { device: `${root}/shm` })).toEqual([0]);
    // The cgroup's own count goes before the disk's where both have the device.
    expect(of('container_fs_reads_total', part)).toEqual([3]);
    expect(of('container_fs_reads_total', { ...all, device: '/dev/sda' })).toEqual([7]);
    expect(of('container_fs_io_cost_usage_seconds_total', { ...all, device: '/dev/sda' })).toEqual([2.5]);
    const labels = { boot_id: 'boot-1', machine_id: 'machine-1', system_uuid: 'uuid-1' };
    expect(of('machine_cpu_physical_cores', labels)).toEqual([2]);
    expect(of('machine_cpu_sockets', labels)).toEqual([2]);
    expect(of('machine_memory_bytes', labels)).toEqual([1000 * 1024]);
    expect(of('machine_dimm_count', { ...labels, type: 'Registered-DDR4' })).toEqual([2]);
    expect(of('machine_dimm_capacity_bytes', labels)).toEqual([32 * 2 ** 30]);
    expect(of('machine_nvm_capacity', labels)).toEqual([0, 0]);
    expect(of('machine_scrape_error')).toEqual([0]);
    expect(of('cadvisor_version_info', { kernelVersion: '6.18.0', osVersion: 'Debian 12' })).toEqual([1]);
  });

  it('has the layers of containers of CRI-O, on the device that they lie on', async () => {
    await machine(v2);
    const { 'host/proc/self/mountinfo': _, ...others } = {
      'host/proc/self/mountinfo': '',
      ...under('cgroup', v2('kubepods/podu1/crio-c1')),
    };
    await rm(join(root, 'cgroup/kubepods/podu1/c1'), { recursive: true });
    await put(others);
    const given = collectorOf();
    const layer = { timestampMs: 0, mountpoint: '/var/lib/containers/storage', usedBytes: 8192, inodesUsed: 5 };
    const cadvisor = cadvisorOf(given, new Map([['c1', layer]]));
    const of = samplesOf(await textOf(cadvisor.page(await given.collector.look())));
    expect(of('container_fs_usage_bytes', { ...app, device: '/dev/sda1' })).toEqual([8192]);
    expect(of('container_fs_inodes_total', app)).toEqual([5]);
    expect(of('container_fs_limit_bytes', app)[0]).toBeGreaterThan(8192);
  });

  it('shows the interfaces of the host with a pod on its network, without the ends of containers', async () => {
    await machine(v2);
    const net = ['eth0', 'veth12', 'lo'].map((name) => `  ${name}: 100 2 3 4 0 0 0 0 200 5 6 7 0 0 0 0\n`).join('');
    await put({ 'host/proc/1/net/dev': ` Inter-|\n face |\n${net}`, 'host/proc/4100/net/dev': net });
    const given = collectorOf(createFakeClock(), { ...pod, spec: { ...pod.spec, hostNetwork: true } });
    const of = samplesOf(await textOf(cadvisorOf(given).page(await given.collector.look())));
    expect(of('container_network_receive_bytes_total', sandbox)).toEqual([100]);
    expect(of('container_network_receive_bytes_total', app)).toEqual([]);
  });

  it('is made also of a container that ended since the look, and of a machine that cannot be read', async () => {
    await machine(v2);
    const given = collectorOf();
    const look = await given.collector.look();
    await rm(join(root, 'cgroup/kubepods/podu1/c1'), { recursive: true });
    await rm(join(root, 'host/proc/4100'), { recursive: true });
    await rm(join(root, 'host/proc/meminfo'));
    await rm(join(root, 'host/proc/self/mountinfo'));
    const page = await textOf(cadvisorOf(given).page(look));
    expect(firstMistake(page)).toBeUndefined();
    const of = samplesOf(page);
    expect(of('container_memory_usage_bytes', app)).toHaveLength(1);
    expect(of('container_file_descriptors', app)).toEqual([]);
    expect(of('container_file_descriptors', sandbox)).toEqual([0]);
    expect(of('container_ulimits_soft', sandbox)).toEqual([]);
    expect(of('machine_scrape_error')).toEqual([1]);
  });
});

describe('what processes hold', () => {
  const counterOf = (pids: Readonly<Record<string, readonly number[]>>) => {
    const asked: string[] = [];
    const counter = createProcessCounter(
      {
        cgroups: {
          pids(path) {
            asked.push(path);
            return pids[path];
          },
        },
      },
      { proc: join(root, 'host/proc') },
    );
    return { asked, counter };
  };

  it('is counted again where something ran, and once for pages made at a time', async () => {
    await runs(7, ['socket:[1]', '/dev/null']);
    const { asked, counter } = counterOf({ '/a': [7], '/b': [] });
    const cgroups = (usageNs: number) => [
      { path: '/a', usageNs, leader: 'first' as const },
      { path: '/b', usageNs: undefined, leader: 'none' as const },
      { path: '/gone', usageNs: 5, leader: 'first' as const },
    ];
    const key = {};
    const [first, second] = await Promise.all([counter.count(key, cgroups(1)), counter.count(key, cgroups(1))]);
    expect(second).toBe(first);
    expect(asked).toEqual(['/a', '/b', '/gone']);
    expect(first.get('/a')).toEqual({ processes: 1, fileDescriptors: 2, sockets: 1, maxOpenFiles: 1024 });
    expect(first.has('/gone')).toBe(false);
    await symlink('socket:[2]', join(root, 'host/proc/7/fd/9'));
    expect((await counter.count({}, cgroups(1))).get('/a')?.sockets).toBe(1);
    expect((await counter.count({}, cgroups(2))).get('/a')?.sockets).toBe(2);
    // Forgotten with the list it was not in.
    await counter.count({}, []);
    await symlink('socket:[3]', join(root, 'host/proc/7/fd/10'));
    expect((await counter.count({}, cgroups(2))).get('/a')?.sockets).toBe(3);
  });

  it('gives way to other work while there is much of it', async () => {
    await runs('self', ['/dev/null']);
    await runs(
      100,
      Array.from({ length: 40 }, (_, at) => `socket:[${at}]`),
    );
    const pids = Array.from({ length: 200 }, () => 100);
    const { counter } = counterOf({ '/a': pids });
    let turns = 0;
    let walking = true;
    const tick = (): void => {
      turns++;
      if (walking) setImmediate(tick);
    };
    setImmediate(tick);
    const found = await counter.count({}, [{ path: '/a', usageNs: 1, leader: 'none' }]);
    walking = false;
    expect(found.get('/a')).toMatchObject({ processes: 200, fileDescriptors: 8000, sockets: 8000 });
    expect(turns).toBeGreaterThan(0);
  });

  it.each([
    ['Max open files            1024                 524288               files     \n', 1024],
    ['Max cpu time   1 1 seconds\nMax open files            unlimited            unlimited            files\n', -1],
    ['Max open files\n', undefined],
    [undefined, undefined],
  ])('%j', (text, limit) => expect(softOpenFiles(text)).toBe(limit));
});

describe('file systems of the machine', () => {
  const id = 'f'.repeat(64);
  it('are those that do not come and go with pods, each device once', () => {
    const lines = [
      '1 0 8:1 / / rw - ext4 /dev/root rw',
      '2 1 8:1 /a /bind rw - ext4 /dev/root rw',
      '3 1 0:30 / /run rw - tmpfs tmpfs rw',
      '4 1 0:31 / /mnt/a\\040b rw - nfs4 server:/a rw',
      '5 1 0:32 / /merged rw - overlay overlay rw',
      `6 1 0:33 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/${id}/rootfs rw - overlay overlay rw`,
      `7 1 0:34 / /run/containerd/io.containerd.grpc.v1.cri/sandboxes/${id}/shm rw - tmpfs shm rw`,
      '8 1 0:35 / /var/lib/kubelet/pods/u/volumes/kubernetes.io~nfs/v rw - nfs server:/v rw',
      '14 1 0:37 / /data/kubelet/pods/u/volumes/kubernetes.io~projected/t rw - tmpfs tmpfs rw',
      '9 1 8:16 / /var/lib/kubelet/plugins/csi/pv/globalmount rw - xfs /dev/sdb rw',
      '10 1 8:16 / /var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pv/mount rw - xfs /dev/sdb rw',
      '11 1 0:36 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw',
      '12 1 8:32 / /mnt/over rw - ext4 /dev/sdc rw',
      '13 12 8:48 / /mnt/over rw - ext4 /dev/sdd rw',
      '15 1 8:64 / /srv/hidden rw - ext4 /dev/sde rw',
      '16 1 8:80 / /srv rw - ext4 /dev/sdf rw',
    ];
    const found = machineMounts(lines.join('\n'), '/var/lib/kubelet');
    expect(found.map(({ device }) => device)).toEqual([
      '/dev/root',
      '/run',
      'server:/a',
      'overlay_0-32',
      '/dev/sdb',
      '/dev/sdd',
      '/dev/sdf',
    ]);
    expect(found[2]).toEqual({ device: 'server:/a', number: '0:31', mountPoint: '/mnt/a b', remote: true });
  });

  it('are left out while they do not answer, and hold up one page alone', async () => {
    await put({
      'host/proc/self/mountinfo': '1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:3 / /mnt rw - nfs4 dead:/ rw\n',
    });
    const clock = createFakeClock();
    const sizes = { capacityBytes: 10, usedBytes: 4, inodes: 3, inodesFree: 2 };
    const back = Promise.withResolvers<typeof sizes>();
    let asked = 0;
    const filesystems = createMachineFilesystems(
      { clock },
      {
        proc: join(root, 'host/proc'),
        rootFolder: '/var/lib/kubelet',
        ask: {
          local: async () => sizes,
          remote: async () => {
            asked++;
            return await back.promise;
          },
        },
      },
    );
    const devices = async (): Promise<string[]> => (await filesystems.read()).map(({ device }) => device);
    const [first, second] = [devices(), devices()];
    // The mount table is read from a real file first.
    while (asked === 0) await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(2_000);
    expect([await first, await second]).toEqual([['/dev/sda1'], ['/dev/sda1']]);
    expect(await devices()).toEqual(['/dev/sda1']);
    expect(asked).toBe(1);
    back.resolve(sizes);
    await clock.advance(1);
    expect(await devices()).toEqual(['/dev/sda1', 'dead:/']);
    expect(asked).toBe(2);
    await clock.advance(59_000);
    expect(await devices()).toEqual(['/dev/sda1', 'dead:/']);
    expect(asked).toBe(2);
    await clock.advance(1_001);
    expect(await devices()).toEqual(['/dev/sda1', 'dead:/']);
    expect(asked).toBe(3);
  });
});

it.each([
  ['configured', 'pause:1'],
  [undefined, 'pause:2'],
])('what sandboxes are made of is configured (%s), or else told of one', async (configured, image) => {
  const runtime = {
    status: async () => ({ ...(configured === undefined ? {} : { sandboxImage: 'pause:1' }) }) as RuntimeStatus,
    sandboxStatus: async (id: SandboxId) => ({ id, image: 'pause:2' }) as SandboxStatus,
  };
  expect(await sandboxImage(runtime, 's1' as SandboxId)).toBe(image);
});

it('a machine without a topology has no cores to tell of', async () => {
  await put({ 'bare/proc/meminfo': 'MemTotal: 1 kB\n' });
  const found = await readMachine({ hostRoot: join(root, 'bare'), rootFolder: root });
  expect(found.processors).toEqual({ cores: 0, sockets: 0, books: 0, drawers: 0 });
  expect(found.modules).toEqual([]);
});
