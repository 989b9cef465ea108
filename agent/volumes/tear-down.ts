// Takes the volumes of one pod down, by what is on disk and in the mount table: what set them up may have been another process, long ago.
import { join } from 'node:path';
import { describeError } from '../../lib/log.ts';
import { HiddenMountError, unmountHidden } from './hidden-mounts.ts';
import { escapePlugin, plugins, unescapePlugin } from './paths.ts';
import { releaseLocal } from './persistent.ts';
import {
  childrenOf,
  removeEmptyFolder,
  removeIfEmpty,
  removeLink,
  removeSmallTree,
  removeTree,
  unmountUnder,
} from './remove-tree.ts';
import { clearSubPaths } from './sub-path.ts';
import type { FoundVolume, VolumeHost } from './volume-driver.ts';
import { VolumeError } from './volume-error.ts';

type TearDownVolume = (host: VolumeHost, found: FoundVolume) => Promise<void>;

// Ours alone, with everything in it.
const tearDownOwned: TearDownVolume = async (host, { uid, plugin, name, path, signal }) => {
  // Mounts that a container left inside (bidirectional propagation) go first: their content is not ours.
  await unmountUnder(host.mounter, path, signal);
  await host.faultPoint('owned-unmounted');
  if (plugin === plugins.emptyDir) await removeTree(host.mounter, path, signal);
  else await removeSmallTree(host.mounter, path);
  await host.faultPoint('owned-removed');
  await removeSmallTree(host.mounter, host.paths.podPlugin(uid, plugin, name));
  await removeSmallTree(host.mounter, host.paths.podPlugin(uid, plugins.emptyDir, `wrapped_${name}`));
};

// Somebody else's data, mounted here: only the mount and the empty folder that bore it go.
const tearDownMounted: TearDownVolume = async (host, { path, signal }) => {
  await unmountUnder(host.mounter, path, signal);
  await host.faultPoint('mounted-unmounted');
  await removeEmptyFolder(path);
};

const owned = new Set<string>([
  plugins.emptyDir,
  plugins.configMap,
  plugins.secret,
  plugins.downwardApi,
  plugins.projected,
]);

const tearDownLocal: TearDownVolume = async (host, found) => {
  await tearDownMounted(host, found);
  await releaseLocal(host, found.name, found.signal);
};

const tearDownByKind: TearDownVolume = (host, found) => {
  if (found.plugin === plugins.csi) return host.csi.tearDown(found);
  if (found.plugin === plugins.local) return tearDownLocal(host, found);
  return (owned.has(found.plugin) ? tearDownOwned : tearDownMounted)(host, found);
};

const tearDownDevice: TearDownVolume = (host, found) =>
  found.plugin === plugins.csi ? host.csi.tearDownBlock(found) : removeLink(found.path);

/** Tells how long it took, for a metric; what was cancelled counts for nothing. */
const told =
  (operation: 'volume_unmount' | 'unmap_volume', tearDown: TearDownVolume): TearDownVolume =>
  async (host, found) => {
    const begunMs = host.clock.monotonicMs();
    const tell = (error: unknown): void =>
      host.operated?.(operation, found.plugin, host.clock.monotonicMs() - begunMs, error);
    try {
      await tearDown(host, found);
    } catch (error) {
      if (!found.signal.aborted) tell(error);
      throw error;
    }
    tell(undefined);
  };

const tearDownOne = told('volume_unmount', tearDownByKind);
const tearDownOneDevice = told('unmap_volume', tearDownDevice);

const busy = new Set(['EBUSY', 'ENOTEMPTY', 'EEXIST']);

// Whether only a hidden mount was in the way (hidden-mounts.ts). A driver that removes its own folders has no code for it but its words.
const isHeldByHidden = async (host: VolumeHost, path: string, error: unknown): Promise<boolean> => {
  if (error instanceof HiddenMountError) return true;
  const { code, message } = error as NodeJS.ErrnoException;
  if (!busy.has(code ?? '') && !/resource busy/i.test(message)) return false;
  return (await host.mounter.table()).hidden(path).length > 0;
};

/**
 * Rejects with a VolumeError where something stays; all else is taken down nevertheless. What a hidden mount holds stays too, but is no failure:
 * it resolves with the reasons then.
 */
export async function tearDownPod(host: VolumeHost, uid: string, signal: AbortSignal): Promise<readonly string[]> {
  const { paths } = host;
  const failures: VolumeError[] = [];
  const held: string[] = [];
  const attempt = async (volume: string, path: string, verb: string, work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (await isHeldByHidden(host, path, error)) {
        held.push(describeError(error));
        return;
      }
      const why = error instanceof Error ? error.message : String(error);
      failures.push(
        new VolumeError('FailedUnmount', volume, `${verb} failed for volume "${volume}" : ${why}`, false, error),
      );
    }
  };

  const subPaths = paths.subPaths(uid);
  await attempt('', subPaths, 'UnmountVolume.CleanSubPaths', () => clearSubPaths(host.mounter, subPaths, signal));
  await host.faultPoint('sub-paths-cleared');

  const found = await foundVolumes(host, uid, signal);
  await Promise.all(
    found.volumes.map((each) => attempt(each.name, each.path, 'UnmountVolume.TearDown', () => tearDownOne(host, each))),
  );
  await Promise.all(
    found.devices.map((each) =>
      attempt(each.name, each.path, 'UnmapVolume.UnmapPodDevice', () => tearDownOneDevice(host, each)),
    ),
  );
  await host.faultPoint('volumes-torn-down');
  // What is hidden where no volume was found, once nobody else has to take anything off first.
  const folder = paths.pod(uid);
  if (failures.length === 0 && held.length === 0)
    await attempt('', folder, 'UnmountVolume.Cleanup', () => unmountHidden(host.mounter, folder, signal));
  await attempt('', folder, 'UnmountVolume.Cleanup', () => removeFrame(host, uid));
  if (failures.length > 0) throw failures[0]!;
  return held;
}

async function foundVolumes(host: VolumeHost, uid: string, signal: AbortSignal) {
  const list = async (root: string): Promise<FoundVolume[]> => {
    const all: FoundVolume[] = [];
    for (const folder of await childrenOf(root))
      for (const { name, path } of await childrenOf(folder.path))
        all.push({ uid, plugin: unescapePlugin(folder.name), name, path, signal });
    return all;
  };
  const { paths } = host;
  return { volumes: await list(paths.volumes(uid)), devices: await list(paths.volumeDevices(uid)) };
}

/** The folders that held the volumes, where they are empty; the pod's own folder goes with the last thing in it. */
async function removeFrame(host: VolumeHost, uid: string): Promise<void> {
  const { paths } = host;
  for (const root of [paths.volumes(uid), paths.volumeDevices(uid)]) {
    for (const { path } of await childrenOf(root)) await removeIfEmpty(path);
    await removeIfEmpty(root);
  }
  await removeSmallTree(host.mounter, join(paths.podPlugins(uid), escapePlugin(plugins.emptyDir)));
  for (const { path } of await childrenOf(paths.podPlugins(uid))) await removeIfEmpty(path);
  await removeIfEmpty(paths.podPlugins(uid));
  await removeIfEmpty(paths.pod(uid));
}
