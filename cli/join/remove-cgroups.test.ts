import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import { removePodCgroups } from './remove-cgroups.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-cgroups-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const remove = async (cgroupRoot: string): Promise<{ left: string[]; stopped: string[] }> => {
  const stopped: string[] = [];
  const slices = { stop: (slice: string) => Promise.resolve(void stopped.push(slice)) };
  const clock = { ...systemClock, sleep: () => Promise.resolve() };
  return { left: await removePodCgroups({ clock, slices }, { cgroupRoot, mountedAt: folder }), stopped };
};

it("takes systemd's slices away, and nobody else's", async () => {
  await mkdir(join(folder, 'kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice'), {
    recursive: true,
  });
  await mkdir(join(folder, 'system.slice/containerd.service'), { recursive: true });
  expect(await remove('')).toEqual({ left: [], stopped: ['kubepods.slice'] });
  expect((await readdir(folder, { recursive: true })).sort()).toEqual([
    'system.slice',
    'system.slice/containerd.service',
  ]);
});

it('takes the folders of each hierarchy of version 1 away, below the configured root', async () => {
  for (const each of ['cpu', 'memory'])
    await mkdir(join(folder, each, 'lab/kubepods/burstable/pod1'), { recursive: true });
  expect(await remove('/lab')).toEqual({ left: [], stopped: [] });
  expect((await readdir(folder, { recursive: true })).sort()).toEqual(['cpu', 'cpu/lab', 'memory', 'memory/lab']);
});

it('says what is still in use', async () => {
  // A plain file stands for what keeps a cgroup's folder: rmdir fails.
  await mkdir(join(folder, 'kubepods/pod1'), { recursive: true });
  await writeFile(join(folder, 'kubepods/pod1/busy'), '');
  expect((await remove('/')).left).toEqual([join(folder, 'kubepods')]);
});

it('nothing there is nothing to do', async () => {
  expect(await remove('/')).toEqual({ left: [], stopped: [] });
});
