// Opens the pods' cgroups of this host by the agent's configuration, and gathers the facts by which resources are written.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { KubeletConfiguration } from '../config.ts';
import type { ContainerFacts } from '../containers/container-config.ts';
import type { SandboxFacts } from '../containers/sandbox-config.ts';
import { type HostFacts, readHostFacts } from '../node/host-facts.ts';
import type { PodsMemory } from '../node/memory-alarm.ts';
import { findCgroupMounts } from './cgroup-mounts.ts';
import type { CgroupDriver } from './cgroup-names.ts';
import { createCgroupTree } from './cgroup-tree.ts';
import type { PodCgroupFacts } from './linux-resources.ts';
import { createPodCgroups, type PodCgroups, type PodCgroupsDeps } from './pod-cgroups.ts';
import { createSystemdSlices } from './systemd-slices.ts';

export interface OpenedCgroups {
  readonly pods: PodCgroups;
  readonly facts: ContainerFacts & SandboxFacts & PodCgroupFacts;
  /** Where the memory controller has the cgroup of this path, which may not be there; undefined where there is no such controller. */
  memory(path: string): PodsMemory | undefined;
}

/** `2MB` for a page of 2,097,152 bytes, as runtimes and cgroup files write sizes. */
export function hugepageSize(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let [size, unit] = [bytes, 0];
  while (size >= 1024 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${size}${units[unit]}`;
}

async function thermalThrottlePaths(): Promise<string[]> {
  const cpus = await readdir('/sys/devices/system/cpu').catch(() => []);
  return cpus.filter((name) => /^cpu\d+$/.test(name)).map((name) => `/sys/devices/system/cpu/${name}/thermal_throttle`);
}

export async function openPodCgroups(
  deps: { readonly clock: Clock; readonly log: Log; readonly took?: PodCgroupsDeps['took'] },
  options: { readonly config: KubeletConfiguration; readonly driver: CgroupDriver; readonly rootDir: string },
): Promise<OpenedCgroups> {
  const { config, driver, rootDir } = options;
  const mounts = await findCgroupMounts();
  const host: HostFacts = await readHostFacts({ rootDir });
  const hugepageSizes = [...host.hugePages.keys()].map(hugepageSize);
  const cpuCfsQuotaPeriodUs = Math.round(config.cpuCFSQuotaPeriod * 1000);
  const tree = createCgroupTree(mounts);
  const pods = createPodCgroups(
    { ...deps, tree, ...(driver === 'systemd' ? { slices: createSystemdSlices() } : {}) },
    {
      driver,
      version: mounts.version,
      root: config.cgroupRoot,
      perQos: config.cgroupsPerQOS,
      cpuCfsQuota: config.cpuCFSQuota,
      cpuCfsQuotaPeriodUs,
      hugepageSizes,
      podPidsLimit: config.podPidsLimit,
    },
  );
  const memoryRoot = mounts.version === 2 ? mounts.unified : mounts.controllers.get('memory');
  return {
    pods,
    memory: (path) =>
      memoryRoot === undefined ? undefined : { version: mounts.version, folder: join(memoryRoot, path) },
    facts: {
      cgroupVersion: mounts.version,
      cpuCfsQuota: config.cpuCFSQuota,
      cpuCfsQuotaPeriodUs,
      singleProcessOomKill: config.singleProcessOOMKill,
      memoryCapacityBytes: host.memoryBytes,
      swap: {
        available: mounts.version === 2,
        behavior: config.memorySwap.swapBehavior === 'LimitedSwap' ? 'LimitedSwap' : 'NoSwap',
        capacityBytes: host.swapBytes,
      },
      hugepageSizes,
      podPidsLimit: config.podPidsLimit,
      podLogsDirectory: config.podLogsDir,
      seccompProfileRoot: join(rootDir, 'seccomp'),
      seccompDefault: config.seccompDefault,
      moreMaskedPaths: await thermalThrottlePaths(),
    },
  };
}
