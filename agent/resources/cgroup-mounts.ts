// Where the cgroup file systems are, read from /proc/self/mountinfo.
import { readFile } from 'node:fs/promises';

export interface CgroupMounts {
  /** 2 where one hierarchy holds all controllers; 1 where each has its own, also when a version 2 one stands beside them. */
  readonly version: 1 | 2;
  /** Version 1: mount point by controller (`cpu`, `memory`, `name=systemd`, …). Version 2: empty. */
  readonly controllers: ReadonlyMap<string, string>;
  /** Mount point of the version 2 hierarchy, where there is one. */
  readonly unified: string | undefined;
}

const known: ReadonlySet<string> = new Set([
  'blkio',
  'cpu',
  'cpuacct',
  'cpuset',
  'devices',
  'freezer',
  'hugetlb',
  'memory',
  'misc',
  'net_cls',
  'net_prio',
  'perf_event',
  'pids',
  'rdma',
]);

export function parseCgroupMounts(mountinfo: string): CgroupMounts {
  const controllers = new Map<string, string>();
  const unified: string[] = [];
  for (const line of mountinfo.split('\n')) {
    const [before = '', after = ''] = line.split(' - ');
    const point = before.split(' ')[4]?.replace(/\\040/g, ' ');
    const [type, , options = ''] = after.split(' ');
    if (point === undefined) continue;
    if (type === 'cgroup2') unified.push(point);
    if (type !== 'cgroup') continue;
    for (const option of options.split(',')) {
      if (!known.has(option) && !option.startsWith('name=')) continue;
      const before = controllers.get(option);
      // Mounted twice: the shorter path is the real one, as the kubelet has it.
      if (before === undefined || point.length < before.length) controllers.set(option, point);
    }
  }
  const shortest = unified.sort((a, b) => a.length - b.length)[0];
  const resources = ['cpu', 'memory'].some((name) => controllers.has(name));
  return { version: resources || shortest === undefined ? 1 : 2, controllers, unified: shortest };
}

export const findCgroupMounts = async (): Promise<CgroupMounts> =>
  parseCgroupMounts(await readFile('/proc/self/mountinfo', 'utf8'));
