// Removes what this node made for a pod, and never anything that is mounted there: the mount table is asked before, the device of every
// file while walking.
import { lstat, readdir, rm, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { exec } from '../../lib/exec.ts';
import { assertNoneHidden, unmountHidden } from './hidden-mounts.ts';
import type { Mounter } from './mounter.ts';

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/** Removes an empty folder; one that is gone is fine. Rejects where something is in it. */
export async function removeEmptyFolder(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}

/** Removes the folder where it is empty; says whether it is gone. */
export async function removeIfEmpty(path: string): Promise<boolean> {
  try {
    await removeEmptyFolder(path);
    return true;
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'EBUSY') return false;
    throw error;
  }
}

/** Names in a folder; none where there is no folder. */
export async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return [];
    throw error;
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/**
 * Unmounts all that is mounted at or below the path, the deepest first, and then what is hidden there. Unmounting loses no data. Rejects with a
 * HiddenMountError where something hidden stays; all else is unmounted then.
 */
export async function unmountUnder(mounter: Mounter, path: string, signal: AbortSignal): Promise<void> {
  const table = await mounter.table();
  for (const mount of table.under(path)) await mounter.unmount(mount.mountPoint, signal);
  if (table.hidden(path).length > 0) await unmountHidden(mounter, path, signal);
}

const removeTimeoutMs = 600_000;

// What is hidden now could be reached in a moment, when the mount above it goes.
async function assertNothingMounted(mounter: Mounter, path: string): Promise<void> {
  const table = await mounter.table();
  const [mounted] = table.under(path);
  if (mounted) throw new Error(`${mounted.mountPoint} is still mounted; nothing below ${path} was removed`);
  assertNoneHidden(table, path);
}

/**
 * Removes a folder with all that is in it. Rejects without touching anything where something is mounted at or below it, hidden or not. A child
 * process does the work where there is much: it walks by open folders, so names that change meanwhile lead nowhere.
 */
export async function removeTree(mounter: Mounter, path: string, signal: AbortSignal): Promise<void> {
  await assertNothingMounted(mounter, path);
  if (await removeIfEmpty(path)) return;
  await exec('rm', ['--recursive', '--force', '--one-file-system', '--', path], { timeoutMs: removeTimeoutMs, signal });
}

/** The same for a small folder of our own files, without a child process. */
export async function removeSmallTree(mounter: Mounter, path: string): Promise<void> {
  if (!(await isThere(path))) return;
  await assertNothingMounted(mounter, path);
  await rm(path, { recursive: true, force: true });
}

/** Removes a link, and nothing else. */
export async function removeLink(path: string): Promise<void> {
  try {
    if ((await lstat(path)).isSymbolicLink()) await unlink(path);
    else throw new Error(`${path} is not a symbolic link; it was not made here and is left`);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}

export const childrenOf = async (path: string): Promise<{ name: string; path: string }[]> =>
  (await namesIn(path)).map((name) => ({ name, path: join(path, name) }));
