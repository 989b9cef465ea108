// Limits and security as Docker's HostConfig has them, and what it cannot do, refused. Pure.
import type { HostConfig } from 'dockerode';
import { RuntimeError } from '../errors.ts';
import type * as t from '../types.ts';

/** What the host lets a container have. */
export interface HostLimits {
  /** No process may be given less than this: without CAP_SYS_RESOURCE the daemon's own value. */
  readonly oomScoreFloor: number;
  /** Capabilities that the host's processes may have, where that is not all of them: privileged containers get these. */
  readonly capabilities: readonly string[] | undefined;
  readonly ipv6: boolean;
}

type Limits = Pick<
  HostConfig,
  'CpuPeriod' | 'CpuQuota' | 'CpuShares' | 'CpusetCpus' | 'CpusetMems' | 'Memory' | 'MemorySwap'
>;

/** A pod has no swap of its own unless it was said: without MemorySwap Docker would allow as much again. */
export function limitsOf(resources: t.LinuxResources): Limits {
  const memory = resources.memoryLimitInBytes ?? 0;
  const swap = resources.memorySwapLimitInBytes ?? 0;
  return {
    ...(resources.cpuPeriod ? { CpuPeriod: resources.cpuPeriod } : {}),
    ...(resources.cpuQuota ? { CpuQuota: resources.cpuQuota } : {}),
    ...(resources.cpuShares ? { CpuShares: resources.cpuShares } : {}),
    ...(resources.cpusetCpus ? { CpusetCpus: resources.cpusetCpus } : {}),
    ...(resources.cpusetMems ? { CpusetMems: resources.cpusetMems } : {}),
    ...(memory > 0 ? { Memory: memory, MemorySwap: swap === 0 ? memory : swap } : {}),
  };
}

export const oomScoreOf = (resources: t.LinuxResources | undefined, fallback: number, limits: HostLimits): number =>
  Math.min(1000, Math.max(resources?.oomScoreAdj ?? fallback, limits.oomScoreFloor));

export function resourcesOf(config: Partial<HostConfig> | undefined): t.LinuxResources {
  return {
    cpuPeriod: config?.CpuPeriod ?? 0,
    cpuQuota: config?.CpuQuota ?? 0,
    cpuShares: config?.CpuShares ?? 0,
    memoryLimitInBytes: config?.Memory ?? 0,
    memorySwapLimitInBytes: config?.MemorySwap ?? 0,
    oomScoreAdj: config?.OomScoreAdj ?? 0,
    cpusetCpus: config?.CpusetCpus ?? '',
    cpusetMems: config?.CpusetMems ?? '',
  };
}

export const refuse = (call: string, what: string): never => {
  throw new RuntimeError('invalid', call, `Docker cannot do this: ${what}`);
};

interface Confinement {
  readonly privileged: boolean;
  readonly noNewPrivs: boolean;
  readonly selinux?: t.SELinux;
  readonly seccomp?: t.SecurityProfile;
  readonly apparmor?: t.SecurityProfile;
}

/** `seccompText` is the content of a localhost profile: Docker's API takes no path. */
export function securityOptions(config: Confinement, seccompText: string | undefined): string[] {
  const options: string[] = [];
  if (config.noNewPrivs) options.push('no-new-privileges');
  if (config.selinux)
    for (const key of ['user', 'role', 'type', 'level'] as const)
      if (config.selinux[key] !== '') options.push(`label=${key}:${config.selinux[key]}`);
  if (!config.privileged) {
    if (seccompText !== undefined) options.push(`seccomp=${seccompText}`);
    // As the CRI has it: nothing said is unconfined.
    else if (config.seccomp?.type !== 'RuntimeDefault') options.push('seccomp=unconfined');
    if (config.apparmor?.type === 'Unconfined') options.push('apparmor=unconfined');
    if (config.apparmor?.type === 'Localhost') options.push(`apparmor=${config.apparmor.localhostRef ?? ''}`);
  }
  return options;
}

/** A privileged container; on a host that has not every capability Docker's own switch fails, so it is taken apart. */
export function privilegedOptions(limits: HostLimits): Partial<HostConfig> {
  if (limits.capabilities === undefined) return { Privileged: true };
  return {
    CapAdd: [...limits.capabilities],
    SecurityOpt: ['seccomp=unconfined', 'apparmor=unconfined', 'label=disable'],
    MaskedPaths: [],
    ReadonlyPaths: [],
    Devices: [{ PathOnHost: '/dev', PathInContainer: '/dev', CgroupPermissions: 'rwm' }],
    DeviceCgroupRules: ['a *:* rwm'],
  };
}

export function refuseSecurity(
  call: string,
  security: Pick<t.SandboxSecurity, 'namespaces' | 'supplementalGroupsPolicy'>,
): void {
  if (security.namespaces.userns?.mode === 'pod')
    refuse(call, 'a user namespace for one pod (hostUsers: false); the daemon remaps all of its containers or none');
  if (security.supplementalGroupsPolicy === 'Strict')
    refuse(call, 'supplementalGroupsPolicy Strict; the groups of the image’s user are always added');
}
