// The kernel's table of mounts as this process sees it: what is mounted is asked of it and never remembered.
import { readFile } from 'node:fs/promises';

export interface MountEntry {
  readonly id: number;
  readonly parentId: number;
  /** `major:minor` of the device. */
  readonly device: string;
  /** The folder within its file system that is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly options: readonly string[];
  readonly fsType: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

const unescapeOctal = (text: string): string =>
  text.includes('\\')
    ? Buffer.from(
        text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
        'latin1',
      ).toString('utf8')
    : text;

/** Parses `/proc/PID/mountinfo` (proc(5)), given as latin1 text so that any byte survives. Lines that make no sense are left out. */
export function parseMountInfo(text: string): MountEntry[] {
  return text.split('\n').flatMap((line) => {
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6);
    const [id, parentId, device, root, mountPoint, options] = fields;
    if (dash < 0 || options === undefined) return [];
    const [fsType = '', source = '', superOptions = ''] = fields.slice(dash + 1);
    return [
      {
        id: Number(id),
        parentId: Number(parentId),
        device: device!,
        root: decode(root!),
        mountPoint: decode(mountPoint!),
        options: options.split(','),
        fsType,
        source: decode(source),
        superOptions: superOptions.split(','),
      },
    ];
  });
}

// Names of bytes above 127 are not escaped by the kernel: they are utf8 as a rule.
const decode = (field: string): string =>
  field.includes('\\') ? unescapeOctal(field) : Buffer.from(field, 'latin1').toString('utf8');

export interface MountTable {
  readonly entries: readonly MountEntry[];
  /** What is mounted on top at exactly this path. */
  at(path: string): MountEntry | undefined;
  /** Mounts at or below the path, deepest first, the last mounted before those it covers. */
  under(path: string): readonly MountEntry[];
  /** The mount that a path lies on. */
  holding(path: string): MountEntry | undefined;
}

export function mountTable(entries: readonly MountEntry[]): MountTable {
  const inside = (entry: MountEntry, path: string): boolean =>
    entry.mountPoint === path || entry.mountPoint.startsWith(path === '/' ? '/' : `${path}/`);
  return {
    entries,
    at: (path) => entries.findLast((entry) => entry.mountPoint === path),
    under: (path) =>
      entries
        .filter((entry) => inside(entry, path))
        .toReversed()
        .sort((a, b) => b.mountPoint.split('/').length - a.mountPoint.split('/').length),
    holding: (path) => {
      let best: MountEntry | undefined;
      for (const entry of entries) {
        const holds = entry.mountPoint === '/' || path === entry.mountPoint || path.startsWith(`${entry.mountPoint}/`);
        if (holds && (!best || entry.mountPoint.length >= best.mountPoint.length)) best = entry;
      }
      return best;
    },
  };
}

const escapeOctal = (path: string): string =>
  Buffer.from(path, 'utf8')
    .toString('latin1')
    .replace(/[ \t\n\\]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`);

/** The table of a text, of which only the lines are parsed that a question is about: there may be a thousand, and most questions are about one path. */
export function mountTableOf(text: string): MountTable {
  let whole: MountTable | undefined;
  const all = (): MountTable => {
    whole ??= mountTable(parseMountInfo(text));
    return whole;
  };
  const about = (path: string, endings: readonly string[]): MountTable => {
    const needles = endings.map((ending) => ` ${escapeOctal(path)}${ending}`);
    const lines = new Set<number>();
    for (const needle of needles)
      for (let at = text.indexOf(needle); at >= 0; at = text.indexOf(needle, at + 1))
        lines.add(text.lastIndexOf('\n', at) + 1);
    const found = [...lines]
      .sort((a, b) => a - b)
      .map((from) => text.slice(from, (text.indexOf('\n', from) + 1 || text.length + 1) - 1));
    return mountTable(parseMountInfo(found.join('\n')));
  };
  return {
    get entries() {
      return all().entries;
    },
    at: (path) => about(path, [' ']).at(path),
    under: (path) => (path === '/' ? all() : about(path, [' ', '/'])).under(path),
    holding: (path) => all().holding(path),
  };
}

/** The table as it is now. Reading it never waits for a file system, but it does wait for its turn with every mount made on this host. */
export async function readMountTable(): Promise<MountTable> {
  return mountTableOf(await readFile('/proc/self/mountinfo', 'latin1'));
}

/**
 * Reads one table for all who ask at a time, begun after they asked. The kernel hands the table out in pages and takes a lock for each: many
 * readers side by side, on a host where many containers start, held up one another, and the threads of all other files, for seconds.
 */
export function sharedTableReader(read: () => Promise<MountTable> = readMountTable): () => Promise<MountTable> {
  let running: Promise<MountTable> | undefined;
  let next: Promise<MountTable> | undefined;
  const start = (): Promise<MountTable> => {
    next = undefined;
    const mine = read().finally(() => {
      if (running === mine) running = undefined;
    });
    running = mine;
    return mine;
  };
  return () => {
    if (!running) return start();
    next ??= running.then(start, start);
    return next;
  };
}
