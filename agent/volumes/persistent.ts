// Volumes that outlive their pods and that this node mounts itself: hostPath, local and nfs. Their data is never touched here.
import { lstat, rmdir, symlink, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { NfsVolumeSource } from '../../kube/types/volume.ts';
import { ExecError, exec } from '../../lib/exec.ts';
import { boundClaim } from './claims.ts';
import { growLocal } from './grow-local.ts';
import { checkHostPath } from './host-path.ts';
import { makeFolders } from './make-folders.ts';
import { rootOf } from './mount-table.ts';
import { MountError } from './mounter.ts';
import { giveToGroup } from './ownership.ts';
import { probePath } from './path-probe.ts';
import { assertNoBacksteps, plugins } from './paths.ts';
import { removeEmptyFolder, unmountUnder } from './remove-tree.ts';
import {
  type BoundClaim,
  type MountedVolume,
  NotYetError,
  type SetUpRequest,
  type VolumeHost,
} from './volume-driver.ts';

/** Brings up the volume behind a claim. */
export async function setUpClaim(host: VolumeHost, request: SetUpRequest): Promise<MountedVolume> {
  const bound = await boundClaim(host, request);
  const { pv } = bound;
  request.named(pv.metadata.name);
  assertSinglePod(host, request, bound);
  const up = await setUpBound(host, request, bound);
  return {
    ...up,
    pvName: pv.metadata.name,
    claim: { namespace: bound.claim.metadata.namespace ?? 'default', name: bound.claim.metadata.name },
    ...(bound.gid === undefined ? {} : { gid: bound.gid }),
  };
}

async function setUpBound(host: VolumeHost, request: SetUpRequest, bound: BoundClaim): Promise<MountedVolume> {
  const { spec, metadata } = bound.pv;
  if (spec.csi) return await host.csi.setUpPersistent(request, bound);
  if (spec.local && bound.block) return await mapLocal(host, request, bound);
  if (spec.local) return await growLocal(host, request, bound, await mountLocal(host, request, bound));
  if (bound.block) throw new Error(`PersistentVolume ${metadata.name} is not of a type that has block devices here`);
  if (spec.hostPath) {
    await checkHostPath(spec.hostPath.path, spec.hostPath.type ?? '', request.signal);
    return { plugin: plugins.hostPath, path: spec.hostPath.path, readOnly: bound.readOnly, managed: false };
  }
  if (spec.nfs) return await mountNfs(host, request, spec.nfs, metadata.name, bound);
  const known = [
    'capacity',
    'accessModes',
    'volumeMode',
    'mountOptions',
    'storageClassName',
    'claimRef',
    'nodeAffinity',
  ];
  const ignored = [...known, 'persistentVolumeReclaimPolicy', 'volumeAttributesClassName'];
  const source = Object.keys(spec).find((key) => !ignored.includes(key)) ?? 'unknown';
  throw new Error(
    `PersistentVolumes of type ${source} are not supported by this node: use a CSI driver, or a node that has them`,
  );
}

function assertSinglePod(host: VolumeHost, request: SetUpRequest, { pv }: BoundClaim): void {
  const modes = pv.spec.accessModes ?? [];
  if (modes.length === 1 && modes[0] === 'ReadWriteOncePod' && host.mountedElsewhere(pv.metadata.name, request.uid))
    throw new NotYetError(
      'volume uses the ReadWriteOncePod access mode and is already in use by another pod',
      'FailedMount',
      { polled: true },
    );
}

async function mountLocal(host: VolumeHost, request: SetUpRequest, bound: BoundClaim): Promise<MountedVolume> {
  const { pod, uid, signal } = request;
  const { pv, readOnly } = bound;
  const { path: source, fsType } = pv.spec.local!;
  try {
    assertNoBacksteps(source);
  } catch (error) {
    throw new Error(`invalid path: ${source} ${(error as Error).message}`);
  }
  const target = host.paths.volume(uid, plugins.local, pv.metadata.name);
  const up: MountedVolume = { plugin: plugins.local, path: target, readOnly, managed: !readOnly, measure: 'statfs' };
  if ((await host.mounter.table()).at(target)) return up;

  const found = await probePath(source, signal);
  if (!found) throw new Error(`path "${source}" does not exist`);
  // Empty is what clients write who mean the default.
  const from =
    found.kind === 'block-device' ? await mountDevice(host, bound, source, fsType || 'ext4', signal) : source;
  await makeFolders(target, 0o750);
  await host.faultPoint('local-folder-made');
  const shared = await isMountedByPods(host, from, uid);
  try {
    await host.mounter.bind(from, target, { readOnly }, signal);
  } catch (error) {
    await rmdir(target).catch(() => undefined);
    throw error;
  }
  await host.faultPoint('local-mounted');
  const fsGroup = pod.spec.securityContext?.fsGroup;
  const policy = pod.spec.securityContext?.fsGroupChangePolicy ?? 'Always';
  if (fsGroup !== undefined && !readOnly && !shared) await giveToGroup(target, { fsGroup, readOnly, policy, signal });
  return up;
}

// Whether another pod has the same place mounted: then its owner is not changed under it.
async function isMountedByPods(host: VolumeHost, source: string, uid: string): Promise<boolean> {
  const table = await host.mounter.table();
  const holding = table.holding(source);
  if (!holding) return false;
  const root = rootOf(holding, source);
  // Containers go on using what is hidden from this process.
  return [...table.under(host.paths.pods), ...table.hidden(host.paths.pods)].some(
    (mount) =>
      mount.device === holding.device && mount.root === root && !mount.mountPoint.startsWith(host.paths.pod(uid)),
  );
}

/** Mounts a local block device once for all pods; one that has no file system yet gets one. Returns where. */
async function mountDevice(
  host: VolumeHost,
  { pv, readOnly }: BoundClaim,
  device: string,
  fsType: string,
  signal: AbortSignal,
): Promise<string> {
  const target = join(host.paths.root, 'plugins', plugins.local, 'mounts', pv.metadata.name);
  if ((await host.mounter.table()).at(target)) return target;
  if ((await formatOf(device, signal)) === undefined) {
    if (readOnly) throw new Error(`cannot mount unformatted disk ${device} as it is read-only`);
    const flags = fsType.startsWith('ext') ? ['-F', '-m0'] : [];
    await exec(`mkfs.${fsType}`, [...flags, device], { signal, timeoutMs: 300_000 });
  }
  await makeFolders(target, 0o750);
  const options = ['defaults', ...(readOnly ? ['ro'] : []), ...(pv.spec.mountOptions ?? [])];
  await host.mounter.mount({ fsType, source: device, target, options }, signal);
  return target;
}

/** What is on the device; undefined where it is blank. Anything that blkid cannot tell rejects: nothing is ever formatted on a guess. */
async function formatOf(device: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    const { stdout } = await exec('blkid', ['-p', '-s', 'TYPE', '-s', 'PTTYPE', '-o', 'export', device], { signal });
    return stdout.trim() || undefined;
  } catch (error) {
    // 2: it looked, and found no signature.
    if (error instanceof ExecError && error.exitCode === 2 && error.stderr.trim() === '') return undefined;
    throw error;
  }
}

async function mapLocal(host: VolumeHost, request: SetUpRequest, bound: BoundClaim): Promise<MountedVolume> {
  const { path } = bound.pv.spec.local!;
  const found = await probePath(path, request.signal);
  if (found?.kind !== 'block-device') throw new Error(`${path} is not a block device`);
  const device = host.paths.volumeDevice(request.uid, plugins.local, bound.pv.metadata.name);
  await linkDevice(device, path);
  return { plugin: plugins.local, device, readOnly: bound.readOnly, managed: false };
}

/** Points the pod's link at the device, replacing an older link and nothing else. */
export async function linkDevice(link: string, device: string): Promise<void> {
  await makeFolders(dirname(link), 0o750);
  try {
    if (!(await lstat(link)).isSymbolicLink()) throw new Error(`${link} is not a symbolic link; it is left as it is`);
    await unlink(link);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  await symlink(device, link);
}

const nfsTimeoutMs = 60_000;

async function mountNfs(
  host: VolumeHost,
  { uid, signal }: SetUpRequest,
  source: NfsVolumeSource,
  name: string,
  bound: BoundClaim | undefined,
): Promise<MountedVolume> {
  const readOnly = Boolean(source.readOnly) || (bound?.readOnly ?? false);
  const path = host.paths.volume(uid, plugins.nfs, name);
  const up: MountedVolume = { plugin: plugins.nfs, path, readOnly, managed: false, measure: 'statfs' };
  if ((await host.mounter.table()).at(path)) return up;
  await makeFolders(path, 0o750);
  await host.faultPoint('nfs-folder-made');
  const options = [...(bound?.pv.spec.mountOptions ?? []), ...(readOnly ? ['ro'] : [])];
  const server = source.server.includes(':') && !source.server.startsWith('[') ? `[${source.server}]` : source.server;
  try {
    await host.mounter.mount(
      { fsType: 'nfs', source: `${server}:${source.path}`, target: path, options, timeoutMs: nfsTimeoutMs },
      signal,
    );
  } catch (error) {
    if (!signal.aborted) {
      await host.mounter.unmount(path).catch(() => undefined);
      await rmdir(path).catch(() => undefined);
    }
    if (error instanceof MountError && (error.cause as ExecError | undefined)?.code === 'timeout')
      throw new Error(`the NFS server ${source.server} does not answer: ${error.message}`, { cause: error });
    throw error;
  }
  return up;
}

export const setUpNfs = (host: VolumeHost, request: SetUpRequest): Promise<MountedVolume> =>
  mountNfs(host, request, request.volume.nfs!, request.volume.name, undefined);

/** After the pod's own mount is gone: takes the device's mount off where no pod uses it any more. */
export async function releaseLocal(host: VolumeHost, pvName: string, signal: AbortSignal): Promise<void> {
  const target = join(host.paths.root, 'plugins', plugins.local, 'mounts', pvName);
  const table = await host.mounter.table();
  const mounted = table.at(target) ?? table.hidden(target)[0];
  if (!mounted) return;
  const { pods } = host.paths;
  if ([...table.under(pods), ...table.hidden(pods)].some((mount) => mount.device === mounted.device)) return;
  await unmountUnder(host.mounter, target, signal);
  await removeEmptyFolder(target);
}
