// The file systems of the machine, as cAdvisor lists them under its root: how full they are, and what their disks have done.
import { readFile } from 'node:fs/promises';
import type { Clock } from '../../lib/clock.ts';
import { mountTable, parseMountInfo } from '../volumes/mount-table.ts';
import { otherFileSystem } from '../volumes/volume-stats.ts';
import { type DiskCounters, parseDiskstats } from './block-devices.ts';
import { type FsUsage, fsUsage } from './filesystems.ts';
import { readPseudoFile } from './pseudo-files.ts';

export interface MachineFilesystem {
  /** The mount's source; of memory the mount point; of an overlay with its device number. */
  readonly device: string;
  /** MAJOR:MINOR. */
  readonly number: string;
  readonly mountPoint: string;
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly inodes: number;
  readonly inodesFree: number;
  /** Undefined where no disk is behind it. */
  readonly disk: DiskCounters | undefined;
}

export interface MachineFilesystems {
  /** Never rejects; what does not answer within two seconds is left out. */
  read(): Promise<readonly MachineFilesystem[]>;
}

export interface MachineFilesystemsOptions {
  readonly proc: string;
  /** The agent's root folder, under which the volumes of pods are mounted. */
  readonly rootFolder: string;
  /** For tests: how a file system is asked. */
  readonly ask?: { local(path: string): Promise<Sizes | undefined>; remote(path: string): Promise<Sizes | undefined> };
}

type Sizes = Pick<FsUsage, 'capacityBytes' | 'usedBytes' | 'inodes' | 'inodesFree'>;
type Mounted = Pick<MachineFilesystem, 'device' | 'number' | 'mountPoint'> & { readonly remote: boolean };

interface Asked {
  readonly atMs: number;
  /** Settles after two seconds at the latest, where it is undefined then. */
  readonly inTime: Promise<Sizes | undefined>;
  state: 'asked' | 'overdue' | 'answered';
}

const mountsFreshMs = 60_000;
const remoteFreshMs = 60_000;
const patienceMs = 2_000;

const onDisks =
  'ext[234]?|xfs|btrfs|zfs|squashfs|f2fs|jfs|reiserfs|hfs|hfsplus|ntfs|vfat|fat|msdos|exfat|udf|iso9660|tmpfs|overlay|nfs\\d?';
const listed = new RegExp(`^(?:${onDisks})$`);
/** Folders of one container or sandbox, and a pod's volumes, also where the agent's folder is a link to another. */
const ofOne = /\/[0-9a-f]{64}(?:\/|$)|\/pods\/[^/]+\/volumes\//;

/**
 * One for each device, the first mount of it: the others are binds. Left out is what comes and goes with pods: memory, overlays and network mounts
 * below the agent's folder or in a container's. (The kubelet shows those that were there when it began, for as long as it runs.)
 */
export function machineMounts(mountInfo: string, rootFolder: string): Mounted[] {
  const found = new Map<string, Mounted>();
  const table = mountTable(parseMountInfo(mountInfo));
  for (const entry of table.entries) {
    const { device: number, mountPoint, fsType, source } = entry;
    // What another mount covers or hides is not what its path leads to: asked for its size, that other one would answer.
    if (!listed.test(fsType) || table.at(mountPoint) !== entry) continue;
    const remote = fsType.startsWith('nfs');
    const mayBeOfPods = remote || fsType === 'tmpfs' || fsType === 'overlay';
    if (mayBeOfPods && (mountPoint.startsWith(`${rootFolder}/`) || ofOne.test(mountPoint))) continue;
    const device =
      fsType === 'tmpfs' ? mountPoint : fsType === 'overlay' ? `${source}_${number.replace(':', '-')}` : source;
    if (!found.has(device)) found.set(device, { device, number, mountPoint, remote });
  }
  return [...found.values()];
}

export function createMachineFilesystems(
  deps: { readonly clock: Clock },
  options: MachineFilesystemsOptions,
): MachineFilesystems {
  const { clock } = deps;
  const { proc, rootFolder } = options;
  const host = options.ask ?? { local: (path) => fsUsage(path, 0), remote: remoteUsage };
  let mounts: { readonly atMs: number; readonly list: Promise<readonly Mounted[]> } | undefined;
  const asked = new Map<string, Asked>();

  const mountsNow = (): Promise<readonly Mounted[]> => {
    if (mounts && clock.monotonicMs() - mounts.atMs < mountsFreshMs) return mounts.list;
    const list = readFile(`${proc}/self/mountinfo`, 'latin1').then((text) => machineMounts(text, rootFolder));
    mounts = { atMs: clock.monotonicMs(), list };
    list.catch(() => (mounts = undefined));
    return list;
  };

  const ask = ({ mountPoint, remote }: Mounted): Asked => {
    const answer = (remote ? host.remote(mountPoint) : host.local(mountPoint)).catch(() => undefined);
    const patience = Promise.withResolvers<undefined>();
    const one: Asked = {
      atMs: clock.monotonicMs(),
      inTime: Promise.race([answer, patience.promise]),
      state: 'asked',
    };
    const timer = clock.setTimer(patienceMs, () => {
      one.state = 'overdue';
      patience.resolve(undefined);
    });
    asked.set(mountPoint, one);
    void answer.then(() => {
      timer.cancel();
      // What came late was not waited for: who answers again is asked again.
      if (one.state === 'overdue' && asked.get(mountPoint) === one) asked.delete(mountPoint);
      one.state = 'answered';
    });
    return one;
  };

  /**
   * Who was waited for in vain is neither asked nor waited for again before it answers: what hangs holds up one page, and one thread or child
   * process at a time. Pages made at a time share an answer.
   */
  const sizesOf = async (mounted: Mounted): Promise<Sizes | undefined> => {
    const last = asked.get(mounted.mountPoint);
    if (last?.state === 'overdue') return undefined;
    const fresh = last && mounted.remote && clock.monotonicMs() - last.atMs < remoteFreshMs;
    return await (last && (last.state === 'asked' || fresh) ? last : ask(mounted)).inTime;
  };

  return {
    async read() {
      const list = await mountsNow().catch((): Mounted[] => []);
      const still = new Set(list.map((one) => one.mountPoint));
      for (const mountPoint of asked.keys()) if (!still.has(mountPoint)) asked.delete(mountPoint);
      const disks = parseDiskstats(readPseudoFile(`${proc}/diskstats`));
      const sizes = new Map<Mounted, Sizes | undefined>();
      const others = Promise.all(
        list.filter((one) => one.remote).map(async (one) => void sizes.set(one, await sizesOf(one))),
      );
      // One after the other: these answer at once, and others want the file threads too.
      for (const one of list) if (!one.remote) sizes.set(one, await sizesOf(one));
      await others;
      return list.flatMap((one) => {
        const { device, number, mountPoint } = one;
        const found = sizes.get(one);
        if (!found) return [];
        const { capacityBytes, usedBytes, inodes, inodesFree } = found;
        // The file systems of btrfs have numbers of their own: their disk is found by its name.
        const disk = disks.byNumber.get(number) ?? disks.byName.get(/^\/dev\/(.+)$/.exec(device)?.[1] ?? '');
        return [{ device, number, mountPoint, capacityBytes, usedBytes, inodes, inodesFree, disk }];
      });
    },
  };
}

async function remoteUsage(path: string): Promise<Sizes | undefined> {
  const { capacityBytes, usedBytes, inodes, inodesFree } = await otherFileSystem(path);
  if (capacityBytes === undefined || usedBytes === undefined) return undefined;
  return { capacityBytes, usedBytes, inodes: inodes ?? 0, inodesFree: inodesFree ?? 0 };
}
