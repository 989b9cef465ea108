// How full file systems are: of the node, of the runtime's images, of containers, logs and volumes. Nothing walks a tree: the runtime knows
// its layers, statfs its file systems, and a container's log folder holds a handful of files.
import { readdir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import { createExpiringCache } from '../../lib/expiring-cache.ts';
import type { Log } from '../../lib/log.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { FilesystemUsage } from '../../cri/types.ts';
import type { Pod } from '../../kube/types/pod.ts';

export interface FsUsage {
  readonly timeMs: number;
  readonly capacityBytes: number;
  readonly availableBytes: number;
  readonly usedBytes: number;
  readonly inodes: number;
  readonly inodesFree: number;
  readonly inodesUsed: number;
}

export interface VolumeUsage extends FsUsage {
  readonly name: string;
  readonly claim?: { readonly name: string; readonly namespace: string } | undefined;
  /** It counts against the pod's ephemeral storage. */
  readonly ephemeral: boolean;
  readonly abnormal?: boolean | undefined;
}

export interface FilesystemsDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly runtime: Pick<Runtime, 'imageFilesystem' | 'listContainerStats'>;
  /** Of the pod's volumes; asked once a minute at most. */
  volumes(pod: Pod): Promise<readonly VolumeUsage[]>;
}

export interface FilesystemsOptions {
  /** The agent's root folder, whose file system is the node's. */
  readonly rootFolder: string;
  /** `/var/log/pods`. */
  readonly podLogsFolder: string;
}

export interface LogUsage {
  readonly usedBytes: number;
  readonly inodesUsed: number;
}

export interface Filesystems {
  node(): Promise<FsUsage | undefined>;
  /** Of images and of containers; the two are often one. */
  images(): Promise<{ readonly image: FsUsage | undefined; readonly container: FsUsage | undefined }>;
  /** What containers wrote into their own layer, by container id. */
  writableLayers(): Promise<ReadonlyMap<string, FilesystemUsage>>;
  logs(pod: Pod, container: string): Promise<LogUsage>;
  volumes(pod: Pod): Promise<readonly VolumeUsage[]>;
  /** Forgets what is remembered of containers and volumes, so that it is asked anew: who fills a disk may have done so in a moment. */
  forget(): void;
}

const runtimeFreshMs = 10_000;
const volumesFreshMs = 60_000;

/** Undefined where the path is not there. A file system that hangs (a dead NFS server) costs a thread, so ask only for local paths. */
export async function fsUsage(path: string, nowMs: number): Promise<FsUsage | undefined> {
  try {
    const found = await statfs(path);
    return {
      timeMs: nowMs,
      capacityBytes: found.blocks * found.bsize,
      availableBytes: found.bavail * found.bsize,
      usedBytes: (found.blocks - found.bfree) * found.bsize,
      inodes: found.files,
      inodesFree: found.ffree,
      inodesUsed: found.files - found.ffree,
    };
  } catch {
    return undefined;
  }
}

export function createFilesystems(deps: FilesystemsDeps, options: FilesystemsOptions): Filesystems {
  const { clock, log, runtime } = deps;
  const shared = createExpiringCache<Promise<unknown>>(clock, 8);
  const volumes = createExpiringCache<Promise<readonly VolumeUsage[]>>(clock, 4096);

  const once = <T>(key: string, make: () => Promise<T>): Promise<T> => {
    const known = shared.get(key) as Promise<T> | undefined;
    if (known) return known;
    const made = make();
    shared.set(key, made, runtimeFreshMs);
    return made;
  };

  const ofRuntime = async (found: readonly FilesystemUsage[]): Promise<FsUsage | undefined> => {
    const [first] = found;
    const disk = first && (await fsUsage(first.mountpoint, clock.now()));
    return first && disk && { ...disk, usedBytes: first.usedBytes, inodesUsed: first.inodesUsed };
  };

  return {
    forget() {
      shared.clear();
      volumes.clear();
    },
    node: () => fsUsage(options.rootFolder, clock.now()),
    images: () =>
      once('images', async () => {
        try {
          const found = await runtime.imageFilesystem({ timeoutMs: 10_000 });
          const image = await ofRuntime(found.image);
          return { image, container: (await ofRuntime(found.container)) ?? image };
        } catch (error) {
          log.warn('cannot learn how full the image file system is', { error });
          return { image: undefined, container: undefined };
        }
      }),
    writableLayers: () =>
      once('layers', async () => {
        const layers = new Map<string, FilesystemUsage>();
        try {
          for (const stats of await runtime.listContainerStats({}, { timeoutMs: 10_000 }))
            if (stats.writableLayer) layers.set(stats.id, stats.writableLayer);
        } catch (error) {
          log.warn('cannot learn what containers wrote into their layers', { error });
        }
        return layers;
      }),
    async logs(pod, container) {
      const { namespace, name, uid } = pod.metadata;
      const folder = join(options.podLogsFolder, `${namespace}_${name}_${uid}`, container);
      let usedBytes = 0;
      let inodesUsed = 0;
      for (const file of await readdir(folder).catch(() => [])) {
        const found = await stat(join(folder, file)).catch(() => undefined);
        if (!found) continue;
        usedBytes += found.blocks * 512;
        inodesUsed++;
      }
      return { usedBytes, inodesUsed };
    },
    volumes(pod) {
      const uid = pod.metadata.uid ?? '';
      const known = volumes.get(uid);
      if (known) return known;
      const asked = deps.volumes(pod).catch((error: unknown) => {
        log.warn('cannot learn how full the volumes of a pod are', { pod: pod.metadata.name, error });
        return [];
      });
      volumes.set(uid, asked, volumesFreshMs);
      return asked;
    },
  };
}
