import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFakeMounts, type FakeMounts } from './fake-mounts.ts';
import { HiddenMountError, planHidden, unmountHidden } from './hidden-mounts.ts';

const root = '/var/lib/kubelet';
const pod = `${root}/pods/a`;
const { signal } = new AbortController();

/** As a kubelet does at its start. */
const cover = async (mounts: FakeMounts, path = root): Promise<void> => {
  await mounts.bind(path, path, {});
  await mounts.share(path);
};

describe('what another mount hides', () => {
  it('is nothing where nothing does', async () => {
    const mounts = createFakeMounts();
    await mounts.tmpfs(`${pod}/volumes/x`, undefined);
    expect(mounts.now().hidden(root)).toEqual([]);
    expect(planHidden(mounts.now(), root)).toEqual([]);
  });

  it('is not at its path, is not below it, and is told of', async () => {
    const mounts = createFakeMounts();
    await mounts.tmpfs(`${pod}/volumes/x`, undefined);
    await cover(mounts);
    const table = mounts.now();
    expect(table.at(`${pod}/volumes/x`)).toBeUndefined();
    expect(table.under(pod)).toEqual([]);
    expect(table.hidden(pod).map(({ mountPoint }) => mountPoint)).toEqual([`${pod}/volumes/x`]);
    expect(table.holding(`${pod}/volumes/x/file`)?.mountPoint).toBe(root);
  });

  it('is not what is mounted anew at the same path', async () => {
    const mounts = createFakeMounts();
    await mounts.tmpfs(`${pod}/volumes/x`, undefined);
    const [, hidden] = mounts.now().entries;
    await cover(mounts);
    await mounts.tmpfs(`${pod}/volumes/x`, undefined);
    expect(mounts.now().hidden(pod)).toEqual([hidden]);
    expect(mounts.now().at(`${pod}/volumes/x`)?.id).not.toBe(hidden?.id);
  });

  it('goes with what is mounted on it, by what covers it and by itself', async () => {
    const mounts = createFakeMounts();
    await mounts.tmpfs(`${pod}/volumes/x`, undefined);
    await mounts.tmpfs(`${pod}/volumes/x`, undefined);
    await mounts.tmpfs(`${pod}/volumes/x/inside`, undefined);
    await mounts.tmpfs(`${root}/pods/b`, undefined);
    await cover(mounts);
    await cover(mounts);
    const place = `${pod}/volumes/x`;
    // The upper of the two is mounted on the first, which is what is under the second bind: all of it goes with the folder.
    expect(planHidden(mounts.now(), pod)).toMatchObject([{ mountPoint: place, covers: [root, root, place, place] }]);
    await unmountHidden(mounts, pod, signal);
    expect(
      mounts
        .now()
        .hidden(root)
        .map(({ mountPoint }) => mountPoint),
    ).toEqual([`${root}/pods/b`]);
    expect(mounts.now().at(root)?.shared).toBe(true);
  });

  it('is reached through covers at several depths', async () => {
    const mounts = createFakeMounts();
    await mounts.tmpfs(`${pod}/volumes/x`, undefined);
    await cover(mounts, `${root}/pods`);
    await cover(mounts);
    expect(planHidden(mounts.now(), pod)).toMatchObject([
      { mountPoint: `${pod}/volumes/x`, covers: [root, `${root}/pods`, `${pod}/volumes/x`] },
    ]);
  });

  it('is told of where it stays', async () => {
    const mounts = createFakeMounts();
    await mounts.tmpfs(`${pod}/volumes/x`, undefined);
    await mounts.tmpfs(`${pod}/volumes/y`, undefined);
    await cover(mounts);
    mounts.before = (verb, path) => {
      if (verb === 'unmountHidden' && path.endsWith('/x')) throw new Error('Operation not permitted');
    };
    const failed = unmountHidden(mounts, pod, signal);
    await expect(failed).rejects.toThrow(HiddenMountError);
    await expect(failed).rejects.toThrow(`${pod}/volumes/x;`);
    expect(mounts.now().hidden(pod)).toHaveLength(1);
  });

  it('is taken off whatever the order of mounts was, and nothing else is', async () => {
    const folders = [root, `${root}/pods`, pod, `${pod}/v`, `${pod}/v/w`, `${root}/pods/b`];
    const change = fc.record({ path: fc.constantFrom(...folders), onItself: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 10 }), async (changes) => {
        const mounts = createFakeMounts();
        for (const { path, onItself } of changes)
          await (onItself ? mounts.bind(path, path, {}) : mounts.tmpfs(path, undefined));
        const seen = mounts.seen();
        const table = mounts.now();
        // Each is reached or hidden, and never both.
        expect([...table.under('/'), ...table.hidden('/')].map(({ id }) => id).sort()).toEqual(
          table.entries.map(({ id }) => id).sort(),
        );
        // What is seen goes first, as in a tear-down: a folder may bear both.
        for (const { mountPoint } of table.under(pod)) await mounts.unmount(mountPoint);
        await unmountHidden(mounts, pod, signal);
        expect(mounts.now().hidden(pod)).toEqual([]);
        for (const [path, what] of Object.entries(seen))
          if (path !== pod && !path.startsWith(`${pod}/`)) expect(mounts.seen()[path]).toBe(what);
      }),
    );
  });
});
