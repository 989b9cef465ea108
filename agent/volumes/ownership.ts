// Gives a volume to the pod's fsGroup: everything in it gets the group, is readable (and writable) by it, and folders pass it on.
import type { Stats } from 'node:fs';
import { chmod, lchown, lstat, opendir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export interface OwnershipOptions {
  readonly fsGroup: number;
  readonly readOnly: boolean;
  readonly policy: 'OnRootMismatch' | 'Always';
  readonly signal: AbortSignal;
}

const setgid = 0o2000;
const executable = 0o110;

/** Walks the volume, files first and the root last, so that a walk that was cut short starts over under OnRootMismatch too. */
export async function giveToGroup(root: string, options: OwnershipOptions): Promise<void> {
  if (options.policy === 'OnRootMismatch' && (await rootFits(root, options))) return;
  const found = await lstat(root);
  await walk(root, found, found.dev, options);
}

async function rootFits(root: string, { fsGroup, readOnly }: OwnershipOptions): Promise<boolean> {
  const found = await stat(root);
  const wanted = (readOnly ? 0o440 : 0o660) | executable | setgid;
  return found.isDirectory() && found.gid === fsGroup && (found.mode & wanted) === wanted;
}

async function walk(path: string, found: Stats, device: number, options: OwnershipOptions): Promise<void> {
  options.signal.throwIfAborted();
  if (found.isDirectory()) {
    for await (const entry of await opendir(path)) {
      const child = join(path, entry.name);
      const next = await lstatIfThere(child);
      // Another file system mounted inside is not part of this volume.
      if (next && next.dev === device) await walk(child, next, device, options);
    }
  }
  await giveOne(path, found, options);
}

async function lstatIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

// Kubelet goes on where one file cannot be changed (a read-only or odd file system); the pod then sees what it sees.
async function giveOne(path: string, found: Stats, { fsGroup, readOnly }: OwnershipOptions): Promise<void> {
  try {
    await lchown(path, -1, fsGroup);
    if (found.isSymbolicLink()) return;
    const extra = (readOnly ? 0o440 : 0o660) | (found.isDirectory() ? setgid | executable : 0);
    await chmod(path, (found.mode & 0o7777) | extra);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EPERM' && code !== 'EROFS' && code !== 'ENOENT' && code !== 'EACCES') throw error;
  }
}
