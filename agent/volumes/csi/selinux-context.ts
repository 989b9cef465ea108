// The SELinux label that a CSI volume is mounted with (`-o context=…`) instead of being relabelled file by file: for drivers that say
// seLinuxMount, for volumes of one pod only (ReadWriteOncePod), on hosts that have SELinux. Elsewhere it has no effect.
import { readFile } from 'node:fs/promises';
import type { Pod, SELinuxOptions } from '../../../kube/types/pod.ts';
import type { CsiDriver, PersistentVolume } from '../../../kube/types/volume.ts';
import { readFileIfThere } from '../../../lib/files.ts';

/** What SELinux of this host says; undefined on a host without it. */
export interface SELinux {
  /** The label of containers' files, without categories: `system_u:object_r:container_file_t:s0`. */
  readonly fileLabel: string;
}

/** Reads it; `etc` and `proc` are replaced in tests. */
export async function readSELinux(etc = '/etc/selinux', proc = '/proc'): Promise<SELinux | undefined> {
  const mounts = await readFile(`${proc}/self/mounts`, 'utf8').catch(() => '');
  if (!/^\S+ \S+ selinuxfs /m.test(mounts)) return undefined;
  const label = await readFile(`${proc}/self/attr/current`, 'utf8').catch(() => '');
  // Mounted, and no policy is loaded.
  if (label === '' || label.replace(/\0.*$/s, '').trim() === 'kernel') return undefined;
  const config = (await readFileIfThere(`${etc}/config`)) ?? '';
  const policy = /^\s*SELINUXTYPE\s*=\s*(\S+)/m.exec(config)?.[1] ?? 'targeted';
  const contexts = (await readFileIfThere(`${etc}/${policy}/contexts/lxc_contexts`)) ?? '';
  const fileLabel = /^\s*file\s*=\s*"?([^"\n]+?)"?\s*$/m.exec(contexts)?.[1];
  return fileLabel === undefined ? undefined : { fileLabel };
}

/** The options of every container that mounts the volume: its own, else the pod's. */
function optionsOf({ spec }: Pod, volume: string): SELinuxOptions[] {
  const { containers, initContainers = [], ephemeralContainers = [], securityContext } = spec;
  return [...initContainers, ...containers, ...ephemeralContainers]
    .filter((container) => container.volumeMounts?.some((mount) => mount.name === volume))
    .flatMap((container) => container.securityContext?.seLinuxOptions ?? securityContext?.seLinuxOptions ?? []);
}

/** As the runtime labels the files of a container with these options. Undefined without a level: the runtime then draws one nobody knows. */
function labelOf({ fileLabel }: SELinux, { user, level }: SELinuxOptions): string | undefined {
  if (!level) return undefined;
  const [ownUser = '', role = '', type = ''] = fileLabel.split(':');
  return [user || ownUser, role, type, level].join(':');
}

/** Undefined where the volume is not to be mounted with a label. Throws where containers of the pod want different ones. */
export function mountLabel(
  selinux: SELinux | undefined,
  driver: CsiDriver['spec'] | undefined,
  pv: PersistentVolume,
  pod: Pod,
  volume: string,
): string | undefined {
  const modes = pv.spec.accessModes ?? [];
  if (!selinux || !driver?.seLinuxMount || modes.length !== 1 || modes[0] !== 'ReadWriteOncePod') return undefined;
  if (pod.spec.securityContext?.seLinuxChangePolicy === 'Recursive') return undefined;
  const labels = [...new Set(optionsOf(pod, volume).map((options) => labelOf(selinux, options)))];
  if (labels.length > 1) throw new Error(`multiple SELinux labels found: ${labels.join(',')}`);
  return labels[0];
}

/** As a mount option; in quotes, for categories have commas. */
export const contextOption = (label: string): string => `context="${label}"`;
