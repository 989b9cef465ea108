// Removes the cgroups that a test's pods were put in, in every hierarchy of the host.
import { readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';

/** `path` is relative to the hierarchies' roots. Groups that still hold processes make it reject. */
export async function removeCgroups(path: string): Promise<void> {
  const root = '/sys/fs/cgroup';
  const below = async (folder: string): Promise<void> => {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => undefined);
    if (!entries) return;
    for (const entry of entries) if (entry.isDirectory()) await below(join(folder, entry.name));
    await rmdir(folder);
  };
  await below(join(root, path));
  for (const entry of await readdir(root, { withFileTypes: true }))
    if (entry.isDirectory()) await below(join(root, entry.name, path));
}
