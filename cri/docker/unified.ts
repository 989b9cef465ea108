// Settings of cgroup v2 that Docker has no field for (memory.min, memory.high, memory.oom.group): written where the container is.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RuntimeError } from '../errors.ts';

/** The container's folder in the one hierarchy of v2; undefined on v1, where these settings do not exist. */
export function unifiedFolder(cgroup: string, root = '/sys/fs/cgroup'): string | undefined {
  const lines = cgroup.trim().split('\n');
  const [first = ''] = lines;
  return lines.length === 1 && first.startsWith('0::') ? join(root, first.slice(3)) : undefined;
}

export async function writeUnified(pid: number, settings: Readonly<Record<string, string>>): Promise<void> {
  const text = pid > 0 ? await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '') : '';
  const folder = unifiedFolder(text);
  if (folder === undefined) return;
  for (const [name, value] of Object.entries(settings)) {
    if (!/^[\w.]+$/.test(name)) throw new RuntimeError('invalid', 'StartContainer', `${name} is no cgroup setting`);
    await writeFile(join(folder, name), value).catch((error: NodeJS.ErrnoException) => {
      // It ended meanwhile, or the controller is not enabled.
      if (error.code !== 'ENOENT')
        throw new RuntimeError('unknown', 'StartContainer', `writing ${name}: ${error.message}`, error);
    });
  }
}
