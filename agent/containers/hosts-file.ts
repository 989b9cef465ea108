// /etc/hosts of a pod's containers, written by the node: the pod's addresses and name, or the host's own file, and the pod's hostAliases.
import { constants } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Mount } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import type { PodHostname } from './hostname.ts';

const header = '# Kubernetes-managed hosts file.\n';
const hostNetworkHeader = '# Kubernetes-managed hosts file (host network).\n';

const always = [
  '127.0.0.1\tlocalhost',
  '::1\tlocalhost ip6-localhost ip6-loopback',
  'fe00::0\tip6-localnet',
  'fe00::0\tip6-mcastprefix',
  'fe00::1\tip6-allnodes',
  'fe00::2\tip6-allrouters',
].map((line) => `${line}\n`);

const aliases = (pod: Pod): string =>
  pod.spec.hostAliases?.length
    ? `\n# Entries added by HostAliases.\n${pod.spec.hostAliases
        .map((alias) => `${alias.ip}\t${(alias.hostnames ?? []).join('\t')}\n`)
        .join('')}`
    : '';

/** The content of the file. `hostFile` is the node's own /etc/hosts, used under hostNetwork only. */
export function hostsFile(pod: Pod, name: PodHostname, podIps: readonly string[], hostFile: string): string {
  if (pod.spec.hostNetwork) return `${hostNetworkHeader}${hostFile}${aliases(pod)}`;
  const names = name.domain === '' ? name.hostname : `${name.hostname}.${name.domain}\t${name.hostname}`;
  return [header, ...always, ...podIps.map((ip) => `${ip}\t${names}\n`), aliases(pod)].join('');
}

/** Where the file is on the host; `podDirectory` is `<root>/pods/<uid>`. */
export const hostsFilePath = (podDirectory: string): string => join(podDirectory, 'etc-hosts');

/** Not where the container brings its own, and not before the pod has an address. */
export const wantsHostsFile = (pod: Pod, container: Container, podIps: readonly string[]): boolean =>
  (podIps.length > 0 || pod.spec.hostNetwork === true) &&
  !container.volumeMounts?.some((mount) => mount.mountPath === '/etc/hosts');

export const hostsMount = (podDirectory: string, selinux: boolean): Mount => ({
  containerPath: '/etc/hosts',
  hostPath: hostsFilePath(podDirectory),
  readonly: false,
  recursiveReadOnly: false,
  selinuxRelabel: selinux,
  propagation: 'private',
});

/** Writes the file in place: containers that run have it mounted, so it must stay the same file. What says so already is not touched. */
export async function writeHostsFile(podDirectory: string, content: string): Promise<void> {
  const path = hostsFilePath(podDirectory);
  const wanted = Buffer.from(content);
  const file = await open(path, 'r+').catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    await mkdir(dirname(path), { recursive: true, mode: 0o750 });
    // Another container of the pod may be faster.
    return await open(path, constants.O_RDWR | constants.O_CREAT, 0o644);
  });
  try {
    const there = Buffer.alloc(wanted.length + 1);
    const { bytesRead } = await file.read(there, 0, there.length, 0);
    if (wanted.equals(there.subarray(0, bytesRead))) return;
    await file.truncate(0);
    await file.writeFile(wanted);
    await file.chmod(0o644);
  } finally {
    await file.close();
  }
}
