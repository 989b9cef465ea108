// emptyDir: a folder of the pod's own, on the disk, in memory or in huge pages.
import { chmod, lstat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pod } from '../../kube/types/pod.ts';
import { quantityValue } from '../fields/quantity-value.ts';
import { makeFolders } from './make-folders.ts';
import type { Mounter } from './mounter.ts';
import { giveToGroup } from './ownership.ts';
import { plugins } from './paths.ts';
import type { MountedVolume, SetUpRequest, VolumeHost } from './volume-driver.ts';

export async function setUpEmptyDir(host: VolumeHost, request: SetUpRequest): Promise<MountedVolume> {
  const { pod, uid, volume, signal } = request;
  const { medium = '', sizeLimit } = volume.emptyDir ?? {};
  const path = host.paths.volume(uid, plugins.emptyDir, volume.name);
  const notes = host.paths.podPlugin(uid, plugins.emptyDir, volume.name);
  const up: MountedVolume = {
    plugin: plugins.emptyDir,
    path,
    readOnly: false,
    managed: true,
    measure: medium === '' ? 'walk' : medium === 'Memory' ? 'memory' : 'statfs',
  };
  const mounted = await isMounted(host.mounter, path);
  // The pod may have changed modes of its own folder since: what is ready is left alone.
  const ready = await exists(join(notes, 'ready'));
  if (ready && (medium === '' ? await exists(path) : mounted)) return up;

  await makeVolumeFolder(path);
  await host.faultPoint('empty-dir-made');
  if (medium === 'Memory') {
    if (!mounted) await host.mounter.tmpfs(path, memorySize(host, pod, sizeLimit), signal);
  } else if (medium === 'HugePages' || medium.startsWith('HugePages-')) {
    const options = [`pagesize=${hugePageSize(medium, pod)}`];
    if (!mounted) await host.mounter.mount({ fsType: 'hugetlbfs', source: 'nodev', target: path, options }, signal);
  } else if (medium !== '') {
    throw new Error(`unknown storage medium "${medium}"`);
  }
  await host.faultPoint('empty-dir-mounted');
  const fsGroup = pod.spec.securityContext?.fsGroup;
  if (fsGroup !== undefined) await giveToGroup(path, { fsGroup, readOnly: false, policy: 'Always', signal });
  await makeFolders(notes, 0o750);
  await writeFile(join(notes, 'ready'), '');
  return up;
}

/** The folder of a volume, open to all: who may reach it is decided by the folders above. */
export async function makeVolumeFolder(path: string): Promise<void> {
  await makeFolders(join(path, '..'), 0o750);
  await makeFolders(path, 0o777);
  await chmod(path, 0o777);
}

/** Whether something is mounted at this folder of ours. One that is not there, as those of all new pods, needs no look at the table. */
export const isMounted = async (mounter: Mounter, path: string): Promise<boolean> =>
  (await exists(path)) && (await mounter.table()).at(path) !== undefined;

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** How large a tmpfs of this pod may grow, in bytes: the volume's limit, within the pod's, within the node's. */
export function memorySize(host: Pick<VolumeHost, 'node'>, pod: Pod, sizeLimit?: string): bigint | undefined {
  const allocatable = host.node()?.status?.allocatable?.memory;
  const candidates = [sizeLimit, allocatable].filter((each) => each !== undefined).map((each) => quantityValue(each));
  const ofPod = podMemoryLimit(pod);
  const positive = [...candidates, ...(ofPod === undefined ? [] : [ofPod])].filter((each) => each > 0n);
  return positive.sort((a, b) => Number(a - b))[0];
}

// Only where every container has a limit is there one for the pod.
function podMemoryLimit(pod: Pod): bigint | undefined {
  const ofPod = pod.spec.resources?.limits?.memory;
  if (ofPod !== undefined) return quantityValue(ofPod);
  const limit = (container: { resources?: { limits?: Record<string, string> } }): bigint | undefined => {
    const text = container.resources?.limits?.memory;
    return text === undefined ? undefined : quantityValue(text);
  };
  let running = 0n;
  for (const container of pod.spec.containers) {
    const bytes = limit(container);
    if (bytes === undefined || bytes === 0n) return undefined;
    running += bytes;
  }
  let sidecars = 0n;
  let most = 0n;
  for (const container of pod.spec.initContainers ?? []) {
    const bytes = limit(container);
    if (bytes === undefined || bytes === 0n) return undefined;
    if (container.restartPolicy === 'Always') sidecars += bytes;
    const together = container.restartPolicy === 'Always' ? sidecars : sidecars + bytes;
    if (together > most) most = together;
  }
  const steady = running + sidecars;
  return steady > most ? steady : most;
}

/** The page size for a medium, from what the pod's containers request; throws where they do not agree. */
export function hugePageSize(medium: string, pod: Pod): string {
  const { containers, initContainers = [], resources } = pod.spec;
  const lists = [resources?.requests, ...[...containers, ...initContainers].map((each) => each.resources?.requests)];
  const sizes = new Set(
    lists
      .flatMap((list) => Object.keys(list ?? {}))
      .filter((name) => name.startsWith('hugepages-'))
      .map((name) => name.slice('hugepages-'.length)),
  );
  if (medium === 'HugePages') {
    if (sizes.size > 1)
      throw new Error(`medium: ${medium} can't be used if container requests multiple huge page sizes`);
    const [only] = sizes;
    if (only !== undefined) return only;
  } else {
    const wanted = medium.slice('HugePages-'.length);
    if ([...sizes].some((size) => quantityValue(size) === quantityValue(wanted))) return wanted;
  }
  throw new Error(`medium ${medium}: hugePages storage requested, but there is no resource request for huge pages`);
}
