import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { sliceProperties, writesV1, writesV2 } from './cgroup-files.ts';
import { parseCgroupMounts } from './cgroup-mounts.ts';
import { cgroupPath, parseCgroupRoot, podUidOf, sliceName } from './cgroup-names.ts';
import type { CgroupTree } from './cgroup-tree.ts';
import type { CgroupResources } from './linux-resources.ts';
import { createPodCgroups } from './pod-cgroups.ts';
import { createSystemdSlices } from './systemd-slices.ts';

describe('names', () => {
  it.each([
    [[], '/', '/', '-.slice'],
    [['kubepods'], '/kubepods', '/kubepods.slice', 'kubepods.slice'],
    [
      ['kubepods', 'burstable', 'pod12-ab'],
      '/kubepods/burstable/pod12-ab',
      '/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_ab.slice',
      'kubepods-burstable-pod12_ab.slice',
    ],
    [['a-b', 'kubepods'], '/a-b/kubepods', '/a_b.slice/a_b-kubepods.slice', 'a_b-kubepods.slice'],
  ])('%j', (name, cgroupfs, systemd, slice) => {
    expect(cgroupPath(name, 'cgroupfs')).toBe(cgroupfs);
    expect(cgroupPath(name, 'systemd')).toBe(systemd);
    expect(sliceName(name)).toBe(slice);
    expect(parseCgroupRoot(cgroupfs)).toEqual(name);
  });

  it.each([
    ['pod12-ab', 'cgroupfs', '12-ab'],
    ['kubepods-burstable-pod12_ab.slice', 'systemd', '12-ab'],
    ['kubepods-pod12_ab.slice', 'systemd', '12-ab'],
    ['burstable', 'cgroupfs', undefined],
    ['kubepods-burstable.slice', 'systemd', undefined],
    ['pod', 'cgroupfs', undefined],
  ] as const)('%s is of pod %s', (folder, driver, uid) => expect(podUidOf(folder, driver)).toBe(uid));
});

describe('mounts', () => {
  const line = (point: string, type: string, options: string): string =>
    `30 25 0:26 / ${point} rw,nosuid shared:9 - ${type} ${type} rw,${options}`;

  it('knows version 2', () => {
    expect(parseCgroupMounts(line('/sys/fs/cgroup', 'cgroup2', 'nsdelegate'))).toEqual({
      version: 2,
      controllers: new Map(),
      unified: '/sys/fs/cgroup',
    });
  });

  it('knows version 1, also with a version 2 hierarchy beside it', () => {
    const mounts = parseCgroupMounts(
      [
        line('/sys/fs/cgroup/unified', 'cgroup2', ''),
        line('/sys/fs/cgroup/cpu,cpuacct', 'cgroup', 'cpu,cpuacct'),
        line('/sys/fs/cgroup/memory', 'cgroup', 'memory'),
        line('/some/where/else/entirely/memory', 'cgroup', 'memory'),
        line('/sys/fs/cgroup/systemd', 'cgroup', 'xattr,name=systemd'),
      ].join('\n'),
    );
    expect(mounts.version).toBe(1);
    expect([...mounts.controllers]).toEqual([
      ['cpu', '/sys/fs/cgroup/cpu,cpuacct'],
      ['cpuacct', '/sys/fs/cgroup/cpu,cpuacct'],
      ['memory', '/sys/fs/cgroup/memory'],
      ['name=systemd', '/sys/fs/cgroup/systemd'],
    ]);
  });
});

describe('what is written', () => {
  const resources: CgroupResources = {
    cpuShares: 1024,
    cpuQuota: 50_000,
    cpuPeriod: 100_000,
    memoryLimit: 2 ** 20,
    pidsLimit: 10,
    hugepageLimits: { '2MB': Number.POSITIVE_INFINITY },
  };
  const short = (writes: readonly { file: string; value: string; optional: boolean }[]): string[] =>
    writes.map(({ file, value, optional }) => `${file}=${value}${optional ? '?' : ''}`);

  it('in version 1', () => {
    expect(short(writesV1(resources))).toEqual([
      'cpu.shares=1024',
      'cpu.cfs_period_us=100000',
      'cpu.cfs_quota_us=50000',
      'memory.limit_in_bytes=1048576',
      'pids.max=10',
      'hugetlb.2MB.limit_in_bytes=-1',
      'hugetlb.2MB.rsvd.limit_in_bytes=-1?',
    ]);
    expect(short(writesV1({ cpuQuota: -1, memoryLimit: 0 }))).toEqual(['cpu.cfs_quota_us=-1']);
  });

  it('in version 2', () => {
    expect(short(writesV2({ ...resources, unified: { 'memory.low': '5' } }))).toEqual([
      'cpu.weight=39',
      'cpu.max=50000 100000',
      'memory.max=1048576',
      'pids.max=10',
      'hugetlb.2MB.max=max',
      'hugetlb.2MB.rsvd.max=max?',
      'memory.low=5',
    ]);
    expect(short(writesV2({ cpuQuota: -1, cpuPeriod: 100_000 }))).toEqual(['cpu.max=max 100000']);
  });

  it('for systemd', () => {
    expect(sliceProperties(resources, 2)).toEqual([
      ['CPUWeight', 't', '39'],
      ['CPUQuotaPeriodUSec', 't', '100000'],
      ['CPUQuotaPerSecUSec', 't', '500000'],
      ['MemoryMax', 't', '1048576'],
      ['TasksMax', 't', '10'],
    ]);
    expect(sliceProperties({ cpuQuota: 1001, cpuPeriod: 100_000 }, 1)).toContainEqual([
      'CPUQuotaPerSecUSec',
      't',
      '20000',
    ]);
  });

  it('asks systemd through busctl', async () => {
    const calls: string[] = [];
    const slices = createSystemdSlices(async (command, args) => {
      calls.push([command, ...args].join(' '));
      return { stdout: '', stderr: '' };
    });
    await slices.start('kubepods.slice', 'pods', [['MemoryMax', 't', '5']]);
    await slices.stop('kubepods.slice');
    expect(calls[0]).toMatch(
      /^busctl -- call org\.freedesktop\.systemd1 \S+ \S+ StartTransientUnit ssa\(sv\)a\(sa\(sv\)\) kubepods\.slice replace 7 .* MemoryMax t 5 0$/,
    );
    expect(calls[1]).toMatch(/StopUnit ss kubepods\.slice replace$/);
  });
});

describe("pods' cgroups", () => {
  const setUp = (busyFor: number) => {
    const made = new Map<string, CgroupResources[]>();
    const killed: number[] = [];
    let busy = busyFor;
    const tree: CgroupTree = {
      make: async (path) => void made.set(path, made.get(path) ?? []),
      set: async (path, resources) => {
        if (path.endsWith('kubepods') && resources.memoryLimit === 13) throw new Error('write 13: EBUSY');
        made.get(path)?.push(resources);
      },
      exists: async (path) => made.has(path),
      children: async (path) =>
        [...made.keys()]
          .filter((each) => each.startsWith(`${path}/`))
          .map((each) => each.slice(path.length + 1))
          .filter((each) => !each.includes('/')),
      processes: async (path) => (busy > 0 && made.has(path) ? [4711] : []),
      remove: async (path) => {
        if (busy-- > 0) return false;
        made.delete(path);
        return true;
      },
      read: async () => undefined,
    };
    const clock = createFakeClock();
    const took: string[] = [];
    const cgroups = createPodCgroups(
      {
        tree,
        clock,
        log: silentLog,
        kill: (pid) => killed.push(pid),
        took: (operation, ms) => took.push(`${operation} ${ms}`),
      },
      {
        driver: 'cgroupfs',
        version: 1,
        root: '/',
        perQos: true,
        cpuCfsQuota: true,
        cpuCfsQuotaPeriodUs: 100_000,
        hugepageSizes: [],
        podPidsLimit: -1,
      },
    );
    return { cgroups, made, killed, clock, took };
  };
  const pod: Pod = { metadata: { name: 'p', uid: 'u-1' }, spec: { containers: [{ name: 'c' }] } };

  it('says what could not be enforced, and makes the levels all the same', async () => {
    const { cgroups, made } = setUp(0);
    expect(await cgroups.prepare({ cpuMilli: 1000, memoryBytes: 13 })).toEqual({
      problem: 'Failed to update Node Allocatable Limits ["kubepods"]: write 13: EBUSY',
    });
    expect([...made.keys()]).toEqual(['/kubepods', '/kubepods/burstable', '/kubepods/besteffort']);
  });

  it('finds a pod of any class by its uid', async () => {
    const { cgroups, made } = setUp(0);
    await cgroups.ensure(pod);
    expect(made.has('/kubepods/besteffort/podu-1')).toBe(true);
    expect(await cgroups.list()).toEqual(['u-1']);
    expect(await cgroups.remove('u-1')).toBe(true);
    expect(await cgroups.list()).toEqual([]);
  });

  it('kills what is left and tries again, but not for ever', async () => {
    const some = setUp(3);
    await some.cgroups.ensure(pod);
    const removed = some.cgroups.remove('u-1');
    await some.clock.advance(1000);
    expect(await removed).toBe(true);
    expect(some.killed).toEqual([4711, 4711]);
    expect(some.took).toEqual(['create 0', expect.stringMatching(/^destroy [1-9]/)]);

    const stuck = setUp(1000);
    await stuck.cgroups.ensure(pod);
    const refused = stuck.cgroups.remove('u-1');
    await stuck.clock.advance(2000);
    expect(await refused).toBe(false);
  });

  it('kills the processes of one pod, and leaves its cgroup', async () => {
    const some = setUp(1);
    await some.cgroups.ensure(pod);
    expect(await some.cgroups.killProcesses('u-1')).toBe(1);
    expect(some.killed).toEqual([4711]);
    expect(await some.cgroups.killProcesses('u-2')).toBe(0);
    expect(await some.cgroups.killProcesses('')).toBe(0);
    expect(some.killed).toEqual([4711]);
    expect(await some.cgroups.list()).toContain('u-1');
  });

  it('tells where the pods of a class of quality are', () => {
    expect(setUp(0).cgroups.qosPaths).toEqual(['/kubepods/burstable', '/kubepods/besteffort']);
  });

  it('makes none where the configuration wants none', async () => {
    const { made } = setUp(0);
    const none = createPodCgroups(
      { tree: {} as CgroupTree, clock: createFakeClock(), log: silentLog },
      {
        driver: 'systemd',
        version: 2,
        root: '/',
        perQos: false,
        cpuCfsQuota: true,
        cpuCfsQuotaPeriodUs: 100_000,
        hugepageSizes: [],
        podPidsLimit: -1,
      },
    );
    await none.ensure(pod);
    expect(none.parentFor(pod)).toBe('/');
    expect(none.qosPaths).toEqual([]);
    // All pods' containers are in one cgroup, with whatever else is there.
    expect(await none.killProcesses('u-1')).toBe(0);
    expect(made.size).toBe(0);
  });
});
