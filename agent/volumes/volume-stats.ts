// How full the volumes of a pod are. File systems are asked; only what shares one with others is walked, by a child process, once a minute.
import { statfs } from 'node:fs/promises';
import { type DiskUsage, diskUsage } from '../../lib/disk-usage.ts';
import { runOnPath } from './path-probe.ts';
import type { VolumeStats } from './door.ts';
import type { DriverStats, MountedVolume, VolumeHost } from './volume-driver.ts';

const lifeMs = 60_000;
// A dead server must not hold up the figures of everything else.
const patienceMs = 2_000;

export interface VolumeStatsReader {
  of(uid: string, volumes: ReadonlyMap<string, MountedVolume>): Promise<readonly VolumeStats[]>;
  forget(uid: string): void;
}

/**
 * Measurements are kept a minute for each pod. A file system or a driver that does not answer within two seconds is shown as it was last, or left
 * out; what it says later is shown from then on.
 */
export function createVolumeStats(host: Pick<VolumeHost, 'clock' | 'csi' | 'log'>): VolumeStatsReader {
  const cache = new Map<string, { atMs: number; names: string; stats: Promise<readonly VolumeStats[]> }>();

  // What answered last, by the pod's uid and the volume's name.
  const last = new Map<string, Map<string, VolumeStats>>();

  const measure = async (uid: string, volumes: ReadonlyMap<string, MountedVolume>): Promise<readonly VolumeStats[]> => {
    const time = new Date(host.clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
    const walked = [...volumes].filter(([, volume]) => volume.measure === 'walk');
    const used = await walk(walked.map(([, volume]) => volume.path!));
    const all = await Promise.all(
      [...volumes].map(async ([name, volume]): Promise<VolumeStats | undefined> => {
        const answer = measureOne(volume, used)
          .then((found) => {
            if (!found) return undefined;
            const { abnormal, ...sizes } = found;
            const stats: VolumeStats = {
              name,
              time,
              ...(volume.claim ? { pvcRef: volume.claim } : {}),
              ...sizes,
              ...(abnormal === undefined ? {} : { volumeHealthStats: { abnormal } }),
            };
            last.get(uid)?.set(name, stats);
            return stats;
          })
          .catch((error: unknown) => {
            host.log.debug('a volume could not be measured; it is left out of the statistics', { volume: name, error });
            return undefined;
          });
        // What is walked, and memory, lies on this node and answers.
        if (volume.measure !== 'statfs' && volume.measure !== 'driver') return await answer;
        return await inTime(answer, () => {
          // A late answer is asked for again, and then is there.
          void answer.then((stats) => stats && cache.delete(uid));
          return last.get(uid)?.get(name);
        });
      }),
    );
    return all.filter((each) => each !== undefined);
  };

  const inTime = async <T>(answer: Promise<T>, otherwise: () => T | undefined): Promise<T | undefined> => {
    const patience = Promise.withResolvers<T | undefined>();
    const timer = host.clock.setTimer(patienceMs, () => patience.resolve(otherwise()));
    try {
      return await Promise.race([answer, patience.promise]);
    } finally {
      timer.cancel();
    }
  };

  const measureOne = async (
    volume: MountedVolume,
    used: ReadonlyMap<string, DiskUsage>,
  ): Promise<DriverStats | undefined> => {
    if (volume.measure === 'driver') return await host.csi.stats(volume);
    if (volume.path === undefined || volume.measure === undefined) return undefined;
    // A walked volume lies on the node's own disk, which answers, as memory does; others may be dead.
    const mayHang = volume.measure === 'statfs';
    const system = mayHang ? await otherFileSystem(volume.path) : await ownFileSystem(volume.path);
    return { ...system, ...used.get(volume.path) };
  };

  return {
    of(uid, volumes) {
      const names = [...volumes.keys()].join();
      const known = cache.get(uid);
      if (known && known.names === names && host.clock.now() - known.atMs < lifeMs) return known.stats;
      if (!last.has(uid)) last.set(uid, new Map());
      const stats = measure(uid, volumes);
      cache.set(uid, { atMs: host.clock.now(), names, stats });
      return stats;
    },
    forget(uid) {
      cache.delete(uid);
      last.delete(uid);
    },
  };
}

async function ownFileSystem(path: string): Promise<DriverStats> {
  const { bsize, blocks, bfree, bavail, files, ffree } = await statfs(path);
  return sizes(bsize, blocks, bfree, bavail, files, ffree);
}

/** Asked by a child process: the path may lie on a server that does not answer. Rejects after ten seconds. */
export async function otherFileSystem(path: string): Promise<DriverStats> {
  const text = await runOnPath('stat', ['--file-system', '--format=%S %b %f %a %c %d', '--', path]);
  const [size = 0, blocks = 0, free = 0, available = 0, files = 0, filesFree = 0] = text.trim().split(' ').map(Number);
  return sizes(size, blocks, free, available, files, filesFree);
}

const sizes = (
  size: number,
  blocks: number,
  free: number,
  available: number,
  files: number,
  filesFree: number,
): DriverStats => ({
  capacityBytes: size * blocks,
  availableBytes: size * available,
  usedBytes: size * (blocks - free),
  inodes: files,
  inodesFree: filesFree,
  inodesUsed: files - filesFree,
});

/** Empty where there is too much to walk in time: the file system's own figures stand then. */
const walk = (paths: readonly string[]): Promise<ReadonlyMap<string, DiskUsage>> =>
  diskUsage(paths, runOnPath).catch(() => new Map());
