// Where containers' logs are: `/var/log/pods/<namespace>_<name>_<uid>/<container>/<attempt>.log`, as log agents expect.
import { join } from 'node:path';
import type { Pod } from '../../kube/types/pod.ts';

export const podLogDirectory = (podLogsRoot: string, pod: Pod): string =>
  join(podLogsRoot, `${pod.metadata.namespace ?? 'default'}_${pod.metadata.name}_${pod.metadata.uid ?? ''}`);

export const containerLogDirectory = (podLogsRoot: string, pod: Pod, container: string): string =>
  join(podLogDirectory(podLogsRoot, pod), container);

/** Relative to the pod's log directory. */
export const containerLogPath = (container: string, restartCount: number): string =>
  join(container, `${restartCount}.log`);

/** The next restart count by the names in a container's log directory, for a runtime that has forgotten its containers; 0 for none. */
export function restartCountOfLogs(names: readonly string[]): number {
  const counts = names.flatMap((name) => {
    const match = /^(\d+)\.log(\.|$)/.exec(name);
    return match ? [Number(match[1])] : [];
  });
  return counts.length === 0 ? 0 : Math.max(...counts) + 1;
}

/** `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`, the older place, which links to the log. */
export function legacyLogName(pod: Pod, container: string, containerId: string): string {
  const name = `${pod.metadata.name}_${pod.metadata.namespace ?? 'default'}_${container}-${containerId}`;
  return `${name.slice(0, 251)}.log`;
}
