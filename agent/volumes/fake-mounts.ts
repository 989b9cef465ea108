// A table of mounts in memory, with the rules of the kernel that this room relies on: what is mounted on a path comes on top, a mount is not moved
// from below a shared one, a folder that is removed in another namespace takes along what is mounted on it here.
import type { Mounter } from './mounter.ts';
import { MountError } from './mounter.ts';
import { idsWith, type MountEntry, type MountTable, mountTable, rootOf, without } from './mount-table.ts';

export interface FakeMounts extends Mounter {
  now(): MountTable;
  /** Mount points that paths lead to, with what is mounted there as `device root`. */
  seen(): Record<string, string>;
  /** Called before each change; what it throws is what the tool says. */
  before: (verb: string, path: string) => void;
}

/** `shared`: whether `/` is. */
export function createFakeMounts(options: { shared?: boolean } = {}): FakeMounts {
  const root: MountEntry = {
    id: 1,
    parentId: 0,
    device: '8:1',
    root: '/',
    mountPoint: '/',
    options: ['rw'],
    shared: options.shared ?? false,
    fsType: 'ext4',
    source: '/dev/sda1',
    superOptions: ['rw'],
  };
  let entries: MountEntry[] = [root];
  let nextId = 2;
  const now = (): MountTable => mountTable([...entries]);

  const topAt = (table: MountTable, path: string): MountEntry => {
    const top = table.at(path);
    if (!top) throw new MountError(`umount failed: ${path}: not mounted.`);
    return top;
  };
  const add = (mountPoint: string, what: Pick<MountEntry, 'device' | 'root' | 'fsType' | 'source'>): void => {
    const on = now().holding(mountPoint)!;
    entries.push({ ...root, ...what, id: nextId++, parentId: on.id, mountPoint, shared: on.shared });
  };
  // The folder a mount is on, whichever mount it is seen through.
  const folderOf = (table: MountTable, { parentId, mountPoint }: MountEntry): string => {
    const parent = table.entries.find(({ id }) => id === parentId);
    return parent ? `${parent.device} ${rootOf(parent, mountPoint)}` : '';
  };

  const fake: FakeMounts = {
    before: () => undefined,
    now,
    seen: () =>
      Object.fromEntries(
        now()
          .under('/')
          .toReversed()
          .map(({ mountPoint, device, root: folder }) => [mountPoint, `${device} ${folder}`]),
      ),
    table: async () => now(),
    async bind(source, target) {
      fake.before('bind', target);
      const from = now().holding(source)!;
      add(target, { ...from, root: rootOf(from, source) });
    },
    async mount({ fsType, source, target }) {
      fake.before('mount', target);
      add(target, { device: `0:${nextId}`, root: '/', fsType, source });
    },
    async tmpfs(target) {
      await fake.mount({ fsType: 'tmpfs', source: 'tmpfs', target, options: [] });
    },
    async unmount(target) {
      fake.before('unmount', target);
      const top = now().at(target);
      if (top) entries = [...without(now(), top).entries];
    },
    async unmountIdle(target) {
      fake.before('unmountIdle', target);
      const top = topAt(now(), target);
      if (idsWith(now(), top).size > 1) throw new MountError(`umount failed: ${target}: target is busy.`);
      entries = [...without(now(), top).entries];
    },
    async move(source, target) {
      fake.before('move', source);
      const moved = topAt(now(), source);
      if (entries.find(({ id }) => id === moved.parentId)?.shared)
        throw new MountError(`mount failed: ${source}: wrong fs type, bad option, bad superblock.`);
      const ids = idsWith(now(), moved);
      const on = now().holding(target)!;
      entries = entries.map((entry) =>
        ids.has(entry.id)
          ? {
              ...entry,
              parentId: entry.id === moved.id ? on.id : entry.parentId,
              mountPoint: `${target}${entry.mountPoint.slice(source.length)}`,
              shared: entry.shared || on.shared,
            }
          : entry,
      );
    },
    async share(target) {
      fake.before('share', target);
      const ids = idsWith(now(), topAt(now(), target));
      entries = entries.map((entry) => (ids.has(entry.id) ? { ...entry, shared: true } : entry));
    },
    async keepPrivate(target) {
      fake.before('keepPrivate', target);
      const { id } = topAt(now(), target);
      entries = entries.map((entry) => (entry.id === id ? { ...entry, shared: false } : entry));
    },
    async unmountHidden({ mountPoint, covers }) {
      fake.before('unmountHidden', mountPoint);
      let copy = now();
      for (const cover of covers) copy = without(copy, topAt(copy, cover));
      if (copy.at(mountPoint)) throw new MountError(`rmdir: failed to remove '${mountPoint}': Device or resource busy`);
      const on = copy.holding(mountPoint)!;
      const folder = `${on.device} ${rootOf(on, mountPoint)}`;
      for (;;) {
        const next = entries.find((entry) => folderOf(now(), entry) === folder);
        if (!next) return;
        entries = [...without(now(), next).entries];
      }
    },
  };
  return fake;
}
