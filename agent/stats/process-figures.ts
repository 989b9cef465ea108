// What the processes of cgroups hold: open files, sockets, the limit of both. Only a walk through /proc tells, and a link must be read for each
// open file: so it is taken for the one page that shows it, in slices, and not again where nothing has run since.
import { readdirSync, readlinkSync, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import type { CgroupReader } from './cgroup-reader.ts';
import { createSlicer, readPseudoFile } from './pseudo-files.ts';

export interface ProcessFigures {
  /** Of the cgroup itself, as all figures here: those of cgroups below it are theirs. */
  readonly processes: number;
  /** Undefined where we may not look. */
  readonly fileDescriptors: number | undefined;
  readonly sockets: number | undefined;
  /** The soft limit of open files of the first process; -1 is none; undefined where it was not asked for or there is no process. */
  readonly maxOpenFiles: number | undefined;
}

export interface AskedCgroup {
  readonly path: string;
  /** What it has used of the processor, nanoseconds: while that stands still, its processes hold what they held. */
  readonly usageNs: number | undefined;
  /** The process whose limits are asked for: one by its id, the first one of a container, or none of a cgroup that only holds others. */
  readonly leader: 'first' | 'none' | number;
}

export interface ProcessCounter {
  /**
   * By path; what is gone is left out. `key` stands for one list of cgroups: who asks with the same key at a time shares one walk. What is no
   * more in a list is forgotten.
   */
  count(key: object, asked: readonly AskedCgroup[]): Promise<ReadonlyMap<string, ProcessFigures>>;
}

export interface ProcessCounterDeps {
  readonly cgroups: Pick<CgroupReader, 'pids'>;
}

/** More than this are listed by another thread: the kernel makes an entry for each. */
const manyFiles = 4096;
const linksBetweenBreaths = 64;

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;
/** The process, or the file, ended while it was looked at. */
const isGone = (error: unknown): boolean => codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH';

/** `Max open files            1024                 524288               files`; undefined where the text does not say. */
export function softOpenFiles(limits: string | undefined): number | undefined {
  const found = /^Max open files +(\d+|unlimited) /m.exec(limits ?? '')?.[1];
  if (found === undefined) return undefined;
  return found === 'unlimited' ? -1 : Number(found);
}

export function createProcessCounter(deps: ProcessCounterDeps, options: { readonly proc: string }): ProcessCounter {
  const { cgroups } = deps;
  const { proc } = options;
  const known = new Map<string, { readonly usageNs: number | undefined; readonly figures: ProcessFigures }>();
  const running = new WeakMap<object, Promise<ReadonlyMap<string, ProcessFigures>>>();
  /** Linux 6.2 and later say in the folder's size how many files are open. */
  let toldBySize: boolean | undefined;

  const openFiles = async (folder: string): Promise<readonly string[]> => {
    toldBySize ??= (statSync(`${proc}/self/fd`, { throwIfNoEntry: false })?.size ?? 0) > 0;
    if (!toldBySize) return await readdir(folder);
    const { size } = statSync(folder);
    if (size === 0) return [];
    return size > manyFiles ? await readdir(folder) : readdirSync(folder);
  };

  const isSocket = (path: string): boolean => {
    try {
      return readlinkSync(path, 'latin1').startsWith('socket');
    } catch {
      return false; // Closed since.
    }
  };

  const countOne = async (
    { path, leader }: AskedCgroup,
    breathe: () => Promise<void> | undefined,
  ): Promise<ProcessFigures | undefined> => {
    const pids = cgroups.pids(path);
    if (!pids) return undefined;
    let fileDescriptors = 0;
    let sockets = 0;
    let refused = false;
    for (const pid of pids) {
      const folder = `${proc}/${pid}/fd`;
      const files = await openFiles(folder).catch((error: unknown): string[] => {
        if (!isGone(error)) refused = true;
        return [];
      });
      fileDescriptors += files.length;
      for (const [at, file] of files.entries()) {
        if (isSocket(`${folder}/${file}`)) sockets++;
        if (at % linksBetweenBreaths === linksBetweenBreaths - 1) await breathe();
      }
      await breathe();
    }
    const first = leader === 'first' ? pids[0] : leader === 'none' ? undefined : leader;
    return {
      processes: pids.length,
      fileDescriptors: refused ? undefined : fileDescriptors,
      sockets: refused ? undefined : sockets,
      maxOpenFiles: first === undefined ? undefined : softOpenFiles(readPseudoFile(`${proc}/${first}/limits`)),
    };
  };

  const walk = async (asked: readonly AskedCgroup[]): Promise<ReadonlyMap<string, ProcessFigures>> => {
    const slicer = createSlicer();
    const found = new Map<string, ProcessFigures>();
    for (const one of asked) {
      const { path, usageNs } = one;
      const before = known.get(path);
      const still = before !== undefined && usageNs !== undefined && before.usageNs === usageNs;
      const figures = still ? before.figures : await countOne(one, slicer.breathe);
      if (figures) {
        found.set(path, figures);
        if (!still) known.set(path, { usageNs, figures });
      }
      await slicer.breathe();
    }
    for (const path of known.keys()) if (!found.has(path)) known.delete(path);
    return found;
  };

  return {
    count(key, asked) {
      const begun = running.get(key);
      if (begun) return begun;
      const walked = walk(asked).finally(() => running.delete(key));
      running.set(key, walked);
      return walked;
    },
  };
}
