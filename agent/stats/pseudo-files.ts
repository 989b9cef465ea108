// Reads the small files of /proc and /sys/fs/cgroup. The kernel makes their content as they are read: there is no disk to wait for, and a
// synchronous read costs a tenth of an asynchronous one. Callers yield between slices.
import { closeSync, existsSync, openSync, readSync } from 'node:fs';

const buffer = Buffer.allocUnsafe(256 * 1024);

/** The kernel hands out lists (of processes, of interfaces) a page at a time: a read of more than this much may have been cut short. */
const surelyWhole = 2048;

/** The file's text, cut at 256 KiB; throws as node:fs does. */
export function readPseudo(path: string): string {
  const file = openSync(path, 'r');
  try {
    let length = readSync(file, buffer, 0, buffer.length, null);
    if (length > surelyWhole)
      while (length < buffer.length) {
        const more = readSync(file, buffer, length, buffer.length - length, null);
        if (more === 0) break;
        length += more;
      }
    return buffer.toString('latin1', 0, length);
  } finally {
    closeSync(file);
  }
}

/** The file's text, cut at 256 KiB; undefined where it cannot be read. */
export function readPseudoFile(path: string): string | undefined {
  try {
    return readPseudo(path);
  } catch {
    return undefined;
  }
}

export interface PseudoFolder {
  readonly folder: string;
  /** As readPseudoFile, for a file that some kernels do not have: it is then not looked for again. */
  read(file: string): string | undefined;
}

/**
 * Remembers which files this kernel does not have: failing to open one costs twice what reading it would. `proofOf` names a file that is there
 * wherever the folder is one that could have the other.
 */
export function createPseudoFolders(proofOf: (file: string) => string): (folder: string) => PseudoFolder {
  const absent = new Set<string>();
  return (folder) => ({
    folder,
    read(file) {
      if (absent.has(file)) return undefined;
      try {
        return readPseudo(`${folder}/${file}`);
      } catch (error) {
        const missed = (error as NodeJS.ErrnoException).code === 'ENOENT';
        if (missed && existsSync(`${folder}/${proofOf(file)}`)) absent.add(file);
        return undefined;
      }
    },
  });
}

/** `max`, and what the kernel writes for no limit, is undefined. */
export function parseNumber(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number.parseInt(text, 10);
  return Number.isNaN(value) || value >= 2 ** 60 ? undefined : value;
}

/** A file that holds one number. */
export const readNumber = (path: string): number | undefined => parseNumber(readPseudoFile(path));

/** Lines of `key value`. */
export function parseKeyed(text: string | undefined): Record<string, number> {
  const values: Record<string, number> = {};
  for (const line of (text ?? '').split('\n')) {
    const at = line.indexOf(' ');
    if (at > 0) values[line.slice(0, at)] = Number(line.slice(at + 1));
  }
  return values;
}

/** Lets other work run when a slice of work took its share of the event loop. */
export function createSlicer(sliceMs = 4): { breathe(): Promise<void> | undefined } {
  let began = performance.now();
  return {
    breathe() {
      if (performance.now() - began < sliceMs) return undefined;
      return new Promise((resolve) =>
        setImmediate(() => {
          began = performance.now();
          resolve();
        }),
      );
    },
  };
}
