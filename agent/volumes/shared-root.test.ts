import { mkdtemp, readdir, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLog } from '../../lib/log.ts';
import { createFakeMounts, type FakeMounts } from './fake-mounts.ts';
import { shareRoot, unshareRoot } from './shared-root.ts';

let folder = '';
let root = '';
const { signal } = new AbortController();
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'shared-root-')));
  root = folder;
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const setting = (mounts: FakeMounts, bootId = 'this boot') => {
  const lines: string[] = [];
  const log = createLog({ level: 'debug', format: 'text', write: (line) => void lines.push(line) });
  const deps = { mounter: mounts, log, bootId: () => Promise.resolve(bootId) };
  return { lines, deps, share: () => shareRoot(deps, root, signal), unshare: () => unshareRoot(deps, root, signal) };
};

describe('the root directory', () => {
  it('is left as it is on a shared mount', async () => {
    const mounts = createFakeMounts({ shared: true });
    mounts.before = (verb) => {
      throw new Error(`${verb} is not to be called`);
    };
    const { share, lines } = setting(mounts);
    await share();
    expect(lines).toEqual([]);
    expect(await readdir(root)).toEqual([]);
  });

  it('becomes one of its own on another, once', async () => {
    const mounts = createFakeMounts();
    const { share, lines } = setting(mounts);
    await share();
    expect(mounts.now().at(root)).toMatchObject({ shared: true, device: '8:1', root });
    expect(lines.join('')).toContain('it is a shared mount of its own now');
    await share();
    expect(mounts.now().entries).toHaveLength(2);
    expect(lines).toHaveLength(1);
    expect(await readdir(root)).toEqual(['shared-mount.json']);
  });

  it('takes along what is mounted below, and hides nothing', async () => {
    const mounts = createFakeMounts();
    await mounts.tmpfs(`${root}/pods/a`, undefined);
    await mounts.tmpfs(`${root}/pods/a/inside`, undefined);
    await mounts.bind('/srv', `${root}/pods/b`, {});
    await mounts.tmpfs(`${root}2`, undefined);
    const before = mounts.seen();
    const { share, lines } = setting(mounts);
    await share();
    const { [root]: own, ...rest } = mounts.seen();
    expect(own).toBe(`8:1 ${root}`);
    expect(rest).toEqual(before);
    expect(mounts.now().hidden('/')).toEqual([]);
    expect(mounts.now().entries).toHaveLength(6);
    expect(lines.join('')).toContain('moved=2');
  });

  it('is served as it is where the host does not let it', async () => {
    const mounts = createFakeMounts();
    mounts.before = () => {
      throw new Error('permission denied');
    };
    const { share, lines } = setting(mounts);
    await share();
    expect(mounts.now().entries).toHaveLength(1);
    expect(lines.join('')).toMatch(/WARN .*could not be made one.*permission denied/);
    expect(await readdir(root)).toEqual([]);
  });

  it('is found behind a link', async () => {
    const mounts = createFakeMounts();
    const link = `${folder}/link`;
    await symlink(folder, link);
    root = link;
    const { share, unshare } = setting(mounts);
    await share();
    expect(mounts.now().at(folder)?.shared).toBe(true);
    expect(await unshare()).toBe(true);
  });

  it('is given back what was moved where a step fails', async () => {
    const mounts = createFakeMounts();
    for (const name of ['a', 'b', 'c']) await mounts.tmpfs(`${root}/${name}`, undefined);
    const before = mounts.seen();
    let left = 3;
    mounts.before = (verb, path) => {
      if (verb === 'move' && !path.includes('.shared') && left-- === 1) throw new Error('no');
    };
    const { share, lines } = setting(mounts);
    await share();
    expect(mounts.seen()).toEqual(before);
    expect(lines.join('')).toMatch(/WARN/);
    expect(await readdir(root)).toEqual([]);
  });

  it('is what it should be after a start that follows one which ended anywhere', async () => {
    const paths = ['a', 'a/b', 'c', 'c/d/e', 'f'];
    await fc.assert(
      fc.asyncProperty(fc.subarray(paths), fc.nat({ max: 8 }), fc.boolean(), async (below, ended, sharedSince) => {
        const mounts = createFakeMounts();
        for (const path of below) await mounts.tmpfs(join(root, path), undefined);
        const before = mounts.seen();
        let steps = 0;
        // From that step on the process is gone: it cannot take anything back.
        mounts.before = () => {
          if (steps++ >= ended) throw new Error('killed');
        };
        await setting(mounts).share();
        mounts.before = () => undefined;
        if (sharedSince) await mounts.share('/');
        await setting(mounts).share();
        await setting(mounts).share();
        const after = mounts.seen();
        expect(mounts.now().hidden('/')).toEqual([]);
        expect(mounts.now().holding(root)?.shared).toBe(true);
        expect(mounts.now().holding(root)?.mountPoint).toBe(after[root] === undefined ? '/' : root);
        delete after[root];
        expect(after).toEqual(before);
        await rm(join(root, 'shared-mount.json'), { force: true });
      }),
      { numRuns: 60 },
    );
  });
});

describe('leaving', () => {
  it('takes off our mount, and says so', async () => {
    const mounts = createFakeMounts();
    const { share, unshare } = setting(mounts);
    await share();
    expect(await unshare()).toBe(true);
    expect(mounts.now().entries).toHaveLength(1);
    expect(await readdir(root)).toEqual([]);
    expect(await unshare()).toBe(false);
  });

  it('leaves what somebody else made', async () => {
    const mounts = createFakeMounts();
    await mounts.bind(root, root, {});
    await mounts.share(root);
    const { share, unshare } = setting(mounts);
    await share();
    expect(await unshare()).toBe(false);
    expect(mounts.now().at(root)).toBeDefined();
  });

  it.each([
    ['of a boot before', async () => undefined, 'another boot'],
    ['whose note is torn', () => writeFile(join(root, 'shared-mount.json'), '{"boot'), 'this boot'],
    ['whose note says nothing', () => writeFile(join(root, 'shared-mount.json'), 'null'), 'this boot'],
  ])('leaves a mount %s', async (_, change, bootId) => {
    const mounts = createFakeMounts();
    await setting(mounts).share();
    await change();
    expect(await setting(mounts, bootId).unshare()).toBe(false);
    expect(mounts.now().at(root)).toBeDefined();
  });

  it('leaves another file system that was given the same number', async () => {
    const mounts = createFakeMounts();
    const { share, unshare } = setting(mounts);
    await share();
    const { id } = mounts.now().at(root)!;
    await mounts.unmount(root);
    await mounts.tmpfs(root, undefined);
    await writeFile(join(root, 'shared-mount.json'), JSON.stringify({ bootId: 'this boot', mountId: id + 1 }));
    expect(mounts.now().at(root)?.id).toBe(id + 1);
    expect(await unshare()).toBe(false);
  });

  it('rejects while something is mounted below', async () => {
    const mounts = createFakeMounts();
    const { share, unshare } = setting(mounts);
    await share();
    await mounts.tmpfs(`${root}/pods/a`, undefined);
    await expect(unshare()).rejects.toThrow('pods/a is still mounted below');
    expect(mounts.now().at(root)?.shared).toBe(true);
  });
});
