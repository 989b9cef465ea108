// Which sysctls a pod may set: those known to be safe, and those that the operator allows (allowedUnsafeSysctls).
import type { Pod } from '../../kube/types/pod.ts';

type Namespace = 'IPC' | 'Net' | 'unknown';

/** The safe ones, with the kernel from which on each belongs to a pod's own namespace. */
const safe: readonly (readonly [name: string, kernel: string])[] = [
  ['kernel.shm_rmid_forced', '0'],
  ['net.ipv4.ip_local_port_range', '0'],
  ['net.ipv4.tcp_syncookies', '0'],
  ['net.ipv4.ping_group_range', '0'],
  ['net.ipv4.ip_unprivileged_port_start', '0'],
  ['net.ipv4.ip_local_reserved_ports', '3.16'],
  ['net.ipv4.tcp_keepalive_time', '4.5'],
  ['net.ipv4.tcp_fin_timeout', '4.6'],
  ['net.ipv4.tcp_keepalive_intvl', '4.5'],
  ['net.ipv4.tcp_keepalive_probes', '4.5'],
  ['net.ipv4.tcp_rmem', '4.15'],
  ['net.ipv4.tcp_wmem', '4.15'],
];

const ipcNames: ReadonlySet<string> = new Set(['kernel.sem']);
const ipcPrefixes = ['kernel.shm', 'kernel.msg', 'fs.mqueue.'];

/** With slashes, dots stand for dots in a name: `net/ipv4/conf/eth0.1/arp` is `net.ipv4.conf.eth0/1.arp`. */
export function normalizeSysctl(name: string): string {
  const first = /[./]/.exec(name)?.[0];
  if (first !== '/') return name;
  return [...name].map((char) => (char === '/' ? '.' : char === '.' ? '/' : char)).join('');
}

function namespaceOf(name: string): Namespace {
  if (ipcNames.has(name) || ipcPrefixes.some((prefix) => name.startsWith(prefix))) return 'IPC';
  return name.startsWith('net.') ? 'Net' : 'unknown';
}

function atLeast(version: string, wanted: string): boolean {
  const numbers = (text: string): number[] => text.split(/[^0-9]+/, 2).map(Number);
  const [major = 0, minor = 0] = numbers(version);
  const [wantedMajor = 0, wantedMinor = 0] = numbers(wanted);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

export interface SysctlRules {
  /** Undefined: allowed; else why not, in the kubelet's words. */
  refuse(pod: Pod): string | undefined;
}

/**
 * `unsafe` is KubeletConfiguration allowedUnsafeSysctls: names, or prefixes that end in `*`. Throws an Error for one that belongs to no
 * namespace of a pod: setting it would change the host.
 */
export function createSysctlRules(unsafe: readonly string[], kernelVersion: string): SysctlRules {
  const names = new Map<string, Namespace>();
  const prefixes = new Map<string, Namespace>();
  for (const [name, kernel] of safe) if (atLeast(kernelVersion, kernel)) names.set(name, namespaceOf(name));
  for (const pattern of unsafe) {
    const name = normalizeSysctl(pattern.replace(/\*$/, ''));
    const namespace = namespaceOf(name);
    if (namespace === 'unknown') throw new Error(`the sysctls "${name}" are not known to be namespaced`);
    (pattern.endsWith('*') ? prefixes : names).set(name, namespace);
  }
  const refuseOne = (written: string, hostNetwork: boolean, hostIpc: boolean): string | undefined => {
    const name = normalizeSysctl(written);
    const namespace = names.get(name) ?? [...prefixes].find(([prefix]) => name.startsWith(prefix))?.[1];
    if (namespace === undefined) return `"${name}" not allowlisted`;
    if ((namespace === 'IPC' && hostIpc) || (namespace === 'Net' && hostNetwork))
      return `"${name}" not allowed with host ${namespace} enabled`;
    return undefined;
  };
  return {
    refuse(pod) {
      for (const { name } of pod.spec.securityContext?.sysctls ?? []) {
        const why = refuseOne(name, pod.spec.hostNetwork ?? false, pod.spec.hostIPC ?? false);
        if (why !== undefined) return why;
      }
      return undefined;
    },
  };
}
