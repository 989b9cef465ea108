import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createExposition, labelText, withLabel } from '../../lib/exposition.ts';
import { createCgroupReader } from './cgroup-reader.ts';
import { firstMistake, pod, v1, v2 } from './cgroups.fixture.ts';
import { keyed, parseBlkio, parseIoStat, parsePsi } from './cgroup-text.ts';
import { parseDiskstats } from './block-devices.ts';
import { createCollector } from './collect.ts';
import { machineMounts } from './machine-filesystems.ts';
import { softOpenFiles } from './process-figures.ts';
import { cgroupOfProcess } from './node-stats.ts';
import { parseMeminfo, parseNetDev } from './proc.ts';
import { resourcePage } from './resource-page.ts';
import { cpuAndMemorySummary } from './summary.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'stats-'));
});
afterEach(async () => await rm(root, { recursive: true, force: true }));

const put = async (files: Readonly<Record<string, string>>): Promise<void> => {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
};

describe('createCgroupReader', () => {
  it('reads cgroup v2', async () => {
    await put(v2('kubepods/pod1'));
    const reader = createCgroupReader(root);
    expect(reader.version).toBe(2);
    const sample = reader.read('/kubepods/pod1', 7)!;
    expect(sample.cpu).toMatchObject({ usageNs: 5e9, userNs: 3e9, throttledNs: 700_000, quotaUs: 50_000, shares: 998 });
    expect(sample.cpu?.psi?.some).toEqual({ totalUs: 1_234_567, avg10: 1.5, avg60: 0.2, avg300: 0.1 });
    expect(sample.memory).toMatchObject({
      usage: 10_485_760,
      workingSet: 8_388_608,
      limit: 20_971_520,
      rss: 4_194_304,
      failures: 5,
      oomKills: 1,
      swapUsage: 4096,
      swapLimit: undefined,
    });
    expect(sample.processes).toEqual({ current: 4, max: undefined });
    expect(sample.io).toMatchObject([{ device: '8:0', readBytes: 100, writeBytes: 200, reads: 3, writes: 4 }]);
    expect(reader.pids('/kubepods/pod1')).toEqual([4242, 4243]);
    expect(reader.pids('/kubepods/none')).toBeUndefined();
    expect(reader.firstPid('/kubepods/pod1')).toBe(4242);
    expect(reader.read('/kubepods/none', 7)).toBeUndefined();
    expect(reader.firstPid('/kubepods/none')).toBeUndefined();
  });

  it('reads cgroup v1', async () => {
    await put(v1('kubepods/pod1'));
    const reader = createCgroupReader(root);
    expect(reader.version).toBe(1);
    const sample = reader.read('/kubepods/pod1', 7)!;
    expect(sample.cpu).toMatchObject({ usageNs: 5e9, userNs: 3e9, systemNs: 2e9, quotaUs: undefined, shares: 1024 });
    expect(sample.memory).toMatchObject({ usage: 10_485_760, workingSet: 8_388_608, limit: undefined, oomKills: 1 });
    expect(sample.processes).toEqual({ current: 4, max: 100 });
    expect(sample.io).toMatchObject([{ device: '8:0', readBytes: 100, writeBytes: 200, reads: 3, writes: 4 }]);
    expect(reader.read('/kubepods/none', 7)).toBeUndefined();
  });

  it.each([
    ['all that is below it, where the kernel counts that', {}, { reads: 30 }],
    [
      'the scheduler of the devices',
      { 'blkio.bfq.io_service_bytes_recursive': '8:0 Read 7\nTotal 7\n' },
      { reads: 300 },
    ],
    [
      'another one, where no device has that scheduler',
      { 'blkio.bfq.io_service_bytes_recursive': 'Total 0\n' },
      { reads: 30 },
    ],
    [
      'what a scheduler says that counts more',
      {
        'blkio.bfq.io_service_bytes_recursive': '8:0 Read 7\nTotal 7\n',
        'blkio.bfq.io_service_time_recursive':
          '8:0 Read 5000000000\n8:0 Write 1\n8:0 Total 5000000001\nTotal 5000000001\n',
        'blkio.bfq.io_queued_recursive': '8:0 Total 2\nTotal 2\n',
        'blkio.bfq.sectors_recursive': '8:0 6792\n',
      },
      {
        reads: 300,
        scheduler: { readNs: 5e9, writeNs: 1, serviceNs: 5_000_000_001, queued: 2, sectorsRead: 0, sectorsWritten: 0 },
      },
    ],
  ])('reads of the I/O of version 1 %s', async (_what, files, io) => {
    const folder = 'blkio/kubepods/pod1';
    await put(v1('kubepods/pod1'));
    await put({
      [`${folder}/blkio.throttle.io_service_bytes_recursive`]: '8:0 Read 1000\nTotal 1000\n',
      [`${folder}/blkio.throttle.io_serviced_recursive`]: '8:0 Read 30\nTotal 30\n',
      [`${folder}/blkio.bfq.io_serviced_recursive`]: '8:0 Read 300\nTotal 300\n',
      ...Object.fromEntries(Object.entries(files).map(([file, text]) => [`${folder}/${file}`, text])),
    });
    expect(createCgroupReader(root).read('/kubepods/pod1', 7)!.io).toMatchObject([io]);
  });

  it.each([
    [
      'v1',
      v1,
      { 'cpu/a/cpu.cfs_quota_us': '50000\n', 'cpu/a/cpu.stat': 'nr_periods 1\nnr_bursts 3\nburst_time 5000\n' },
    ],
    ['v2', v2, { 'a/cpu.stat': 'usage_usec 1\nnr_periods 1\nnr_bursts 3\nburst_usec 5\n' }],
  ])('reads bursts over the quota: cgroup %s', async (_version, tree, files) => {
    await put({ ...tree('a'), ...files });
    expect(createCgroupReader(root).read('/a', 7)!.cpu).toMatchObject({ bursts: 3, burstNs: 5000 });
  });

  it('bears any text', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        parsePsi(text);
        keyed(text, 'a');
        parseIoStat(text);
        parseBlkio({ io_service_bytes: text, io_serviced: text, sectors: text });
        parseDiskstats(text);
        machineMounts(text, '/var/lib/kubelet');
        softOpenFiles(text);
        parseNetDev(text);
        parseMeminfo(text);
        cgroupOfProcess(text);
      }),
    );
  });
});

describe('a look', () => {
  const collector = (podPath: string, clock = createFakeClock()) => ({
    clock,
    collector: createCollector(
      {
        clock,
        cgroups: createCgroupReader(root),
        pods: {
          pods: () => [pod, { ...pod, status: { ...pod.status, phase: 'Succeeded' as const } }],
          container: () => ({ id: 'c1', state: 'running' }),
          sandbox: () => ({ id: 's1' }),
          cgroup: () => podPath,
        },
      },
      { proc: join(root, 'proc'), systemCgroups: { pods: '/kubepods' } },
    ),
  });

  it('has the stalls of the node as a whole, for processor and memory', async () => {
    const stalled = (total: number): string =>
      `some avg10=1.50 avg60=0.20 avg300=0.10 total=${total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n`;
    // The root of version 2 has no memory.current.
    await put({
      'cgroup.controllers': 'cpu memory pids io\n',
      'cpu.stat': 'usage_usec 7000000\nuser_usec 1\nsystem_usec 1\n',
      'memory.stat': 'anon 1000\nfile 500\ninactive_file 300\n',
      'cpu.pressure': stalled(11),
      'memory.pressure': stalled(12),
    });
    const look = await collector('/kubepods/podu1').collector.look();
    const { node } = cpuAndMemorySummary({ look, nodeName: 'n', proc: join(root, 'proc'), runtimeStats: new Map() });
    expect(node.cpu?.psi?.some).toEqual({ total: 11, avg10: 1.5, avg60: 0.2, avg300: 0.1 });
    expect(node.memory?.psi).toEqual({
      some: { total: 12, avg10: 1.5, avg60: 0.2, avg300: 0.1 },
      full: { total: 7, avg10: 0, avg60: 0, avg300: 0 },
    });
  });

  it.each([
    ['cgroupfs', '/kubepods/podu1', ['kubepods/podu1/c1', 'kubepods/podu1/s1']],
    [
      'systemd',
      '/kubepods.slice/kubepods-podu1.slice',
      [
        'kubepods.slice/kubepods-podu1.slice/cri-containerd-c1.scope',
        'kubepods.slice/kubepods-podu1.slice/crio-s1.scope',
      ],
    ],
  ])('finds containers under the %s driver, and their network', async (_driver, podPath, [container, sandbox]) => {
    const net =
      ' Inter-|\n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 100 2 3 4 0 0 0 0 200 5 6 7 0 0 0 0\n';
    await put({ ...v2(podPath.slice(1)), ...v2(container!), ...v2(sandbox!), 'proc/4242/net/dev': net });
    const { collector: it } = collector(podPath);
    const [found, ...others] = (await it.look()).pods;
    expect(others).toEqual([]);
    expect(found!.containers.map((one) => one.path)).toEqual([`/${container}`]);
    expect(found!.interfaces).toMatchObject([{ name: 'eth0', rxBytes: 100, rxErrors: 3, txBytes: 200, txDropped: 7 }]);
  });

  it('is kept for a second, and the rate is since the one before', async () => {
    await put({ ...v2('kubepods/podu1'), ...v2('kubepods/podu1/c1') });
    const { collector: it, clock } = collector('/kubepods/podu1');
    const first = await it.look();
    expect(first.pods[0]!.containers[0]!.nanoCores).toBeUndefined();
    expect(await it.look()).toBe(first);
    await put(v2('kubepods/podu1/c1', 6_000_000));
    await clock.advance(4_000);
    expect((await it.look()).pods[0]!.containers[0]!.nanoCores).toBe(250_000_000);
    // The counter began anew: no rate, and none below zero.
    await put(v2('kubepods/podu1/c1', 1_000));
    await clock.advance(4_000);
    expect((await it.look()).pods[0]!.containers[0]!.nanoCores).toBeUndefined();
  });

  it.each([
    ['v2', v2, 'memory.max', 'memory.events', 'max 6\n', 'cpu.stat', 'usage_usec 6000000\n'],
    ['v1', v1, 'memory.limit_in_bytes', 'memory.oom_control', 'oom_kill 6\n', 'cpuacct.usage', '6000000000\n'],
  ] as const)(
    'reads again what can have changed: cgroup %s',
    async (version, tree, limitFile, eventFile, events, cpuFile, cpu) => {
      await put({ ...tree('kubepods/podu1'), ...tree('kubepods/podu1/c1') });
      const clock = createFakeClock();
      let current: Pod = { ...pod, metadata: { ...pod.metadata, resourceVersion: '1' } };
      const it = createCollector(
        {
          clock,
          cgroups: createCgroupReader(root),
          pods: {
            pods: () => [current],
            container: () => ({ id: 'c1', state: 'running' }),
            sandbox: () => undefined,
            cgroup: () => '/kubepods/podu1',
          },
        },
        { proc: join(root, 'proc'), systemCgroups: {} },
      );
      const memory = async () => {
        const found = (await it.look()).pods[0]!.containers[0]!.sample.memory!;
        return { limit: found.limit, usage: found.usage, events: version === 'v2' ? found.failures : found.oomKills };
      };
      const folder = (file: string): string =>
        version === 'v2' ? 'kubepods/podu1/c1' : `${file.split('.')[0]}/kubepods/podu1/c1`;
      const before = await memory();
      await put({
        [`${folder(limitFile)}/${limitFile}`]: '4096\n',
        [`${folder(eventFile)}/${eventFile}`]: events,
        [`${folder('memory.x')}/${version === 'v2' ? 'memory.current' : 'memory.usage_in_bytes'}`]: '8192\n',
      });
      await clock.advance(5_000);
      // Nothing ran there: its memory may have been taken from it, but it cannot have run into a limit.
      expect(await memory()).toEqual({ ...before, usage: 8192 });
      await put({ [`${folder(cpuFile)}/${cpuFile}`]: cpu });
      await clock.advance(5_000);
      expect(await memory()).toEqual({ ...before, usage: 8192, events: 6 });
      current = { ...current, metadata: { ...current.metadata, resourceVersion: '2' } };
      await clock.advance(5_000);
      expect(await memory()).toEqual({ limit: 4096, usage: 8192, events: 6 });
      await put({ [`${folder(limitFile)}/${limitFile}`]: '12288\n' });
      await clock.advance(61_000);
      expect((await memory()).limit).toBe(12_288);
    },
  );

  it('is of a third of the files for autoscalers, and a full one serves them too', async () => {
    await put({ ...v2('kubepods/podu1'), ...v2('kubepods/podu1/c1'), ...v2('kubepods/podu1/s1') });
    const reader = createCgroupReader(root);
    const reads: string[] = [];
    const clock = createFakeClock();
    const it = createCollector(
      {
        clock,
        cgroups: {
          ...reader,
          read(path, nowMs, options) {
            reads.push(`${options?.depth} ${path}`);
            return reader.read(path, nowMs, options);
          },
        },
        pods: {
          pods: () => [pod],
          container: () => ({ id: 'c1', state: 'running' }),
          sandbox: () => ({ id: 's1' }),
          cgroup: () => '/kubepods/podu1',
        },
      },
      { proc: join(root, 'proc'), systemCgroups: {} },
    );
    const core = await it.look('core');
    expect(reads).toEqual(['core /kubepods/podu1/c1', 'core /kubepods/podu1', 'core /']);
    const [full, again] = await Promise.all([it.look(), it.look()]);
    expect(full).not.toBe(core);
    expect(again).toBe(full);
    await clock.advance(2_000);
    const later = await it.look();
    expect(await it.look('core')).toBe(later);
    expect(later.pods[0]!.containers[0]!.sample.io).toHaveLength(1);
  });

  it('shows a container that runs in no cgroup of ours with the figures of its runtime', async () => {
    await put(v2('kubepods/podu1'));
    const { collector: it } = collector('/kubepods/podu1');
    const look = await it.look();
    expect(look.pods[0]!.unseen).toMatchObject([{ name: 'app', id: 'c1' }]);
    const stats = {
      id: 'c1',
      metadata: { name: 'app', attempt: 0 },
      labels: {},
      annotations: {},
      cpu: { timestampMs: 0, usageCoreNanoSeconds: 42 },
    };
    const summary = cpuAndMemorySummary({ look, nodeName: 'n', proc: root, runtimeStats: new Map([['c1', stats]]) });
    expect(summary.pods[0]!.containers[0]!.cpu?.usageCoreNanoSeconds).toBe(42);
  });

  it('tells of swap also where the kernel keeps no books of it', async () => {
    const {
      'kubepods/podu1/c1/memory.swap.current': _,
      'kubepods/podu1/c1/memory.swap.max': __,
      ...files
    } = v2('kubepods/podu1/c1');
    await put({ ...v2('kubepods/podu1'), ...files });
    const { collector: it } = collector('/kubepods/podu1');
    const summary = cpuAndMemorySummary({ look: await it.look(), nodeName: 'n', proc: root, runtimeStats: new Map() });
    expect(summary.pods[0]!.containers[0]!.swap).toEqual({ time: expect.any(String), swapUsageBytes: 0 });
    expect(resourcePage(summary, 0)).toContain(
      'container_swap_usage_bytes{container="app",namespace="default",pod="web"} 0',
    );
  });

  it('becomes a page for autoscalers that every line of is right', async () => {
    await put({ ...v2('kubepods/podu1'), ...v2('kubepods/podu1/c1'), ...v2('kubepods/podu1/s1'), ...v2('kubepods') });
    const { collector: it } = collector('/kubepods/podu1');
    const look = await it.look();
    const resource = resourcePage(
      cpuAndMemorySummary({ look, nodeName: 'n', proc: root, runtimeStats: new Map() }),
      look.timeMs,
    );
    expect(resource).toContain(
      `container_cpu_usage_seconds_total{container="app",namespace="default",pod="web"} 5 ${look.timeMs}\n`,
    );
    expect(resource).toContain(
      'container_start_time_seconds{container="app",namespace="default",pod="web"} 1767225601\n',
    );
    expect(resource).toContain(`pod_memory_working_set_bytes{namespace="default",pod="web"} 8388608 ${look.timeMs}\n`);
    expect(resource).toContain('resource_scrape_error 0\n');
    expect(resourcePage(undefined, 0)).toContain('resource_scrape_error 1\n');
    // Since 1.31 the kubelet hides it, and upstream's tests want no figure on the page that they do not know.
    expect(resource).not.toMatch(/^scrape_error/m);
    expect(firstMistake(resource)).toBeUndefined();
  });
});

describe('exposition', () => {
  it('writes any label value so that it can be read', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        const page = createExposition();
        page.family('x', 'gauge', 'help\nwith ends').sample(withLabel(labelText({ a }), 'b', b), 1);
        expect(firstMistake(page.text().replace(/[\u2028\u2029\r\u0085]/g, ''))).toBeUndefined();
      }),
    );
  });
});

describe('cgroupOfProcess', () => {
  it.each([
    ['0::/system.slice/stevedore.service\n', '/system.slice/stevedore.service'],
    ['0::/\n', undefined],
    ['8:pids:/\n4:memory:/a:b\n0::/\n', '/a:b'],
    ['', undefined],
  ])('%j', (text, path) => expect(cgroupOfProcess(text)).toBe(path));
});
