// Files written whole or not at all, and read again only where they have changed.
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, basename } from 'node:path';

/**
 * Writes a file so that a reader sees the old content or the new, never a part, and a crash leaves one of the two. The mode is set
 * before a byte is written. Parent folders are made with mode 0755.
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array, mode = 0o644): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}`);
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.chmod(mode);
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** The file's text, or undefined where there is none. */
export async function readFileIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Reads a file that seldom changes: again only where it is another one, or its size or a time of it is. Rejects as `readFile` does. */
export function createFileReader(path: string): () => Promise<string> {
  let known: { readonly signature: string; readonly text: string } | undefined;
  return async () => {
    const { ino, dev, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    const signature = [dev, ino, size, mtimeNs, ctimeNs].join(' ');
    // Looked at before it is read: what changes in between is seen the next time.
    if (known?.signature !== signature) known = { signature, text: await readFile(path, 'utf8') };
    return known.text;
  };
}
