// The root directory as a shared mount. What a container mounts in a volume with Bidirectional propagation, as CSI drivers do, has to reach this
// host, and what is mounted here such a container: both need a shared mount. systemd makes `/` one. Where nobody did, the kubelet binds its root
// directory on itself and makes that mount shared; so does this.
//
// The kubelet binds whatever is mounted below, and by that hides it. It has its bind from its first start on, when there is nothing yet; here there
// may be pods, of a version that made no such mount. Copying their mounts with a recursive bind would leave the originals below, where they hold
// devices and memory that nobody can let go of any more. So what is mounted below is moved:
//
//   bind rootDir on rootDir/.shared ─▶ move each mount there ─▶ note the mount as ours ─▶ move .shared on rootDir ─▶ make it shared
//
// Containers that run do not notice: they have mounts of their own. What was ended half-way is gone on with at the next start.
import { mkdir, readFile, realpath, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfThere, writeFileAtomic } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import type { Mounter } from './mounter.ts';
import { type MountEntry, type MountTable, rootOf } from './mount-table.ts';

export interface SharedRootDeps {
  readonly mounter: Mounter;
  readonly log: Log;
  /** Another one after every boot. Default: the kernel's. */
  bootId?(): Promise<string>;
}

export type SharedRootPlan =
  /** It is on a shared mount; nothing to do. */
  | { readonly kind: 'shared' }
  /** Ours is there, and only not shared yet. */
  | { readonly kind: 'share' }
  /** Made from here on. `begun`: the new mount is at `.shared` already. `below`: what is moved, the mounts nearest to the root directory. */
  | { readonly kind: 'make'; readonly begun: boolean; readonly below: readonly string[] }
  /** Begun, but the mount below has become shared meanwhile. */
  | { readonly kind: 'undo' };

const stagingOf = (root: string): string => join(root, '.shared');
const noteOf = (root: string): string => join(root, 'shared-mount.json');

/** Mounts below a folder that are on none below it. */
function nearest(table: MountTable, folder: string): string[] {
  const below = table.under(folder).filter(({ mountPoint }) => mountPoint !== folder);
  const ids = new Set(below.map(({ id }) => id));
  return below.filter(({ parentId }) => !ids.has(parentId)).map(({ mountPoint }) => mountPoint);
}

/** `own`: whether the mount is the one that was noted. */
export function planSharedRoot(table: MountTable, root: string, own: (mount: MountEntry) => boolean): SharedRootPlan {
  const staging = stagingOf(root);
  const begun = table.at(staging) !== undefined;
  const holding = table.holding(root);
  if (!holding) throw new Error(`the table of mounts does not tell what ${root} is on`);
  if (holding.shared) return { kind: begun ? 'undo' : 'shared' };
  if (!begun && holding.mountPoint === root && own(holding)) return { kind: 'share' };
  return { kind: 'make', begun, below: nearest(table, root).filter((path) => path !== staging) };
}

interface Note {
  readonly bootId: string;
  readonly mountId: number;
}

const kernelBootId = async (): Promise<string> => (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();

/** Tells our mount from others at the same path: ids are given again after a mount is gone, so what is mounted has to fit too. */
async function ownership(deps: SharedRootDeps, root: string, table: MountTable) {
  const text = await readFileIfThere(noteOf(root));
  const { bootId, mountId } = parseNote(text);
  const sameBoot = bootId !== undefined && bootId === (await (deps.bootId ?? kernelBootId)());
  return (mount: MountEntry): boolean => {
    const below = table.through(root).at(-2);
    const onItself = below !== undefined && mount.device === below.device && mount.root === rootOf(below, root);
    return sameBoot && mount.id === mountId && onItself;
  };
}

function parseNote(text: string | undefined): Partial<Note> {
  try {
    const { bootId, mountId } = (JSON.parse(text ?? '{}') ?? {}) as Record<string, unknown>;
    return typeof bootId === 'string' && typeof mountId === 'number' ? { bootId, mountId } : {};
  } catch {
    // Torn by a full disk: the mount counts as somebody else's, and stays.
    return {};
  }
}

/**
 * Makes the root directory a shared mount where it is on none. A host that does not let it is told of in the log and otherwise served as it is;
 * rejects only when cancelled.
 */
export async function shareRoot(deps: SharedRootDeps, rootDir: string, signal: AbortSignal): Promise<void> {
  const { mounter, log } = deps;
  try {
    const root = await realpath(rootDir);
    const table = await mounter.table();
    const plan = planSharedRoot(table, root, await ownership(deps, root, table));
    if (plan.kind === 'shared') return;
    if (plan.kind === 'undo') {
      await takeBack(mounter, root, signal);
      return;
    }
    if (plan.kind === 'make') await make(deps, root, plan, signal);
    await mounter.share(root, signal);
    await rmdir(stagingOf(root)).catch(() => undefined);
    log.info('the root directory was on a mount that is not shared; it is a shared mount of its own now', {
      rootDir: root,
      ...(plan.kind === 'make' && plan.below.length > 0 ? { moved: plan.below.length } : {}),
    });
  } catch (error) {
    signal.throwIfAborted();
    log.warn(
      'the root directory is on a mount that is not shared, and could not be made one; pods run, but mounts do not pass between this host and containers with mountPropagation, CSI drivers among them. It is tried again at the next start',
      { rootDir, error },
    );
  }
}

async function make(
  deps: SharedRootDeps,
  root: string,
  { begun, below }: { readonly begun: boolean; readonly below: readonly string[] },
  signal: AbortSignal,
): Promise<void> {
  const { mounter } = deps;
  const staging = stagingOf(root);
  try {
    if (!begun) {
      await mkdir(staging, { recursive: true, mode: 0o700 });
      await mounter.bind(root, staging, {}, signal);
    }
    for (const path of below) await mounter.move(path, join(staging, path.slice(root.length)), signal);
    const mountId = (await mounter.table()).at(staging)?.id;
    if (mountId === undefined) throw new Error(`${staging} is not mounted any more`);
    const note: Note = { bootId: await (deps.bootId ?? kernelBootId)(), mountId };
    await writeFileAtomic(noteOf(root), `${JSON.stringify(note)}\n`, 0o600);
    await mounter.move(staging, root, signal);
  } catch (error) {
    // Not by the signal: an agent that is ended must not leave pods' mounts elsewhere.
    await takeBack(mounter, root, AbortSignal.timeout(60_000)).catch((again: unknown) =>
      deps.log.error('mounts of pods are left below the folder they were moved to; the next start goes on with them', {
        folder: staging,
        error: again,
      }),
    );
    throw error;
  }
}

/** Everything back to where it was. */
async function takeBack(mounter: Mounter, root: string, signal: AbortSignal): Promise<void> {
  const staging = stagingOf(root);
  const table = await mounter.table();
  if (table.at(staging)) {
    // As the one below, where somebody has made all mounts of this host shared.
    await mounter.keepPrivate(staging, signal);
    for (const path of nearest(table, staging))
      await mounter.move(path, join(root, path.slice(staging.length)), signal);
    await mounter.unmountIdle(staging, signal);
  }
  await rm(noteOf(root), { force: true });
  await rmdir(staging).catch(() => undefined);
}

/** Takes our mount off again, when nothing is mounted below it any more; one that somebody else made stays. Says whether it did. */
export async function unshareRoot(deps: SharedRootDeps, rootDir: string, signal: AbortSignal): Promise<boolean> {
  const root = await realpath(rootDir);
  const table = await deps.mounter.table();
  const mounted = table.at(root);
  if (!mounted || !(await ownership(deps, root, table))(mounted)) return false;
  const below = table.entries.find(({ parentId }) => parentId === mounted.id);
  if (below) throw new Error(`${root} is not unmounted: ${below.mountPoint} is still mounted below`);
  // A process that stands in it holds only a second view of the folder: that is no reason to leave it.
  await deps.mounter.unmount(root, signal);
  await rm(noteOf(root), { force: true });
  return true;
}
