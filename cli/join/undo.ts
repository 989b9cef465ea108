// Remembers what a join made, so that one that fails leaves the host as it was.
import { access, mkdir, readdir, readFile, readlink, rm, rmdir, stat, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { writeFileAtomic } from '../../lib/files.ts';

export interface Undo {
  /** Writes a file; `back` removes it again where it was not there before, else puts the old content back. */
  write(path: string, text: string, mode: number): Promise<void>;
  /** A file that something else is about to make. */
  note(path: string): Promise<void>;
  /** A folder that something else is about to put files into; `back` takes the new ones away, and the folder where it was not there. */
  folder(path: string): Promise<void>;
  /** Takes a link away that belongs to an earlier life of the host; `back` puts it back, or takes the new one away. */
  setAside(link: string): Promise<void>;
  /** Something else to be done on the way back. */
  push(step: () => Promise<void>): void;
  back(): Promise<void>;
}

export function createUndo(): Undo {
  const steps: (() => Promise<void>)[] = [];
  const there = (path: string): Promise<boolean> =>
    access(path).then(
      () => true,
      () => false,
    );
  /** Folders above a path that are not there yet: they go again, where nothing else is in them then. */
  const missingAbove = async (path: string): Promise<void> => {
    const missing: string[] = [];
    for (let folder = dirname(path); !(await there(folder)); folder = dirname(folder)) missing.push(folder);
    steps.push(async () => {
      for (const folder of missing) await rmdir(folder);
    });
  };
  const note = async (path: string): Promise<void> => {
    await missingAbove(path);
    if (await there(path)) {
      const [old, { mode }] = await Promise.all([readFile(path), stat(path)]);
      steps.push(() => writeFileAtomic(path, old, mode & 0o777));
    } else steps.push(() => rm(path, { force: true, recursive: true }));
  };
  return {
    note,
    async folder(path) {
      await missingAbove(path);
      const before = await readdir(path).catch(() => undefined);
      steps.push(async () => {
        if (before === undefined) return rm(path, { recursive: true, force: true });
        for (const name of await readdir(path))
          if (!before.includes(name)) await rm(join(path, name), { recursive: true, force: true });
      });
    },
    async write(path, text, mode) {
      await note(path);
      await mkdir(dirname(path), { recursive: true });
      await writeFileAtomic(path, text, mode);
    },
    async setAside(link) {
      const target = await readlink(link).catch(() => undefined);
      await rm(link, { force: true });
      steps.push(async () => {
        await rm(link, { force: true });
        if (target !== undefined) await symlink(target, link);
      });
    },
    push: (step) => void steps.push(step),
    async back() {
      for (const step of steps.toReversed()) await step().catch(() => undefined);
      steps.length = 0;
    },
  };
}
