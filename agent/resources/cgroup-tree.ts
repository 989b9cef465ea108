// The one file that touches the cgroup file systems: makes, sets, lists and removes cgroups, in version 1 and 2.
import { existsSync } from 'node:fs';
import { mkdir, open, readdir, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { readPseudo } from '../stats/pseudo-files.ts';
import type { CgroupMounts } from './cgroup-mounts.ts';
import { type CgroupWrite, writesV1, writesV2 } from './cgroup-files.ts';
import type { CgroupResources } from './linux-resources.ts';

export interface CgroupTree {
  /** Makes the cgroup in every hierarchy. The parent must be there, or is made too. */
  make(path: string): Promise<void>;
  /** Rejects with an Error that names the file and the value; files of controllers that the kernel lacks are skipped. */
  set(path: string, resources: CgroupResources): Promise<void>;
  /** In one hierarchy at least, or in every one. */
  exists(path: string, where: 'somewhere' | 'everywhere'): Promise<boolean>;
  /** Names of the children, in any hierarchy. */
  children(path: string): Promise<string[]>;
  /** Ids of the processes in the cgroup and below it. */
  processes(path: string): Promise<number[]>;
  /** Removes the cgroup and those below it. False where processes are left in it. */
  remove(path: string): Promise<boolean>;
  /** A file's text, trimmed; undefined where it is not there. `controller` counts in version 1 only. */
  read(path: string, controller: string, file: string): Promise<string | undefined>;
}

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? '';
const isAbsent = (error: unknown): boolean => ['ENOENT', 'ENODEV', 'ENOTDIR'].includes(codeOf(error));

// Synchronous, into one buffer: as an errand for the pool of threads each would hold 64 KiB and a file until its turn comes, and when hundreds of pods go at once that is 100 MB.
function readText(path: string): string | undefined {
  try {
    return readPseudo(path).trim();
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

// Not writeFile: it would make a file that is not there, or truncate, and cgroupfs wants neither.
async function writeText(path: string, value: string): Promise<void> {
  const file = await open(path, 'r+').catch(async (error: unknown) => {
    if (codeOf(error) !== 'EACCES' && codeOf(error) !== 'EPERM') throw error;
    return open(path, 'w');
  });
  try {
    await file.write(value);
  } finally {
    await file.close();
  }
}

async function subfolders(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (error) {
    if (isAbsent(error)) return [];
    throw error;
  }
}

/** Children first. False where something in it is busy. */
async function removeTree(path: string): Promise<boolean> {
  for (const child of await subfolders(path)) if (!(await removeTree(join(path, child)))) return false;
  try {
    await rmdir(path);
    return true;
  } catch (error) {
    if (isAbsent(error)) return true;
    if (codeOf(error) === 'EBUSY' || codeOf(error) === 'ENOTEMPTY') return false;
    throw error;
  }
}

async function processesBelow(path: string): Promise<number[]> {
  const own = readText(join(path, 'cgroup.procs')) ?? '';
  const below = await Promise.all((await subfolders(path)).map((child) => processesBelow(join(path, child))));
  return [...own.split('\n').filter(Boolean).map(Number), ...below.flat()];
}

// A new cpuset has neither CPUs nor memory nodes, and no process can enter it.
async function fillCpuset(path: string): Promise<void> {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if (readText(join(path, file)) !== '') continue;
    const parent = readText(join(dirname(path), file));
    if (parent) await writeText(join(path, file), parent).catch(() => undefined);
  }
}

const wantedControllers = ['cpu', 'cpuset', 'memory', 'pids', 'hugetlb', 'io'];

export function createCgroupTree(mounts: CgroupMounts): CgroupTree {
  const points =
    mounts.version === 2 && mounts.unified !== undefined ? [mounts.unified] : [...new Set(mounts.controllers.values())];
  // Where a version 2 hierarchy stands beside those of version 1, runtimes put their containers there too, below the same path.
  const everywhere = mounts.unified === undefined ? points : [...new Set([...points, mounts.unified])];
  const pointOf = (controller: string): string | undefined =>
    mounts.version === 2 ? mounts.unified : mounts.controllers.get(controller);

  // A child has the controllers that its parent hands on.
  const handOn = async (folder: string): Promise<void> => {
    const available = (readText(join(folder, 'cgroup.controllers')) ?? '').split(' ');
    const enabled = (readText(join(folder, 'cgroup.subtree_control')) ?? '').split(' ');
    const missing = wantedControllers.filter((name) => available.includes(name) && !enabled.includes(name));
    // One by one: one that cannot be had must not keep the others back.
    for (const name of missing)
      await writeText(join(folder, 'cgroup.subtree_control'), `+${name}`).catch(() => undefined);
  };

  const makeUnified = async (root: string, path: string): Promise<void> => {
    await handOn(root);
    let folder = root;
    for (const part of path.split('/').filter(Boolean)) {
      folder = join(folder, part);
      await mkdir(folder, { recursive: true });
      await handOn(folder);
    }
  };

  const write = async (path: string, { controller, file, value, optional }: CgroupWrite): Promise<void> => {
    const point = pointOf(controller);
    if (point === undefined) return;
    const target = join(point, path, file);
    try {
      await writeText(target, value);
    } catch (error) {
      // The controller is not there (hugetlb on many kernels), or its file is not.
      if (optional || (codeOf(error) === 'ENOENT' && readText(join(point, path, 'cgroup.procs')) !== undefined)) return;
      throw new Error(`write ${value} to ${target}: ${codeOf(error) || String(error)}`, { cause: error });
    }
  };

  return {
    async make(path) {
      if (mounts.version === 2 && mounts.unified !== undefined) return makeUnified(mounts.unified, path);
      await Promise.all(points.map((point) => mkdir(join(point, path), { recursive: true })));
      const cpuset = mounts.controllers.get('cpuset');
      if (cpuset === undefined) return;
      let folder = cpuset;
      for (const part of path.split('/').filter(Boolean)) {
        folder = join(folder, part);
        await fillCpuset(folder);
      }
    },
    async set(path, resources) {
      const writes = mounts.version === 2 ? writesV2(resources) : writesV1(resources);
      // In order: a quota counts with the period before it.
      for (const each of writes) await write(path, each);
    },
    async exists(path, where) {
      const among = where === 'everywhere' ? points : everywhere;
      // Synchronous: the kernel has the answer at hand, and on cgroup v1 a dozen errands for the pool of threads for each pod cost a restart a tenth of its time.
      const is = (point: string): boolean => existsSync(join(point, path, 'cgroup.procs'));
      return where === 'everywhere' ? among.every(is) : among.some(is);
    },
    async children(path) {
      const all = await Promise.all(everywhere.map((point) => subfolders(join(point, path))));
      return [...new Set(all.flat())];
    },
    async processes(path) {
      const all = await Promise.all(everywhere.map((point) => processesBelow(join(point, path))));
      return [...new Set(all.flat())].filter((pid) => pid > 0);
    },
    async remove(path) {
      const gone = await Promise.all(everywhere.map((point) => removeTree(join(point, path))));
      return gone.every(Boolean);
    },
    read: async (path, controller, file) => {
      const point = pointOf(controller);
      return point === undefined ? undefined : readText(join(point, path, file));
    },
  };
}
