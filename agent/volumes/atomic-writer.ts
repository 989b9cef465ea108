// Writes the files of a configMap, secret, downwardAPI or projected volume so that a reader sees the old set or the new one, never a mix:
// the files live in a folder with a time in its name, `..data` points at it, and what users see are links through `..data`.
import { randomBytes } from 'node:crypto';
import {
  chmod,
  chown,
  lchown,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
} from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';

export interface PayloadFile {
  readonly data: Uint8Array;
  /** Permission bits, at most 0777. */
  readonly mode: number;
  /** Owner; undefined: root. */
  readonly uid?: number | undefined;
}

export type Payload = ReadonlyMap<string, PayloadFile>;

export interface WriteOptions {
  /** Group of everything; files become readable by it, folders pass it on. */
  readonly fsGroup?: number | undefined;
  readonly nowMs: number;
  /** A place where tests let the process die. */
  readonly faultPoint?: (name: string) => void | Promise<void>;
}

const dataLink = '..data';
const dataLinkNew = '..data_tmp';
const isTimed = (name: string): boolean => /^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\./.test(name);

/** Throws, in Kubernetes' words, where a path of a payload could leave its volume or hide. Returns it cleaned. */
export function cleanPayloadPath(path: string): string {
  if (path === '') throw new Error('invalid path: must not be empty: ""');
  if (path.startsWith('/')) throw new Error(`invalid path: must be relative path: ${path}`);
  if (path.length > 4096) throw new Error('invalid path: must be less than or equal to 4096 characters');
  const items = path.split('/');
  if (items.includes('..')) throw new Error(`invalid path: must not contain '..': ${path}`);
  if (items.some((item) => Buffer.byteLength(item) > 255))
    throw new Error('invalid path: filenames must be less than or equal to 255 characters');
  const clean = posix.normalize(path).replace(/\/+$/, '');
  // Cleaned first: './..data' would be the volume's own link.
  if (clean.startsWith('..')) throw new Error(`invalid path: must not start with '..': ${path}`);
  if (clean === '.' || clean === '') throw new Error(`invalid path: names no file: ${path}`);
  return clean;
}

/** Makes the volume at `dir` hold just this payload. Writes nothing where it does already. */
export async function writePayload(
  dir: string,
  payload: Payload,
  options: WriteOptions,
): Promise<'written' | 'unchanged'> {
  const files = new Map([...payload].map(([path, file]) => [cleanPayloadPath(path), file]));
  const current = await linkTarget(join(dir, dataLink));
  const before = current === undefined ? new Map<string, Uint8Array | undefined>() : await readTree(join(dir, current));
  const same = current !== undefined && (await unchanged(join(dir, current), before, files, options.fsGroup));
  const fault = options.faultPoint ?? (() => undefined);
  if (!same) {
    const timed = await makeTimedFolder(dir, options);
    await fault('payload-folder-made');
    await writeFiles(join(dir, timed), files, options.fsGroup);
    await fault('payload-files-written');
    await rm(join(dir, dataLinkNew), { force: true });
    await symlink(timed, join(dir, dataLinkNew));
    await fault('payload-link-made');
    await rename(join(dir, dataLinkNew), join(dir, dataLink));
    await fault('payload-swapped');
  }
  await showFiles(dir, files, options.fsGroup);
  await hideOldFiles(dir, files);
  await dropOldFolders(dir);
  return same ? 'unchanged' : 'written';
}

async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'EINVAL') return undefined;
    throw error;
  }
}

// Relative paths of files with their content; folders have none.
async function readTree(root: string): Promise<Map<string, Uint8Array | undefined>> {
  const found = new Map<string, Uint8Array | undefined>();
  try {
    for (const entry of await readdir(root, { withFileTypes: true, recursive: true })) {
      const path = join(entry.parentPath, entry.name);
      found.set(path.slice(root.length + 1), entry.isFile() ? await readFile(path) : undefined);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return found;
}

async function unchanged(
  folder: string,
  before: ReadonlyMap<string, Uint8Array | undefined>,
  files: Payload,
  fsGroup: number | undefined,
): Promise<boolean> {
  const old = [...before].filter(([, data]) => data !== undefined);
  if (old.length !== files.size || (old.length === 0 && before.size > 0)) return false;
  for (const [path, data] of old) {
    const file = files.get(path);
    if (!file || Buffer.compare(data!, file.data) !== 0) return false;
    // A volume that a crash left with other modes or owners is written anew.
    const found = await lstat(join(folder, path));
    if ((found.mode & 0o7777) !== fileMode(file, fsGroup)) return false;
    if ((file.uid !== undefined && found.uid !== file.uid) || (fsGroup !== undefined && found.gid !== fsGroup))
      return false;
  }
  try {
    await lstat(folder);
    return true;
  } catch {
    return false;
  }
}

async function makeTimedFolder(dir: string, options: WriteOptions): Promise<string> {
  const time = new Date(options.nowMs).toISOString().slice(0, 19).replace(/[-T:]/g, '_');
  const name = `..${time}.${randomBytes(5).readUIntBE(0, 5)}`;
  await makeFolder(join(dir, name), options.fsGroup);
  return name;
}

const fileMode = (file: PayloadFile, fsGroup: number | undefined): number =>
  fsGroup === undefined ? file.mode : file.mode | 0o440;

async function makeFolder(path: string, fsGroup: number | undefined): Promise<void> {
  await mkdir(path, { mode: 0o755 });
  if (fsGroup !== undefined) await chown(path, -1, fsGroup);
  await chmod(path, fsGroup === undefined ? 0o755 : 0o2755);
}

async function writeFiles(folder: string, files: Payload, fsGroup: number | undefined): Promise<void> {
  const made = new Set<string>(['.']);
  for (const [path, file] of files) {
    const parents: string[] = [];
    for (let parent = dirname(path); !made.has(parent); parent = dirname(parent)) parents.unshift(parent);
    for (const parent of parents) {
      await makeFolder(join(folder, parent), fsGroup);
      made.add(parent);
    }
    // Owner and group are set before the mode: not for an instant may anybody else read it.
    const handle = await open(join(folder, path), 'wx', 0o600);
    try {
      await handle.writeFile(file.data);
      if (file.uid !== undefined || fsGroup !== undefined) await handle.chown(file.uid ?? -1, fsGroup ?? -1);
      await handle.chmod(fileMode(file, fsGroup));
    } finally {
      await handle.close();
    }
  }
}

const topOf = (path: string): string => path.split('/')[0]!;

async function showFiles(dir: string, files: Payload, fsGroup: number | undefined): Promise<void> {
  for (const name of new Set([...files.keys()].map(topOf))) {
    const link = join(dir, name);
    if ((await linkTarget(link)) !== undefined) continue;
    await symlink(join(dataLink, name), link);
    if (fsGroup !== undefined) await lchown(link, -1, fsGroup);
  }
}

// Only links through ..data are ours; folders made for nested mounts stay.
async function hideOldFiles(dir: string, files: Payload): Promise<void> {
  const keep = new Set([...files.keys()].map(topOf));
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    if (!entry.isSymbolicLink() || keep.has(entry.name) || entry.name.startsWith(dataLink)) continue;
    const link = join(dir, entry.name);
    if ((await linkTarget(link)) === join(dataLink, entry.name)) await rm(link, { force: true });
  }
}

async function dropOldFolders(dir: string): Promise<void> {
  const current = await linkTarget(join(dir, dataLink));
  for (const name of await readdir(dir)) {
    if (isTimed(name) && name !== current) await rm(join(dir, name), { recursive: true, force: true });
  }
}
