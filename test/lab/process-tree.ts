// Finds and ends processes by their place in the tree, for labs that must leave nothing behind. Never by a generic name.
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

export interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly command: readonly string[];
}

/** Every process that can be read now. */
export async function listProcesses(): Promise<ProcessEntry[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const entries = await Promise.all(
    pids.map(async (pid) => {
      try {
        const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
        const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
        const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
        return { pid, parent, command };
      } catch {
        return undefined; // it ended meanwhile
      }
    }),
  );
  return entries.filter((entry) => entry !== undefined);
}

/** The given processes and all that descend from them. */
export function withDescendants(all: readonly ProcessEntry[], roots: readonly number[]): number[] {
  const found = new Set(roots);
  for (let grew = true; grew; ) {
    grew = false;
    for (const { pid, parent } of all) {
      if (found.has(parent) && !found.has(pid)) {
        found.add(pid);
        grew = true;
      }
    }
  }
  return [...found];
}

export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

const runs = async (pid: number): Promise<boolean> => {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  return stat !== undefined && stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'Z';
};

/** Resolves with whether all of them ended within the time. */
export async function waitForEnd(pids: readonly number[], timeoutMs: number): Promise<boolean> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    const left = await Promise.all(pids.map(runs));
    if (!left.includes(true)) return true;
    if (performance.now() > until) return false;
    await sleep(20);
  }
}
