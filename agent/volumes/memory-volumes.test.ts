// Files in memory are given back, others not.
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { emptyMemoryVolumes } from './memory-volumes.ts';
import { mountTableOf } from './mount-table.ts';
import { plugins, volumePaths } from './paths.ts';

it('empties the volumes of medium Memory that are mounted, and follows no link', async () => {
  const root = await mkdtemp(join(tmpdir(), 'sv-memory-'));
  onTestFinished(() => rm(root, { recursive: true }));
  const at = (name: string) => volumePaths(root).volume('u', plugins.emptyDir, name);
  for (const name of ['mem', 'unmounted', 'disk']) {
    await mkdir(join(at(name), 'a', 'b'), { recursive: true });
    await writeFile(join(at(name), 'one'), '1');
    await writeFile(join(at(name), 'a', 'b', 'two'), '2');
  }
  const outside = join(root, 'outside');
  await mkdir(outside);
  await writeFile(join(outside, 'kept'), '');
  await symlink(outside, join(at('mem'), 'link'));
  const pod = {
    metadata: { name: 'p', uid: 'u' },
    spec: {
      containers: [],
      volumes: [
        { name: 'mem', emptyDir: { medium: 'Memory' } },
        { name: 'unmounted', emptyDir: { medium: 'Memory' } },
        { name: 'disk', emptyDir: {} },
      ],
    },
  } as unknown as Pod;
  const table = mountTableOf(
    ['30 1 8:1 / / rw - ext4 /dev/sda1 rw', `31 30 0:50 / ${at('mem')} rw - tmpfs tmpfs rw`].join('\n'),
  );
  expect(await emptyMemoryVolumes(root, pod, () => Promise.resolve(table))).toBe(3);
  expect(await readdir(at('mem'), { recursive: true })).toEqual(['a', 'a/b']);
  expect((await readdir(at('unmounted'), { recursive: true })).length).toBe(4);
  expect((await readdir(at('disk'), { recursive: true })).length).toBe(4);
  expect(await readdir(outside)).toEqual(['kept']);
});
