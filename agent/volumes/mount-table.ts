// The kernel's table of mounts as this process sees it: what is mounted is asked of it and never remembered.
//
// A mount whose path leads into another mount now is hidden: somebody mounted over a folder above it, as a kubelet does that binds its root
// directory on itself. It is in the table and holds its file system and the folder it is mounted on, but nothing reaches it by path. Which mount
// a path leads to is told by the parents, as the kernel walks; the order of the lines is that of making, and mounts move.
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
  /** What is mounted below it reaches other mounts of its group, in other namespaces too. */
  readonly shared: boolean;
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
        shared: fields.slice(6, dash).some((field) => field.startsWith('shared:')),
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
  /** What is mounted on top at exactly this path; nothing hidden. */
  at(path: string): MountEntry | undefined;
  /** Mounts at or below the path that are reached by it, deepest first, the last mounted before those it covers. */
  under(path: string): readonly MountEntry[];
  /** Mounts at or below the path that another mount hides, those nearest to it first. */
  hidden(path: string): readonly MountEntry[];
  /** The mounts that a path leads through, from the root's on; the last is the one it lies on. */
  through(path: string): readonly MountEntry[];
  /** The mount that a path lies on. */
  holding(path: string): MountEntry | undefined;
}

const depthOf = (entry: MountEntry): number => entry.mountPoint.split('/').length;
const isInside = (mountPoint: string, path: string): boolean =>
  mountPoint === path || mountPoint.startsWith(path === '/' ? '/' : `${path}/`);
/** `/`, `/a` and `/a/b` of `/a/b`. */
const prefixesOf = (path: string): string[] => {
  const names = path.split('/').filter((name) => name !== '');
  return ['/', ...names.map((_, at) => `/${names.slice(0, at + 1).join('/')}`)];
};

export function mountTable(entries: readonly MountEntry[]): MountTable {
  // By the mount that each is mounted on and the path. What bears a root, or is not in the table, is outside: paths begin there.
  let children: Map<string, MountEntry> | undefined;
  const outside = -1;
  const keyOf = (parentId: number, path: string): string => `${parentId} ${path}`;
  const byParent = (): Map<string, MountEntry> => {
    const inner = new Set(entries.filter(({ mountPoint }) => mountPoint !== '/').map(({ id }) => id));
    return new Map(
      entries.map((entry) => [keyOf(inner.has(entry.parentId) ? entry.parentId : outside, entry.mountPoint), entry]),
    );
  };
  const through = (path: string): MountEntry[] => {
    children ??= byParent();
    const root = entries.findLast(({ mountPoint }) => mountPoint === '/');
    const passed = root ? [root] : [];
    let on = outside;
    for (const prefix of prefixesOf(path).slice(1)) {
      let next = children.get(keyOf(on, prefix));
      // No kernel writes a table that leads in a circle.
      while (next && passed.length <= entries.length) {
        passed.push(next);
        on = next.id;
        next = children.get(keyOf(on, prefix));
      }
    }
    return passed;
  };
  const reached = (entry: MountEntry): boolean =>
    entry.mountPoint === '/' || through(entry.mountPoint).some(({ id }) => id === entry.id);
  const inside = (path: string): MountEntry[] => entries.filter(({ mountPoint }) => isInside(mountPoint, path));
  // Of those at one path the one on top is the last that is led through.
  const rank = (entry: MountEntry): number => through(entry.mountPoint).findIndex(({ id }) => id === entry.id);
  return {
    entries,
    at: (path) => {
      const last = through(path).at(-1);
      return last?.mountPoint === path ? last : undefined;
    },
    under: (path) =>
      inside(path)
        .filter(reached)
        .toReversed()
        .sort((a, b) => depthOf(b) - depthOf(a) || (a.mountPoint === b.mountPoint ? rank(b) - rank(a) : 0)),
    hidden: (path) =>
      inside(path)
        .filter((entry) => !reached(entry))
        .sort((a, b) => depthOf(a) - depthOf(b)),
    through,
    holding: (path) => through(path).at(-1),
  };
}

/** The ids of a mount and of all that is mounted on it, at any depth: what goes with it. */
export function idsWith(table: MountTable, top: MountEntry): Set<number> {
  const ids = new Set([top.id]);
  for (let before = 0; before !== ids.size; ) {
    before = ids.size;
    for (const { id, parentId } of table.entries) if (ids.has(parentId)) ids.add(id);
  }
  return ids;
}

/** The table as `umount --lazy` of that mount leaves it. */
export function without(table: MountTable, gone: MountEntry): MountTable {
  const ids = idsWith(table, gone);
  return mountTable(table.entries.filter(({ id }) => !ids.has(id)));
}

/** The folder within its file system that a path on the mount is. */
export function rootOf(mount: MountEntry, path: string): string {
  const below = mount.mountPoint === '/' ? path : path.slice(mount.mountPoint.length);
  if (below === '' || below === '/') return mount.root;
  return mount.root === '/' ? below : `${mount.root}${below}`;
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
  // Where the lines of each mount point begin: one walk over the text, for it is asked about every folder above a path.
  let starts: Map<string, number[]> | undefined;
  const startsOf = (): Map<string, number[]> => {
    const found = new Map<string, number[]>();
    for (let from = 0; from < text.length; from = text.indexOf('\n', from) + 1 || text.length) {
      let field = from;
      for (let passed = 0; passed < 4; passed++) field = text.indexOf(' ', field) + 1;
      const point = text.slice(field, text.indexOf(' ', field));
      const known = found.get(point);
      if (known) known.push(from);
      else found.set(point, [from]);
    }
    return found;
  };
  const linesAt = (path: string): readonly number[] => {
    starts ??= startsOf();
    return starts.get(escapeOctal(path)) ?? [];
  };
  const linesBelow = (path: string): number[] => {
    const needle = ` ${escapeOctal(path)}/`;
    const lines: number[] = [];
    for (let at = text.indexOf(needle); at >= 0; at = text.indexOf(needle, at + 1))
      lines.push(text.lastIndexOf('\n', at) + 1);
    return lines;
  };
  const linesAbove = (path: string): number[] =>
    prefixesOf(path)
      .slice(1, -1)
      .flatMap((prefix) => linesAt(prefix));
  const about = (path: string, own: readonly number[]): MountTable => {
    const lines = new Set(own.length > 0 ? [...own, ...linesAbove(path)] : []);
    const found = [...lines]
      .sort((a, b) => a - b)
      .map((from) => text.slice(from, (text.indexOf('\n', from) + 1 || text.length + 1) - 1));
    return mountTable(parseMountInfo(found.join('\n')));
  };
  const below = (path: string): MountTable =>
    path === '/' ? all() : about(path, [...linesAt(path), ...linesBelow(path)]);
  return {
    get entries() {
      return all().entries;
    },
    at: (path) => (path === '/' ? all() : about(path, linesAt(path))).at(path),
    under: (path) => below(path).under(path),
    hidden: (path) => below(path).hidden(path),
    through: (path) => all().through(path),
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
