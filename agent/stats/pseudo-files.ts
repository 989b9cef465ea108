// Reads the small files of /proc and /sys/fs/cgroup. The kernel makes their content as they are read: there is no disk to wait for, and a
// synchronous read costs a tenth of an asynchronous one. Callers yield between slices.
import { closeSync, openSync, readSync } from 'node:fs';

const buffer = Buffer.allocUnsafe(256 * 1024);

/** The file's text, cut at 256 KiB; undefined where it cannot be read. */
export function readPseudoFile(path: string): string | undefined {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch {
    return undefined;
  }
  try {
    let length = 0;
    while (length < buffer.length) {
      const read = readSync(file, buffer, length, buffer.length - length, null);
      if (read === 0) break;
      length += read;
    }
    return buffer.toString('latin1', 0, length);
  } catch {
    return undefined;
  } finally {
    closeSync(file);
  }
}

/** A file that holds one number. `max`, and what the kernel writes for no limit, is undefined. */
export function readNumber(path: string): number | undefined {
  const text = readPseudoFile(path);
  if (text === undefined) return undefined;
  const value = Number.parseInt(text, 10);
  return Number.isNaN(value) || value >= 2 ** 60 ? undefined : value;
}

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
