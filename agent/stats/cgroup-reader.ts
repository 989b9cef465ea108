// What a cgroup has used, from cgroup v1 or v2, in one shape. By path: nothing is searched for. Opening a file costs more than what is in it,
// so what cannot have changed since the look before is not read again: limits, and what only changes where something runs.
import { existsSync } from 'node:fs';
import type { CgroupSample, ReadOptions } from './cgroup-sample.ts';
import { readV1 } from './cgroup-v1.ts';
import { readV2 } from './cgroup-v2.ts';
import { createPseudoFolders, readPseudoFile } from './pseudo-files.ts';

export interface CgroupReader {
  readonly version: 1 | 2;
  /** `path` begins with a slash and names the cgroup in every hierarchy. Undefined where there is no such cgroup. */
  read(path: string, nowMs: number, options?: ReadOptions): CgroupSample | undefined;
  /** A process in the cgroup; undefined where there is none. */
  firstPid(path: string): number | undefined;
  /** The processes in the cgroup itself, not in those below it; undefined where it cannot be told. */
  pids(path: string): readonly number[] | undefined;
}

/** Pressure is in every cgroup or in none; the rest comes with its controller, which may be off in a part of the tree. */
const proofInV2 = (file: string): string =>
  file.endsWith('.pressure')
    ? 'cgroup.procs'
    : file.startsWith('memory.')
      ? 'memory.current'
      : file.startsWith('io.')
        ? 'io.max'
        : 'pids.max';
const proofInV1 = (): string => 'cgroup.procs';

const everything: ReadOptions = { depth: 'full', keepLimits: false };

/** `root` is where cgroups are mounted, `/sys/fs/cgroup`. */
export function createCgroupReader(root: string): CgroupReader {
  const version = existsSync(`${root}/cgroup.controllers`) ? 2 : 1;
  // The root lacks files that the others have: what is missed there says nothing of them.
  const of = createPseudoFolders(version === 2 ? proofInV2 : proofInV1);
  const inRoot = createPseudoFolders(() => 'no such file');
  return {
    version,
    read(path, nowMs, options = everything) {
      const at = path === '/' ? inRoot : of;
      if (version === 2) return readV2(at(`${root}${path}`), nowMs, options);
      const files = {
        cpu: at(`${root}/cpu${path}`),
        cpuacct: at(`${root}/cpuacct${path}`),
        memory: at(`${root}/memory${path}`),
        pids: at(`${root}/pids${path}`),
        blkio: at(`${root}/blkio${path}`),
      };
      return readV1(files, nowMs, options);
    },
    firstPid(path) {
      const folder = version === 2 ? `${root}${path}` : `${root}/memory${path}`;
      const pid = Number.parseInt(readPseudoFile(`${folder}/cgroup.procs`) ?? '', 10);
      return Number.isNaN(pid) || pid <= 0 ? undefined : pid;
    },
    pids(path) {
      const text = readPseudoFile(`${version === 2 ? root : `${root}/cpu`}${path}/cgroup.procs`);
      return text
        ?.split('\n')
        .map(Number)
        .filter((pid) => pid > 0);
    },
  };
}
