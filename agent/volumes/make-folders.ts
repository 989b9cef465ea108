// Makes a folder and those above it. Node's own recursive mkdir says ENOENT where the disk is read-only; here the error is the first real one.
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Folders that are missing get `mode`, narrowed by the umask; those that are there are left as they are. */
export async function makeFolders(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    const parent = dirname(path);
    if (code !== 'ENOENT' || parent === path) throw error;
    await makeFolders(parent, mode);
    await makeFolders(path, mode);
  }
}
