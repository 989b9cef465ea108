// A part of a volume for one volumeMount: found without following anything out of the volume, and pinned by a bind mount under
// `volume-subpaths`, so that what the runtime mounts later is what was checked.
import { lstat, mkdir, readdir, rmdir, stat, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeFolders } from './make-folders.ts';
import type { Mounter } from './mounter.ts';
import { assertAnswers } from './path-probe.ts';
import { unmountUnder } from './remove-tree.ts';
import { makeFolderInside, openInside, resolveInside } from './safe-path.ts';

export interface SubPathRequest {
  /** The volume on this host. */
  readonly volumePath: string;
  readonly subPath: string;
  /** Where it is pinned. */
  readonly target: string;
}

/** Makes the subPath where it is missing, and binds it on the target. Returns the path for the runtime. */
export async function bindSubPath(mounter: Mounter, request: SubPathRequest, signal: AbortSignal): Promise<string> {
  const { volumePath, subPath, target } = request;
  const table = await mounter.table();
  await assertAnswers(table, volumePath, signal);
  let found = await resolveInside(volumePath, subPath);
  if (!found) {
    // The folder is as open as the volume: a pod with an fsGroup must be able to write there.
    await makeFolderInside(volumePath, subPath, (await stat(volumePath)).mode & 0o7777);
    found = await resolveInside(volumePath, subPath);
    if (!found) throw new Error(`"${subPath}" vanished as soon as it was made`);
  }
  const handle = await openInside(found.realBase, found.path);
  try {
    const source = await handle.stat();
    if (table.at(target)) {
      const there = await lstat(target);
      if (there.dev === source.dev && there.ino === source.ino) return target;
      await mounter.unmount(target, signal);
    }
    await makeTarget(target, source.isDirectory());
    await mounter.bind(`/proc/${process.pid}/fd/${handle.fd}`, target, {}, signal);
    return target;
  } finally {
    await handle.close();
  }
}

// A folder for a folder, a file for everything else.
async function makeTarget(target: string, folder: boolean): Promise<void> {
  await makeFolders(dirname(target), 0o750);
  try {
    const there = await lstat(target);
    if (there.isDirectory() === folder) return;
    await (there.isDirectory() ? rmdir(target) : unlink(target));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  if (folder) await mkdir(target, { mode: 0o750 });
  else await writeFile(target, '', { mode: 0o640 });
}

/** Takes off every bind mount under a pod's `volume-subpaths` and removes the empty places that held them. */
export async function clearSubPaths(mounter: Mounter, root: string, signal: AbortSignal): Promise<void> {
  await unmountUnder(mounter, root, signal);
  await removePlaces(root, 3);
}

// Only empty folders, and the empty files that makeTarget made, `depth` levels below.
async function removePlaces(path: string, depth: number): Promise<void> {
  let names: readonly string[];
  try {
    names = await readdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    if (code === 'ENOTDIR' && depth === 0) {
      if ((await lstat(path)).size > 0) throw new Error(`${path} is not empty; it was not made here and is left`);
      await unlink(path);
      return;
    }
    throw error;
  }
  if (depth > 0) for (const name of names) await removePlaces(join(path, name), depth - 1);
  await rmdir(path);
}
