// Remembers what a join made, so that one that fails leaves the host as it was.
import { access, mkdir, readFile, readlink, rm, stat, symlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { writeFileAtomic } from '../../lib/files.ts';

export interface Undo {
  /** Writes a file; `back` removes it again where it was not there before, else puts the old content back. */
  write(path: string, text: string, mode: number): Promise<void>;
  /** A file that something else is about to make. */
  note(path: string): Promise<void>;
  /** Takes a link away that belongs to an earlier life of the host; `back` puts it back, or takes the new one away. */
  setAside(link: string): Promise<void>;
  /** Something else to be done on the way back. */
  push(step: () => Promise<void>): void;
  back(): Promise<void>;
}

export function createUndo(): Undo {
  const steps: (() => Promise<void>)[] = [];
  const note = async (path: string): Promise<void> => {
    const there = await access(path).then(
      () => true,
      () => false,
    );
    if (there) {
      const [old, { mode }] = await Promise.all([readFile(path), stat(path)]);
      steps.push(() => writeFileAtomic(path, old, mode & 0o777));
    } else steps.push(() => rm(path, { force: true, recursive: true }));
  };
  return {
    note,
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
