// `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`, the older place where log collectors look: links to the logs of containers.
import { mkdir, readdir, readlink, rm, stat, symlink } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import type { ContainerId } from '../../cri/types.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { legacyLogName } from '../containers/log-path.ts';

export interface ContainerLinks {
  /** Links the container's log; one that is there is replaced. */
  add(pod: Pod, container: string, id: ContainerId, logPath: string): Promise<void>;
  /** Removes the link and the log with its rotated parts. */
  remove(pod: Pod, container: string, id: ContainerId, logPath: string): Promise<void>;
  /** Removes links whose logs are gone. */
  sweep(): Promise<void>;
}

/** The links lie in `containers` beside the folder of logs, so that agents with their own folders have their own links. */
export function createContainerLinks(options: { readonly podLogsDir: string }): ContainerLinks {
  const folder = join(dirname(options.podLogsDir), 'containers');
  const logs = options.podLogsDir.endsWith(sep) ? options.podLogsDir : `${options.podLogsDir}${sep}`;
  let made = false;
  return {
    async add(pod, container, id, logPath) {
      if (!made) await mkdir(folder, { recursive: true, mode: 0o755 });
      made = true;
      const link = join(folder, legacyLogName(pod, container, id));
      try {
        await symlink(logPath, link);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        await rm(link, { force: true });
        await symlink(logPath, link);
      }
    },
    async remove(pod, container, id, logPath) {
      await rm(join(folder, legacyLogName(pod, container, id)), { force: true });
      if (!logPath.startsWith(logs)) return;
      const name = basename(logPath);
      for (const each of await readdir(dirname(logPath)).catch(() => []))
        if (each === name || each.startsWith(`${name}.`)) await rm(join(dirname(logPath), each), { force: true });
    },
    async sweep() {
      for (const name of await readdir(folder).catch(() => [])) {
        if (!name.endsWith('.log')) continue;
        const link = join(folder, name);
        const target = await readlink(link).catch(() => undefined);
        if (target?.startsWith(logs) && !(await stat(link).catch(() => undefined))) await rm(link, { force: true });
      }
    },
  };
}
