// What one container is given of the pod's volumes: mounts, devices, and what the container's status says of them.
import { posix } from 'node:path';
import type { Device, Mount } from '../../cri/types.ts';
import type { Container, Pod, VolumeMount } from '../../kube/types/pod.ts';
import { assertNoBacksteps } from './paths.ts';
import type { ContainerMounts, VolumeMountStatus } from './door.ts';
import { bindSubPath } from './sub-path.ts';
import type { MountedVolume, VolumeHost } from './volume-driver.ts';
import { VolumeError } from './volume-error.ts';

export interface ContainerMountsRequest {
  readonly pod: Pod;
  readonly uid: string;
  readonly container: Container;
  readonly env: Readonly<Record<string, string>>;
  readonly volumes: ReadonlyMap<string, MountedVolume>;
  readonly signal: AbortSignal;
}

const refuse = (volume: string, message: string, cause?: unknown): VolumeError =>
  new VolumeError('CreateContainerConfigError', volume, message, false, cause);

export async function containerMounts(host: VolumeHost, request: ContainerMountsRequest): Promise<ContainerMounts> {
  const { container } = request;
  const mounts: Mount[] = [];
  const statuses: VolumeMountStatus[] = [];
  const recursive = supportsRecursiveReadOnly(host, request.pod);
  for (const [index, mount] of (container.volumeMounts ?? []).entries()) {
    const volume = request.volumes.get(mount.name);
    if (!volume || (volume.path === undefined && !volume.image))
      throw refuse(mount.name, `cannot find volume "${mount.name}" to mount into container "${container.name}"`);
    const made = await oneMount(host, request, mount, index, volume, recursive);
    mounts.push(made);
    statuses.push(statusOf(mount, made));
  }
  return { mounts, devices: devicesOf(request), statuses };
}

async function oneMount(
  host: VolumeHost,
  request: ContainerMountsRequest,
  mount: VolumeMount,
  index: number,
  volume: MountedVolume,
  recursiveSupported: boolean,
): Promise<Mount> {
  const subPath = subPathOf(mount, request.env);
  const common = {
    containerPath: mount.mountPath.startsWith('/') ? mount.mountPath : posix.join('/', mount.mountPath),
    readonly: Boolean(mount.readOnly) || volume.readOnly,
    recursiveReadOnly: recursiveReadOnly(mount, recursiveSupported),
    selinuxRelabel: volume.managed,
    propagation: propagationOf(mount),
  };
  if (volume.image)
    return { ...common, hostPath: '', image: volume.image, ...(subPath === '' ? {} : { imageSubPath: subPath }) };
  const path = volume.path!;
  if (subPath === '') return { ...common, hostPath: path };
  const target = host.paths.subPath(request.uid, mount.name, request.container.name, index);
  try {
    return {
      ...common,
      hostPath: await bindSubPath(host.mounter, { volumePath: path, subPath, target }, request.signal),
    };
  } catch (error) {
    if (request.signal.aborted) throw request.signal.reason;
    // The pod's owner is not told more: the error may speak of the host's files.
    host.log.warn('a subPath could not be prepared; the container does not start and it is tried again', {
      pod: request.pod.metadata.name,
      container: request.container.name,
      volume: mount.name,
      subPath,
      error,
    });
    const what = `volumeMount "${mount.name}" of container "${request.container.name}"`;
    throw refuse(mount.name, `failed to prepare subPath for ${what}`, error);
  }
}

/** The mount's subPath, expanded; empty where it has none. Throws where it is absolute, steps back, or names an unset variable. */
export function subPathOf(mount: VolumeMount, env: Readonly<Record<string, string>>): string {
  const subPath = mount.subPathExpr ? expand(mount, env) : (mount.subPath ?? '');
  if (subPath.startsWith('/')) throw refuse(mount.name, `error SubPath \`${subPath}\` must not be an absolute path`);
  try {
    assertNoBacksteps(subPath);
  } catch (error) {
    throw refuse(mount.name, `unable to provision SubPath \`${subPath}\`: ${(error as Error).message}`);
  }
  return subPath;
}

// `$(NAME)` is the variable, `$$` a dollar; an unset or empty variable is an error, as it would make the path another one.
function expand(mount: VolumeMount, env: Readonly<Record<string, string>>): string {
  const missing = new Set<string>();
  const expanded = mount.subPathExpr!.replace(/\$(?:\$|\(([^)]*)\))/g, (text, name: string | undefined) => {
    if (name === undefined) return text.slice(1);
    const value = Object.hasOwn(env, name) ? env[name]! : '';
    if (value === '') missing.add(name);
    return value;
  });
  if (missing.size > 0) throw refuse(mount.name, `missing value for ${[...missing].sort().join(', ')}`);
  return expanded;
}

function propagationOf(mount: VolumeMount): Mount['propagation'] {
  switch (mount.mountPropagation) {
    case 'HostToContainer':
      return 'host-to-container';
    case 'Bidirectional':
      return 'bidirectional';
    case 'None':
    case undefined:
      return 'private';
    default:
      throw refuse(mount.name, `invalid MountPropagation mode: "${String(mount.mountPropagation)}"`);
  }
}

function recursiveReadOnly(mount: VolumeMount, supported: boolean): boolean {
  const mode = mount.recursiveReadOnly ?? 'Disabled';
  if (mode === 'Disabled') return false;
  const wants = `failed to resolve recursive read-only mode: volume "${mount.name}" requested recursive read-only mode, but it is`;
  if (!mount.readOnly) throw refuse(mount.name, `${wants} not read-only`);
  if (mount.mountPropagation !== undefined && mount.mountPropagation !== 'None')
    throw refuse(mount.name, `${wants} not compatible with propagation "${mount.mountPropagation}"`);
  if (mode === 'Enabled' && !supported) throw refuse(mount.name, `${wants} not supported by the runtime`);
  return supported;
}

function supportsRecursiveReadOnly(host: VolumeHost, pod: Pod): boolean {
  if (host.supportsRecursiveReadOnly) return host.supportsRecursiveReadOnly(pod);
  const handlers = host.node()?.status?.runtimeHandlers ?? [];
  const name = pod.spec.runtimeClassName ?? '';
  return handlers.find((handler) => (handler.name ?? '') === name)?.features?.recursiveReadOnlyMounts ?? false;
}

function statusOf(mount: VolumeMount, made: Mount): VolumeMountStatus {
  if (!mount.readOnly) return { name: mount.name, mountPath: mount.mountPath };
  const recursiveReadOnly = made.recursiveReadOnly ? 'Enabled' : 'Disabled';
  return { name: mount.name, mountPath: mount.mountPath, readOnly: true, recursiveReadOnly };
}

function devicesOf({ container, volumes }: ContainerMountsRequest): Device[] {
  return (container.volumeDevices ?? []).map((device) => {
    if (!device.devicePath.startsWith('/'))
      throw refuse(device.name, `error DevicePath \`${device.devicePath}\` must be an absolute path`);
    const volume = volumes.get(device.name);
    if (volume?.device === undefined)
      throw refuse(device.name, `cannot find volume "${device.name}" to pass into container "${container.name}"`);
    return { containerPath: device.devicePath, hostPath: volume.device, permissions: volume.readOnly ? 'r' : 'mrw' };
  });
}
