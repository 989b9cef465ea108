// A local volume of a block device: its file system grows to the device's size, while it is mounted.
import { join } from 'node:path';
import { exec } from '../../lib/exec.ts';
import { growIfLarger, nextLookMs } from './grow-claim.ts';
import { plugins } from './paths.ts';
import type { BoundClaim, MountedVolume, SetUpRequest, VolumeHost } from './volume-driver.ts';

const growTimeoutMs = 120_000;

/** The command that makes the mounted file system as large as its device; undefined where none is known. */
export function growCommand(
  fsType: string,
  device: string,
  mountPoint: string,
): readonly [string, ...string[]] | undefined {
  if (/^ext[34]$/.test(fsType)) return ['resize2fs', device];
  if (fsType === 'xfs') return ['xfs_growfs', '-d', mountPoint];
  if (fsType === 'btrfs') return ['btrfs', 'filesystem', 'resize', 'max', mountPoint];
  return undefined;
}

/** Volumes that are folders, and those mounted read-only, are left as they are. Else the volume is to be looked at again. */
export async function growLocal(
  host: VolumeHost,
  request: SetUpRequest,
  bound: BoundClaim,
  up: MountedVolume,
): Promise<MountedVolume> {
  const { pv, readOnly } = bound;
  const mountPoint = join(host.paths.root, 'plugins', plugins.local, 'mounts', pv.metadata.name);
  const mounted = (await host.mounter.table()).at(mountPoint);
  if (!mounted || readOnly) return up;
  await growIfLarger(host, request, bound, async () => {
    const command = growCommand(mounted.fsType, pv.spec.local!.path, mountPoint);
    if (!command) throw new Error(`resize of format ${mounted.fsType} is not supported`);
    const [tool, ...args] = command;
    await exec(tool, args, { signal: request.signal, timeoutMs: growTimeoutMs });
  });
  return { ...up, refreshAtMs: nextLookMs(host.clock.now()) };
}
