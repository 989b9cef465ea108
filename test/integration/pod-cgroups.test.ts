// Pods' cgroups on the real cgroup file systems, under a root of the test's own.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { podsLeft } from '../../agent/node/memory-alarm.ts';
import { type CgroupMounts, findCgroupMounts } from '../../agent/resources/cgroup-mounts.ts';
import { type CgroupTree, createCgroupTree } from '../../agent/resources/cgroup-tree.ts';
import { createPodCgroups, type PodCgroups } from '../../agent/resources/pod-cgroups.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';

const root = `/stevedore-test-${process.pid}`;

const pod = (uid: string, resources: NonNullable<Pod['spec']['containers'][0]['resources']>): Pod => ({
  metadata: { name: uid, namespace: 'default', uid },
  spec: { containers: [{ name: 'c', resources }] },
});
const guaranteed = pod('aaaa-1', {
  requests: { cpu: '500m', memory: '64Mi' },
  limits: { cpu: '500m', memory: '64Mi' },
});
const burstable = pod('bbbb-2', { requests: { cpu: '250m' } });
const bestEffort = pod('cccc-3', {});

let mounts: CgroupMounts;
let tree: CgroupTree;
let cgroups: PodCgroups;

beforeAll(async () => {
  mounts = await findCgroupMounts();
  tree = createCgroupTree(mounts);
  cgroups = createPodCgroups(
    { tree, clock: systemClock, log: silentLog },
    {
      driver: 'cgroupfs',
      version: mounts.version,
      root,
      perQos: true,
      cpuCfsQuota: true,
      cpuCfsQuotaPeriodUs: 100_000,
      hugepageSizes: [],
      podPidsLimit: 100,
    },
  );
});

afterAll(async () => {
  await tree.remove(root);
});

describe(`pods' cgroups on this host`, () => {
  it('makes the levels and limits all pods together', async () => {
    expect(await cgroups.prepare({ cpuMilli: 2000, memoryBytes: 2 ** 30, pids: 5000 })).toEqual({});
    expect(await cgroups.prepare({ cpuMilli: 2000, memoryBytes: 2 ** 30, pids: 5000 })).toEqual({});
    const [cpu, memory] = mounts.version === 2 ? ['cpu.weight', 'memory.max'] : ['cpu.shares', 'memory.limit_in_bytes'];
    expect(await tree.read(`${root}/kubepods`, 'cpu', cpu)).toBe(mounts.version === 2 ? '79' : '2048');
    expect(await tree.read(`${root}/kubepods`, 'memory', memory)).toBe(String(2 ** 30));
    expect(await tree.read(`${root}/kubepods`, 'pids', 'pids.max')).toBe('5000');
    expect(await tree.read(`${root}/kubepods/besteffort`, 'cpu', cpu)).toBe(mounts.version === 2 ? '1' : '2');
  });

  it('makes a cgroup for each pod in its class, with its limits', async () => {
    for (const each of [guaranteed, burstable, bestEffort]) await cgroups.ensure(each);
    expect(cgroups.parentFor(guaranteed)).toBe(`${root}/kubepods/podaaaa-1`);
    expect(cgroups.parentFor(burstable)).toBe(`${root}/kubepods/burstable/podbbbb-2`);
    expect(cgroups.parentFor(bestEffort)).toBe(`${root}/kubepods/besteffort/podcccc-3`);
    for (const each of [guaranteed, burstable, bestEffort])
      expect(await tree.exists(cgroups.parentFor(each), 'everywhere')).toBe(true);
    const config = await cgroups.configOf(guaranteed);
    expect(config).toMatchObject({ cpuLimitMilli: 500, memoryLimitBytes: 64 * 2 ** 20 });
    expect(await tree.read(cgroups.parentFor(burstable), 'pids', 'pids.max')).toBe('100');
    expect((await cgroups.configOf(burstable)).memoryLimitBytes).toBeUndefined();
    expect((await cgroups.list()).sort()).toEqual(['aaaa-1', 'bbbb-2', 'cccc-3']);
  });

  it('shows what pods have left, for the memory alarm', async () => {
    const point = mounts.version === 2 ? mounts.unified : mounts.controllers.get('memory');
    const memory = { version: mounts.version, folder: join(point!, cgroups.podsPath) };
    const before = podsLeft(memory, 0);
    expect(before).toBeGreaterThan(0.9 * 2 ** 30);
    // 40 MiB that stay in use, in a pod's cgroup.
    const child = spawn(
      process.execPath,
      ['-e', 'const b = Buffer.alloc(40 << 20, 1); process.stdin.on("data", () => console.log(b.length)).resume()'],
      {
        stdio: ['pipe', 'pipe', 'ignore'],
      },
    );
    const ended = once(child, 'exit');
    try {
      writeFileSync(join(point!, cgroups.parentFor(bestEffort), 'cgroup.procs'), String(child.pid));
      child.stdin.write('x');
      await once(child.stdout, 'data');
      expect(before! - podsLeft(memory, 2 ** 30)!).toBeGreaterThan(40 * 2 ** 20);
    } finally {
      child.kill('SIGKILL');
      await ended;
    }
  });

  it('gives the Burstable level shares for what its pods request', async () => {
    await cgroups.balance([guaranteed, burstable, bestEffort]);
    const file = mounts.version === 2 ? 'cpu.weight' : 'cpu.shares';
    expect(await tree.read(`${root}/kubepods/burstable`, 'cpu', file)).toBe(mounts.version === 2 ? '10' : '256');
  });

  it('resizes a pod that is there', async () => {
    await cgroups.update(guaranteed, {
      cpuShares: 1024,
      cpuQuota: 100_000,
      cpuPeriod: 100_000,
      memoryLimit: 128 * 2 ** 20,
    });
    expect(await cgroups.configOf(guaranteed)).toMatchObject({ cpuLimitMilli: 1000, memoryLimitBytes: 128 * 2 ** 20 });
    // A second ensure leaves the resize alone.
    await cgroups.ensure(guaranteed);
    expect((await cgroups.configOf(guaranteed)).cpuLimitMilli).toBe(1000);
  });

  it('removes a pod with what its containers left below it, processes too', async () => {
    const path = `${cgroups.parentFor(burstable)}/left-behind`;
    await tree.make(path);
    const child = spawn('sleep', ['60'], { stdio: 'ignore' });
    const ended = once(child, 'exit');
    const point = mounts.version === 2 ? mounts.unified : mounts.controllers.get('pids');
    writeFileSync(join(point!, path, 'cgroup.procs'), String(child.pid));
    expect(await tree.processes(cgroups.parentFor(burstable))).toEqual([child.pid]);
    expect(await cgroups.remove('bbbb-2')).toBe(true);
    expect((await ended)[1]).toBe('SIGKILL');
    expect(await tree.exists(cgroups.parentFor(burstable), 'somewhere')).toBe(false);
    expect(await cgroups.remove('bbbb-2')).toBe(true);
    expect(await cgroups.remove('aaaa-1')).toBe(true);
    expect(await cgroups.list()).toEqual(['cccc-3']);
  });

  it('says what is missing where a reserved cgroup is not there', async () => {
    await expect(cgroups.limitExisting(`${root}/no-such`, { cpuShares: 10 })).rejects.toThrow(
      `the cgroup ${root}/no-such does not exist`,
    );
  });
});
