// Mounts of ours that somebody mounted over (mount-table.ts): a kubelet that took this node for a while binds its root directory on itself, and
// what was mounted below before can be reached by no path from then on.
//
// Such a mount counts as unmounted: nothing can be given it any more, and nothing is read or removed through it. But it holds its file system (a
// device that is detached, memory with secrets in it) and the folder it is mounted on (EBUSY). So when its pod is taken down it is taken off too,
// from a mount namespace where nothing hides it. Where that cannot be done, what bears it stays as it is, is told of once, and its pod's end is
// not held up by it.
import type { HiddenMount, Mounter } from './mounter.ts';
import { type MountEntry, type MountTable, without } from './mount-table.ts';

/** Something stays on disk because a mount that nobody can reach is mounted on it, or below it. */
export class HiddenMountError extends Error {
  override name = 'HiddenMountError';
}

/** Hidden mounts at or below a path that are not themselves mounted on another such: with these all others go. The deepest first. */
export function planHidden(table: MountTable, path: string): (HiddenMount & { readonly id: number })[] {
  const hidden = table.hidden(path);
  const ids = new Set(hidden.map(({ id }) => id));
  return hidden
    .filter(({ parentId }) => !ids.has(parentId))
    .flatMap((mount) => {
      const covers = coversOf(table, mount);
      return covers ? [{ id: mount.id, mountPoint: mount.mountPoint, covers }] : [];
    })
    .toReversed();
}

// Plays what `umount --lazy` would do until the way to the mount is free, and then until nothing is mounted on its folder.
function coversOf(table: MountTable, mount: MountEntry): string[] | undefined {
  const { mountPoint } = mount;
  const above = ancestors(table, mount);
  const covers: string[] = [];
  let left = table;
  for (let tries = table.entries.length; tries > 0; tries--) {
    const passed = left.through(mountPoint).filter((each) => each.mountPoint !== '/');
    const reached = passed.some(({ id }) => id === mount.id);
    if (!reached && !left.entries.some(({ id }) => id === mount.id)) return covers;
    const cover = reached ? mount : passed.find(({ id }) => !above.has(id));
    if (!cover) return undefined;
    covers.push(cover.mountPoint);
    const top = left.at(cover.mountPoint);
    if (!top) return undefined;
    left = without(left, top);
  }
  return undefined;
}

function ancestors(table: MountTable, mount: MountEntry): Set<number> {
  const byId = new Map(table.entries.map((entry) => [entry.id, entry]));
  const found = new Set<number>();
  for (let next = byId.get(mount.parentId); next && !found.has(next.id); next = byId.get(next.parentId))
    found.add(next.id);
  return found;
}

/** Takes off the hidden mounts at or below the path, with the folders they are mounted on. Rejects with a HiddenMountError where some stay. */
export async function unmountHidden(mounter: Mounter, path: string, signal: AbortSignal): Promise<void> {
  let failure: unknown;
  const tried = new Set<number>();
  // Planned anew after each: one that has gone may have covered another.
  for (;;) {
    const next = planHidden(await mounter.table(), path).find(({ id }) => !tried.has(id));
    if (!next) break;
    tried.add(next.id);
    await mounter.unmountHidden(next, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      failure ??= error;
    });
  }
  assertNoneHidden(await mounter.table(), path, failure);
}

export function assertNoneHidden(table: MountTable, path: string, cause?: unknown): void {
  const left = table.hidden(path);
  if (left.length === 0) return;
  const points = left.map(({ mountPoint }) => mountPoint).join(', ');
  throw new HiddenMountError(`another mount hides what is mounted at ${points}; what bears it stays as it is`, {
    cause,
  });
}
