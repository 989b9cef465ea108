// Memory that a pod's volumes hold, given back at once: for an evicted pod whose processes were killed because the node stands still. The volumes
// themselves are taken down later like all others.
import { lstat, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pod } from '../../kube/types/pod.ts';
import { type MountTable, readMountTable } from './mount-table.ts';
import { plugins, volumePaths } from './paths.ts';

/**
 * Removes all files in the pod's emptyDirs of medium Memory, and nothing that is mounted in them. No process of the pod may be left. Needs no
 * other program. Resolves with how many files went; a file that cannot be removed stays.
 */
export async function emptyMemoryVolumes(
  rootDir: string,
  pod: Pod,
  readTable: () => Promise<MountTable> = readMountTable,
): Promise<number> {
  const paths = volumePaths(rootDir);
  const inMemory = (pod.spec.volumes ?? []).filter(({ emptyDir }) => emptyDir?.medium === 'Memory');
  if (inMemory.length === 0) return 0;
  const table = await readTable();
  let removed = 0;
  for (const { name } of inMemory) {
    const path = paths.volume(pod.metadata.uid ?? '', plugins.emptyDir, name);
    if (table.at(path)?.fsType === 'tmpfs') removed += await removeFiles(path, (await lstat(path)).dev);
  }
  return removed;
}

async function removeFiles(folder: string, device: number): Promise<number> {
  let removed = 0;
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    try {
      const found = await lstat(path);
      // Something else is mounted there.
      if (found.dev !== device) continue;
      if (found.isDirectory()) {
        removed += await removeFiles(path, device);
        continue;
      }
      await unlink(path);
      removed += 1;
    } catch {
      // Gone meanwhile, or held by a mount: the volume's tear-down says so where it matters.
    }
  }
  return removed;
}
