import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type MountTable,
  mountTable,
  mountTableOf,
  parseMountInfo,
  readMountTable,
  rootOf,
  sharedTableReader,
} from './mount-table.ts';

const text = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /tmp rw shared:3 master:1 - tmpfs tmpfs rw,size=64k
31 30 8:1 /var/a\\040b /tmp/a\\040b ro,nosuid - ext4 /dev/sda1 rw
32 31 0:40 / /tmp/a\\040b rw - nfs4 [fd00::1]:/x rw,vers=4.2
nonsense
33 22 0:41 / /tmpfs rw - tmpfs none rw
`;

describe('the mount table', () => {
  const table = mountTable(parseMountInfo(text));

  it('reads every field', () =>
    expect(table.entries[2]).toEqual({
      id: 31,
      parentId: 30,
      device: '8:1',
      root: '/var/a b',
      mountPoint: '/tmp/a b',
      options: ['ro', 'nosuid'],
      shared: false,
      fsType: 'ext4',
      source: '/dev/sda1',
      superOptions: ['rw'],
    }));
  it('knows what is shared', () =>
    expect(table.entries.filter(({ shared }) => shared).map(({ id }) => id)).toEqual([22, 30]));
  it('knows what is on top', () => expect(table.at('/tmp/a b')?.fsType).toBe('nfs4'));
  it('lists what is below, the last mounted first', () =>
    expect(table.under('/tmp').map((mount) => mount.id)).toEqual([32, 31, 30]));
  it('knows what a path lies on', () => {
    expect(table.holding('/tmp/a b/c')?.id).toBe(32);
    expect(table.holding('/tmpfs2')?.id).toBe(22);
    expect(table.holding('/tmpfs')?.id).toBe(33);
  });

  it('answers the same where only the lines asked for are parsed', () => {
    const lazy = mountTableOf(text);
    for (const path of ['/', '/tmp', '/tmp/a b', '/tmp/a b/c', '/tmpfs', '/tm', '/var/a b', 'shared:1', '/none']) {
      expect(lazy.at(path)).toEqual(table.at(path));
      expect(lazy.under(path)).toEqual(table.under(path));
      expect(lazy.hidden(path)).toEqual(table.hidden(path));
      expect(lazy.holding(path)).toEqual(table.holding(path));
    }
    expect(lazy.entries).toEqual(table.entries);
    expect(mountTableOf(text.trimEnd()).at('/tmpfs')?.id).toBe(33);
  });

  it('gives back any path that the kernel can escape', () => {
    const escaped = (path: string): string =>
      Buffer.from(path, 'utf8')
        .toString('latin1')
        .replace(/[ \t\n\\]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`);
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (name) => {
        fc.pre(!name.includes('\0') && !name.includes('\r') && name.isWellFormed());
        const [entry] = parseMountInfo(`1 2 0:3 / ${escaped(`/${name}`)} rw - tmpfs tmpfs rw`);
        expect(entry?.mountPoint).toBe(`/${name}`);
      }),
    );
  });
  it('never throws', () => fc.assert(fc.property(fc.string(), (any) => void parseMountInfo(any))));
  it('finds the root of this host', async () => expect((await readMountTable()).holding('/')).toBeDefined());
});

describe('mounts that others hide', () => {
  // Taken from a host where `/` is private: a kubelet bound its root directory on itself (60) over what was mounted, and mounted anew (61, 62).
  const covered = `27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
50 27 0:44 / /var/lib/kubelet/pods/a/v rw,relatime - tmpfs tmpfs rw
51 50 0:45 / /var/lib/kubelet/pods/a/v/in rw,relatime - tmpfs tmpfs rw
52 27 8:1 /srv /var/lib/kubelet/pods/b rw,relatime - ext4 /dev/sda1 rw
60 27 8:1 /var/lib/kubelet /var/lib/kubelet rw,relatime shared:9 - ext4 /dev/sda1 rw
61 60 0:46 / /var/lib/kubelet/pods/a/v rw,relatime shared:10 - tmpfs tmpfs rw
62 60 0:47 / /var/lib/kubelet/pods/c rw,relatime shared:11 - tmpfs tmpfs rw
63 27 0:48 / /var/lib/other rw,relatime - tmpfs tmpfs rw
`;
  const kubelet = '/var/lib/kubelet';

  it.each([
    ['parsed at once', mountTable(parseMountInfo(covered))],
    ['asked about paths', mountTableOf(covered)],
    // A mount that is moved keeps its number, and its line its place.
    ['in another order', mountTable(parseMountInfo(covered).toReversed())],
  ])('are told from what paths lead to: %s', (_, table) => {
    const ids = (mounts: readonly { id: number }[]): number[] => mounts.map(({ id }) => id).sort();
    expect(ids(table.under(kubelet))).toEqual([60, 61, 62]);
    expect(ids(table.hidden(kubelet))).toEqual([50, 51, 52]);
    expect(ids(table.hidden(`${kubelet}/pods/b`))).toEqual([52]);
    expect(ids(table.hidden('/'))).toEqual([50, 51, 52]);
    expect(table.at(`${kubelet}/pods/a/v`)?.id).toBe(61);
    expect(table.at(`${kubelet}/pods/a/v/in`)).toBeUndefined();
    expect(table.at(`${kubelet}/pods/b`)).toBeUndefined();
    expect(ids(table.through(`${kubelet}/pods/b/file`))).toEqual([27, 60]);
    expect(table.holding('/var/lib/other/x')?.id).toBe(63);
    expect(table.hidden('/var/lib/other')).toEqual([]);
  });

  it('are found without a root, as in a chroot', () => {
    const inside = covered.split('\n').slice(1).join('\n');
    expect(mountTableOf(inside).hidden(`${kubelet}/pods/b`)).toHaveLength(1);
    expect(mountTableOf(inside).at(`${kubelet}/pods/c`)?.id).toBe(62);
  });

  it('leave a circle of parents alone', () => {
    const circle = '1 1 0:3 / /a rw - tmpfs t rw\n1 2 0:3 / /a rw - tmpfs t rw\n2 1 0:3 / /a rw - tmpfs t rw\n';
    expect(() => mountTableOf(circle).under('/a')).not.toThrow();
  });
});

describe('a path within a mount', () => {
  const [root, bound] = parseMountInfo('1 0 8:1 / / rw - ext4 a rw\n2 1 8:1 /srv /mnt rw - ext4 a rw\n');
  it.each([
    [root, '/', '/'],
    [root, '/a/b', '/a/b'],
    [bound, '/mnt', '/srv'],
    [bound, '/mnt/a', '/srv/a'],
  ])('%#', (mount, path, expected) => expect(rootOf(mount!, path)).toBe(expected));
});

describe('one reading for all who ask', () => {
  const harness = () => {
    const reads: PromiseWithResolvers<MountTable>[] = [];
    const read = sharedTableReader(() => {
      const pending = Promise.withResolvers<MountTable>();
      reads.push(pending);
      return pending.promise;
    });
    return { reads, read };
  };
  const [first, second] = [mountTable([]), mountTable([])];

  it('begins after they asked: who asks while one is read gets the next', async () => {
    const { reads, read } = harness();
    const early = read();
    const late = [read(), read(), read()];
    expect(reads).toHaveLength(1);
    reads[0]!.resolve(first);
    expect(await early).toBe(first);
    await Promise.resolve();
    expect(reads).toHaveLength(2);
    const later = read();
    reads[1]!.resolve(second);
    for (const table of await Promise.all(late)) expect(table).toBe(second);
    await Promise.resolve();
    expect(reads).toHaveLength(3);
    reads[2]!.resolve(first);
    expect(await later).toBe(first);
  });

  it('a reading that fails fails for those who waited for it alone', async () => {
    const { reads, read } = harness();
    const early = read();
    const late = read();
    reads[0]!.reject(new Error('no'));
    await expect(early).rejects.toThrow('no');
    await Promise.resolve();
    reads[1]!.resolve(second);
    expect(await late).toBe(second);
    const after = read();
    expect(reads).toHaveLength(3);
    reads[2]!.resolve(first);
    expect(await after).toBe(first);
  });
});
