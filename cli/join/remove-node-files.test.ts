import { mkdir, mkdtemp, readdir, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFakeMounts, type FakeMounts } from '../../agent/volumes/fake-mounts.ts';
import { shareRoot } from '../../agent/volumes/shared-root.ts';
import { silentLog } from '../../lib/log.ts';
import { removeNodeFiles } from './remove-node-files.ts';

let folder = '';
let rootDir = '';
let mounts: FakeMounts;
let said: string[];
const { signal } = new AbortController();

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'node-files-')));
  rootDir = join(folder, 'kubelet');
  await mkdir(join(rootDir, 'pods/a/v'), { recursive: true });
  await writeFile(join(folder, 'kubelet.conf'), '');
  mounts = createFakeMounts();
  said = [];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const deps = () => ({ mounter: mounts, log: silentLog, say: (text: string) => void said.push(text) });
const remove = () =>
  removeNodeFiles(deps(), { kubernetesDir: folder, configFile: join(folder, 'config.yaml'), rootDir }, signal);

describe('the files of a node', () => {
  it('go with all that is mounted below, and with our own mount of the root directory', async () => {
    await shareRoot(deps(), rootDir, signal);
    await mounts.tmpfs(join(rootDir, 'pods/a/v'), undefined);
    await mounts.tmpfs(join(rootDir, 'pods/a/v/in'), undefined);
    expect(await remove()).toEqual([]);
    expect(mounts.now().entries).toHaveLength(1);
    expect(await readdir(folder)).toEqual([]);
  });

  it('stay, all of them, with what cannot be unmounted', async () => {
    await shareRoot(deps(), rootDir, signal);
    await mounts.tmpfs(join(rootDir, 'pods/a/v'), undefined);
    mounts.before = (verb, path) => {
      if (verb.startsWith('unmount') && path !== rootDir) throw new Error('target is busy');
    };
    expect(await remove()).toEqual([join(rootDir, 'pods/a/v')]);
    expect(mounts.now().at(rootDir)).toBeDefined();
    expect((await readdir(folder)).sort()).toEqual(['kubelet', 'kubelet.conf']);
    expect(await readdir(join(rootDir, 'pods'))).toEqual(['a']);
  });

  it('stay with what somebody else’s mount hides, where that cannot be taken off', async () => {
    await mounts.tmpfs(join(rootDir, 'pods/a/v'), undefined);
    await mounts.bind(rootDir, rootDir, {});
    mounts.before = (verb) => {
      if (verb === 'unmountHidden') throw new Error('not permitted');
    };
    expect(await remove()).toEqual([join(rootDir, 'pods/a/v')]);
    expect(await readdir(folder)).toContain('kubelet.conf');
  });

  it('go from a mount that is not ours, which stays', async () => {
    await mounts.tmpfs(join(rootDir, 'pods/a/v'), undefined);
    await mounts.tmpfs(rootDir, undefined);
    expect(await remove()).toEqual([]);
    expect(mounts.now().at(rootDir)).toBeDefined();
    expect(mounts.now().hidden('/')).toEqual([]);
    expect(await readdir(rootDir)).toEqual([]);
    expect(said.join('')).toContain('was not made here');
  });

  it('are no matter where there are none', async () => {
    await rm(rootDir, { recursive: true });
    expect(await remove()).toEqual([]);
  });
});
