// What a daemon left on this host: its mounts are taken off, its identity, configuration and root directory removed. Nothing is removed while
// anything is mounted below.
import { access, readdir, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { unmountHidden } from '../../agent/volumes/hidden-mounts.ts';
import type { MountEntry } from '../../agent/volumes/mount-table.ts';
import type { Mounter } from '../../agent/volumes/mounter.ts';
import { unshareRoot } from '../../agent/volumes/shared-root.ts';
import type { Log } from '../../lib/log.ts';

export interface NodeFilesDeps {
  readonly mounter: Mounter;
  readonly log: Log;
  say(text: string): void;
}

export interface NodeFilesOptions {
  readonly kubernetesDir: string;
  readonly configFile: string;
  readonly rootDir: string;
}

const below = (mounts: readonly MountEntry[], folder: string): string[] =>
  mounts.map(({ mountPoint }) => mountPoint).filter((path) => path !== folder);

/** Returns what is still mounted, as far as a path leads there. */
async function unmountBelow(mounter: Mounter, folder: string, signal: AbortSignal): Promise<string[]> {
  for (const path of below((await mounter.table()).under(folder), folder))
    await mounter.unmountIdle(path, signal).catch(() => undefined);
  return below((await mounter.table()).under(folder), folder);
}

/** The root directory's own mount goes too, where a daemon of ours made it. Returns what is still mounted, hidden or not. */
async function unmountAll(deps: NodeFilesDeps, folder: string, signal: AbortSignal): Promise<string[]> {
  const { mounter } = deps;
  let still = await unmountBelow(mounter, folder, signal);
  // What it hid is reached then.
  if (still.length === 0 && (await unshareRoot(deps, folder, signal)))
    still = await unmountBelow(mounter, folder, signal);
  // What is hidden may be mounted on what could not be unmounted, and that is not ours to remove a folder from.
  if (still.length === 0) await unmountHidden(mounter, folder, signal).catch(() => undefined);
  return [...still, ...below((await mounter.table()).hidden(folder), folder)];
}

export const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** Returns what is still mounted below the root directory; nothing is removed then. */
export async function removeNodeFiles(
  deps: NodeFilesDeps,
  options: NodeFilesOptions,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { kubernetesDir } = options;
  const rootDir = await realpath(options.rootDir).catch(() => undefined);
  const still = rootDir === undefined ? [] : await unmountAll(deps, rootDir, signal);
  if (still.length > 0) return still;
  for (const name of ['kubelet.conf', 'bootstrap-kubelet.conf']) await rm(join(kubernetesDir, name), { force: true });
  // With the CA's key beside it this is a control plane's, and not ours.
  if (!(await isThere(join(kubernetesDir, 'pki/ca.key')))) await rm(join(kubernetesDir, 'pki/ca.crt'), { force: true });
  await rm(options.configFile, { force: true });
  if (rootDir !== undefined && (await deps.mounter.table()).at(rootDir)) {
    for (const name of await readdir(rootDir)) await rm(join(rootDir, name), { recursive: true, force: true });
    deps.say(`  ${rootDir} is a mount that was not made here; it is empty, and stays\n`);
    return [];
  }
  await rm(options.rootDir, { recursive: true, force: true });
  return [];
}
