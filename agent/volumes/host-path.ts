// hostPath: a path of the host as it is, after checking that it is what the pod says it is. Nothing is mounted and nothing is ever removed.
import type { HostPathType } from '../../kube/types/volume.ts';
import { type PathKind, probePath, runOnPath } from './path-probe.ts';
import { assertNoBacksteps, plugins } from './paths.ts';
import type { MountedVolume, SetUpRequest, VolumeHost } from './volume-driver.ts';

export async function setUpHostPath(_host: VolumeHost, request: SetUpRequest): Promise<MountedVolume> {
  const { path, type = '' } = request.volume.hostPath!;
  await checkHostPath(path, type, request.signal);
  return { plugin: plugins.hostPath, path, readOnly: false, managed: false };
}

const wanted: Readonly<Record<string, readonly [PathKind, string]>> = {
  Directory: ['directory', 'a directory'],
  File: ['file', 'a file'],
  Socket: ['socket', 'a socket file'],
  CharDevice: ['character-device', 'a character device'],
  BlockDevice: ['block-device', 'a block device'],
};

/** Rejects, in Kubernetes' words, where the path is not of the type; makes what may be made. */
export async function checkHostPath(path: string, type: HostPathType, signal: AbortSignal): Promise<void> {
  try {
    assertNoBacksteps(path);
  } catch (error) {
    throw new Error(`invalid HostPath \`${path}\`: ${(error as Error).message}`);
  }
  if (type === '') return;
  const create = type === 'DirectoryOrCreate' || type === 'FileOrCreate';
  const expectation = wanted[type.replace(/OrCreate$/, '')];
  if (!expectation) throw new Error(`${type} is an invalid volume type`);
  const found = await probePath(path, signal);
  if (!found && create) {
    if (type === 'DirectoryOrCreate') await runOnPath('mkdir', ['--parents', '--mode=0755', '--', path], signal);
    else await runOnPath('sh', ['-c', 'umask 022; : >>"$1"', 'sh', path], signal);
    return;
  }
  if (found?.kind !== expectation[0]) throw new Error(`hostPath type check failed: ${path} is not ${expectation[1]}`);
}
