// What of a pod concerns its volumes.
import type { Pod } from '../../kube/types/pod.ts';
import type { Volume } from '../../kube/types/volume.ts';
import { showsPod } from './object-files.ts';
import { isSafeName } from './paths.ts';
import { VolumeError } from './volume-error.ts';

/** The pod's uid, good as a folder's name; throws a VolumeError where it is not. */
export function uidOf(pod: Pod): string {
  const uid = pod.metadata.uid ?? '';
  if (!isSafeName(uid))
    throw new VolumeError('FailedMount', '', `the pod ${pod.metadata.name} has no uid that could name its folder`);
  return uid;
}

export const isBlock = (pod: Pod, volume: string): boolean =>
  [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].some((container) =>
    container.volumeDevices?.some((device) => device.name === volume),
  );

/** Volumes that some container mounts or maps; the others are not brought up, as kubelet does not. */
export function mountedVolumes(pod: Pod): Volume[] {
  const { containers, initContainers = [], ephemeralContainers = [], volumes = [] } = pod.spec;
  const used = new Set(
    [...containers, ...initContainers, ...ephemeralContainers].flatMap((container) => [
      ...(container.volumeMounts ?? []).map((mount) => mount.name),
      ...(container.volumeDevices ?? []).map((device) => device.name),
    ]),
  );
  return volumes.filter((volume) => used.has(volume.name));
}

/** What of a pod reaches its volumes: which are mounted, and what the downward API shows. */
export function signatureOf(pod: Pod): string {
  const volumes = mountedVolumes(pod);
  const shown = volumes.some(showsPod)
    ? [
        pod.metadata.labels,
        pod.metadata.annotations,
        [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].map((each) => each.resources),
      ]
    : [];
  return JSON.stringify([volumes.map((volume) => volume.name), shown]);
}
