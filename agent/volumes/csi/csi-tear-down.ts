// Takes CSI volumes down by what is noted on disk, in the order that drivers need: unpublish, then, for the last pod, unstage.
import { lstat, rmdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { unmountHidden } from '../hidden-mounts.ts';
import { childrenOf, removeEmptyFolder, removeIfEmpty, removeLink, unmountUnder } from '../remove-tree.ts';
import type { FoundVolume, VolumeHost } from '../volume-driver.ts';
import { type CsiState, isMounted } from './csi-state.ts';
import { loadVolData, removeVolData, uniqueVolumeName, type VolData } from './vol-data.ts';

export async function tearDownMount(state: CsiState, found: FoundVolume): Promise<void> {
  const { host } = state;
  const target = join(found.path, 'mount');
  const data = await loadVolData(found.path);
  if (!data) {
    // Nothing was published without its note; what is mounted without one is somebody's mistake, and only the mount goes.
    await unmountUnder(host.mounter, target, found.signal);
    await removeEmptyFolder(target);
    await removeVolData(found.path);
    await removeEmptyFolder(found.path);
    return;
  }
  const unique = uniqueVolumeName(data.driverName, data.volumeHandle);
  await state.inTurn(unique, async () => {
    await unpublish(state, data, target, found.uid, found.signal);
    await removeEmptyFolder(target);
    if (data.volumeLifecycleMode !== 'Ephemeral') {
      if (!(await usedElsewhere(host, data, found.path))) {
        const staging = host.paths.csiStaging(data.driverName, data.volumeHandle);
        await unstage(state, data, staging, found.uid, found.signal);
        await removeVolData(dirname(staging));
        await removeIfEmpty(dirname(staging));
      }
      state.letGo(found.uid, unique);
    }
    await host.faultPoint('csi-before-note-removed');
    await removeVolData(found.path);
    await removeEmptyFolder(found.path);
  });
}

export async function tearDownBlock(state: CsiState, found: FoundVolume): Promise<void> {
  const { host } = state;
  const root = join(host.paths.csi, 'volumeDevices');
  const specName = basename(found.path);
  const data = await loadVolData(join(root, specName, 'data'));
  if (!data) return await removeLink(found.path);
  const unique = uniqueVolumeName(data.driverName, data.volumeHandle);
  await state.inTurn(unique, async () => {
    const target = join(root, 'publish', specName, found.uid);
    await unpublish(state, data, target, found.uid, found.signal);
    await removeIfEmpty(join(root, 'publish', specName));
    const others = await childrenOf(join(root, 'publish', specName));
    if (others.length === 0) {
      const staging = join(root, 'staging', specName);
      await unstage(state, data, staging, found.uid, found.signal);
      await removeVolData(join(root, specName, 'data'));
      await rmdir(join(root, specName, 'data'));
      await removeIfEmpty(join(root, specName, 'dev'));
      await removeIfEmpty(join(root, specName));
    }
    state.letGo(found.uid, unique);
    await removeLink(found.path);
  });
}

// A driver unmounts what it sees, and removes the folder. A hidden mount there is none of what it sees, and keeps it from the removal: that one is
// taken off before the call, or after it where another mount at the same path is the driver's to take off first.
const uncovered = async (
  host: VolumeHost,
  path: string,
  signal: AbortSignal,
  call: () => Promise<void>,
): Promise<void> => {
  const takeOff = async (): Promise<void> => {
    const table = await host.mounter.table();
    if (table.hidden(path).length > 0 && !table.at(path)) await unmountHidden(host.mounter, path, signal);
  };
  await takeOff();
  try {
    await call();
  } catch (error) {
    // The next try may find nothing in its way.
    await takeOff().catch(() => undefined);
    throw error;
  }
  await takeOff();
};

const unstage = async (
  state: CsiState,
  data: VolData,
  staging: string,
  waiter: string,
  signal: AbortSignal,
): Promise<void> => {
  const { host, drivers, staged } = state;
  const client = drivers.client(data.driverName, waiter);
  const there = await lstat(staging).then(
    () => true,
    () => false,
  );
  if (!there) return;
  const { stageUnstage } = await client.capabilities(signal);
  staged.delete(staging);
  if (stageUnstage)
    await uncovered(host, staging, signal, () =>
      client.unstage({ handle: data.volumeHandle, stagingPath: staging }, signal),
    );
  await host.faultPoint('csi-unstaged');
  if (await isMounted(host, staging)) throw new Error(`${staging} is still mounted after NodeUnstageVolume`);
  await removeEmptyFolder(staging);
};

const unpublish = async (
  state: CsiState,
  data: VolData,
  target: string,
  waiter: string,
  signal: AbortSignal,
): Promise<void> => {
  const { host, drivers } = state;
  const client = drivers.client(data.driverName, waiter);
  await uncovered(host, target, signal, () =>
    client.unpublish({ handle: data.volumeHandle, targetPath: target }, signal),
  );
  await host.faultPoint('csi-unpublished');
  // Drivers should remove their target; some do not.
  if (await isMounted(host, target)) throw new Error(`${target} is still mounted after NodeUnpublishVolume`);
};

/** Folders of other pods, and devices, that note the same volume. */
const usedElsewhere = async (host: VolumeHost, data: VolData, except: string): Promise<boolean> => {
  for (const pod of await childrenOf(host.paths.pods))
    for (const { path } of await childrenOf(join(host.paths.volumes(pod.name), 'kubernetes.io~csi'))) {
      if (path === except) continue;
      const other = await loadVolData(path);
      if (other?.volumeHandle === data.volumeHandle && other.driverName === data.driverName) return true;
    }
  return false;
};
