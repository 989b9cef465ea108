// Walks a path inside a volume that a hostile pod may be changing meanwhile. Each step is opened relative to the folder that was opened
// before (by way of /proc/self/fd, as Node has no openat) and no link is followed, so nothing can lead out of the volume.
import { constants } from 'node:fs';
import { chmod, type FileHandle, mkdir, open, realpath } from 'node:fs/promises';
import { join } from 'node:path';

/** A path that leads out of its volume, or was changed while it was looked at. */
export class UnsafePathError extends Error {
  override name = 'UnsafePathError';
}

// Linux's O_PATH: a handle on a place, without opening what is there (a fifo would wait, a device would act).
const O_PATH = 0o10000000;
const stepFlags = O_PATH | constants.O_NOFOLLOW;

const inside = (path: string, base: string): boolean =>
  path === base || path.startsWith(base === '/' ? '/' : `${base}/`);

/** Where `subPath` really is inside the volume at `base`, links resolved; undefined where there is nothing. Throws where that is outside. */
export async function resolveInside(
  base: string,
  subPath: string,
): Promise<{ realBase: string; path: string } | undefined> {
  const realBase = await realpath(base);
  let path: string;
  try {
    path = await realpath(join(realBase, subPath));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  if (!inside(path, realBase)) throw new UnsafePathError(`subpath "${subPath}" leads out of its volume`);
  return { realBase, path };
}

async function step(parent: FileHandle, name: string): Promise<FileHandle> {
  if (name === '' || name === '.' || name === '..' || name.includes('/'))
    throw new UnsafePathError(`"${name}" is not a name inside a volume`);
  const child = await open(`/proc/self/fd/${parent.fd}/${name}`, stepFlags);
  if (!(await child.stat()).isSymbolicLink()) return child;
  await child.close();
  throw new UnsafePathError(`unexpected symbolic link "${name}"`);
}

/** Opens what is at `path`, already resolved, inside `realBase`. The handle keeps the place whatever is renamed afterwards; close it. */
export async function openInside(realBase: string, path: string): Promise<FileHandle> {
  if (!inside(path, realBase)) throw new UnsafePathError(`${path} is outside of ${realBase}`);
  let handle = await open(realBase, stepFlags);
  try {
    for (const name of path.slice(realBase.length).split('/').filter(Boolean)) {
      const next = await step(handle, name);
      await handle.close();
      handle = next;
    }
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/**
 * Makes the folders of `subPath` that are missing inside the volume at `base`, each with `mode`. The part that exists may have links,
 * as long as they stay inside.
 */
export async function makeFolderInside(base: string, subPath: string, mode: number): Promise<void> {
  const names = subPath.split('/').filter((name) => name !== '' && name !== '.');
  let existing = await resolveInside(base, '.');
  let made = 0;
  for (; made < names.length; made++) {
    const next = await resolveInside(base, names.slice(0, made + 1).join('/'));
    if (!next) break;
    existing = next;
  }
  if (!existing) throw new UnsafePathError(`the volume at ${base} is gone`);
  let handle = await openInside(existing.realBase, existing.path);
  try {
    for (const name of names.slice(made)) {
      if (name === '..') throw new UnsafePathError(`"${subPath}" has a backstep`);
      await mkdir(`/proc/self/fd/${handle.fd}/${name}`, { mode });
      const next = await step(handle, name);
      await handle.close();
      handle = next;
      // By its handle: the umask must not narrow it, and a swapped name must not be reached.
      await chmod(`/proc/self/fd/${handle.fd}`, mode);
    }
  } finally {
    await handle.close();
  }
}
