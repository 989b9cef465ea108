// Removes the cgroups that a test's pods were put in, in every hierarchy of the host.
import { readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** `path` is relative to the hierarchies' roots. Groups that go on holding processes for ten seconds make it reject. */
export async function removeCgroups(path: string): Promise<void> {
  const root = '/sys/fs/cgroup';
  const below = async (folder: string): Promise<void> => {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => undefined);
    if (!entries) return;
    for (const entry of entries) if (entry.isDirectory()) await below(join(folder, entry.name));
    await removeFolder(folder);
  };
  await below(join(root, path));
  for (const entry of await readdir(root, { withFileTypes: true }))
    if (entry.isDirectory()) await below(join(root, entry.name, path));
}

/** A group is busy for a moment after its last process has ended. */
async function removeFolder(folder: string): Promise<void> {
  for (const deadline = Date.now() + 10_000; ; await sleep(50)) {
    try {
      return await rmdir(folder);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return;
      if (code !== 'EBUSY' || Date.now() > deadline) throw error;
    }
  }
}
