// /stats/summary: one look and the state of the file systems, in the shape metrics-server, autoscalers and eviction read.
import type { ContainerStats as RuntimeStats, FilesystemUsage } from '../../cri/types.ts';
import type { CgroupSample, Psi } from './cgroup-sample.ts';
import type { Look, PodUsage, Usage } from './collect.ts';
import type { Filesystems, FsUsage } from './filesystems.ts';
import { defaultInterface, type InterfaceCounters } from './proc.ts';
import { createSlicer } from './pseudo-files.ts';
import type * as s from './summary-types.ts';

let lastSecond = Number.NaN;
let lastText = '';
/** The samples of one look are of the same second, mostly. */
export function isoSeconds(ms: number): string {
  const second = Math.floor(ms / 1000);
  if (second !== lastSecond) {
    lastText = `${new Date(second * 1000).toISOString().slice(0, -5)}Z`;
    lastSecond = second;
  }
  return lastText;
}
const timeOrNull = (ms: number): string | null => (ms > 0 ? isoSeconds(ms) : null);

const psiOf = (psi: Psi | undefined): s.PsiStats | undefined => {
  if (!psi) return undefined;
  const line = ({ totalUs, avg10, avg60, avg300 }: Psi['some']): s.PsiData => ({
    total: totalUs,
    avg10,
    avg60,
    avg300,
  });
  return { full: line(psi.full), some: line(psi.some) };
};

export function cpuOf(usage: Usage): s.CpuStats | undefined {
  const { cpu, timeMs } = usage.sample;
  if (!cpu) return undefined;
  const psi = psiOf(cpu.psi);
  return {
    time: isoSeconds(timeMs),
    ...(usage.nanoCores === undefined ? {} : { usageNanoCores: usage.nanoCores }),
    usageCoreNanoSeconds: cpu.usageNs,
    ...(psi ? { psi } : {}),
  };
}

export function memoryOf(sample: CgroupSample): s.MemoryStats | undefined {
  const { memory, timeMs } = sample;
  if (!memory) return undefined;
  const psi = psiOf(memory.psi);
  return {
    time: isoSeconds(timeMs),
    ...(memory.limit === undefined ? {} : { availableBytes: Math.max(0, memory.limit - memory.workingSet) }),
    usageBytes: memory.usage,
    workingSetBytes: memory.workingSet,
    rssBytes: memory.rss,
    pageFaults: memory.pageFaults,
    majorPageFaults: memory.majorPageFaults,
    ...(psi ? { psi } : {}),
  };
}

/** A kernel that keeps no books of swap has 0 of it, as in the kubelet. */
function swapOf(sample: CgroupSample): s.SwapStats | undefined {
  const { memory, timeMs } = sample;
  if (!memory) return undefined;
  const { swapUsage = 0, swapLimit } = memory;
  const available = swapLimit === undefined ? undefined : Math.max(0, swapLimit - swapUsage);
  return {
    time: isoSeconds(timeMs),
    ...(available === undefined ? {} : { swapAvailableBytes: available }),
    swapUsageBytes: swapUsage,
  };
}

const ioOf = (sample: CgroupSample): s.IoStats | undefined => {
  const psi = psiOf(sample.ioPsi);
  return psi && { time: isoSeconds(sample.timeMs), psi };
};

/** Fields that are there, the others left out. */
function present<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

function networkOf(
  interfaces: readonly InterfaceCounters[],
  main: string | undefined,
  timeMs: number,
): s.NetworkStats | undefined {
  const all = interfaces.map(({ name, rxBytes, rxErrors, txBytes, txErrors }) => ({
    name,
    rxBytes,
    rxErrors,
    txBytes,
    txErrors,
  }));
  const first = all.find((one) => one.name === main) ?? all.find((one) => one.name === 'eth0') ?? all[0];
  return first && { time: isoSeconds(timeMs), ...first, interfaces: all };
}

export const fsOf = (fs: FsUsage | undefined): s.FsStats | undefined => {
  if (!fs) return undefined;
  const { timeMs, ...rest } = fs;
  return {
    time: isoSeconds(timeMs),
    availableBytes: rest.availableBytes,
    capacityBytes: rest.capacityBytes,
    usedBytes: rest.usedBytes,
    inodesFree: rest.inodesFree,
    inodes: rest.inodes,
    inodesUsed: rest.inodesUsed,
  };
};

/** What is used of a part of a file system. */
const partOf = (disk: FsUsage | undefined, usedBytes: number, inodesUsed: number, timeMs: number): s.FsStats => ({
  time: isoSeconds(timeMs),
  ...(disk
    ? {
        availableBytes: disk.availableBytes,
        capacityBytes: disk.capacityBytes,
        inodesFree: disk.inodesFree,
        inodes: disk.inodes,
      }
    : {}),
  usedBytes,
  inodesUsed,
});

const containerBase = (name: string, startedAtMs: number, usage: Usage): s.ContainerStats => ({
  name,
  startTime: timeOrNull(startedAtMs),
  ...present({
    cpu: cpuOf(usage),
    memory: memoryOf(usage.sample),
    io: ioOf(usage.sample),
    swap: swapOf(usage.sample),
  }),
});

/** A container in no cgroup we see: the runtime's own figures. */
function fromRuntime(name: string, startedAtMs: number, stats: RuntimeStats | undefined): s.ContainerStats {
  const { cpu, memory } = stats ?? {};
  return {
    name,
    startTime: timeOrNull(startedAtMs),
    ...(cpu
      ? {
          cpu: {
            time: isoSeconds(cpu.timestampMs),
            usageCoreNanoSeconds: cpu.usageCoreNanoSeconds,
            ...(cpu.usageNanoCores === undefined ? {} : { usageNanoCores: cpu.usageNanoCores }),
          },
        }
      : {}),
    ...(memory
      ? {
          memory: {
            time: isoSeconds(memory.timestampMs),
            workingSetBytes: memory.workingSetBytes,
            ...present({
              availableBytes: memory.availableBytes,
              usageBytes: memory.usageBytes,
              rssBytes: memory.rssBytes,
              pageFaults: memory.pageFaults,
              majorPageFaults: memory.majorPageFaults,
            }),
          },
        }
      : {}),
  };
}

export interface SummaryInput {
  readonly look: Look;
  readonly nodeName: string;
  readonly proc: string;
  /** By container id, for containers in no cgroup that is seen here. */
  readonly runtimeStats: ReadonlyMap<string, RuntimeStats>;
}

function podBase(usage: PodUsage, input: SummaryInput): s.PodStats {
  const { pod } = usage;
  const { name, namespace = '', uid = '' } = pod.metadata;
  return {
    podRef: { name, namespace, uid },
    startTime: timeOrNull(Date.parse(pod.status?.startTime ?? '') || 0),
    containers: [
      ...usage.containers.map((container) => containerBase(container.name, container.startedAtMs, container)),
      ...usage.unseen.map((one) => fromRuntime(one.name, one.startedAtMs, input.runtimeStats.get(one.id))),
    ],
    ...present(
      usage.usage
        ? {
            cpu: cpuOf(usage.usage),
            memory: memoryOf(usage.usage.sample),
            io: ioOf(usage.usage.sample),
            swap: swapOf(usage.usage.sample),
          }
        : {},
    ),
  };
}

function nodeBase(input: SummaryInput): s.NodeStats {
  const { look, nodeName } = input;
  const { host, root } = look;
  const time = isoSeconds(look.timeMs);
  const { memory } = host;
  // The root cgroup knows no limit, and in cgroup v2 no usage: the host's own books say both.
  const usageBytes = memory.total - memory.free;
  const workingSetBytes = Math.max(0, usageBytes - memory.inactiveFile);
  const cpu = root && cpuOf(root);
  const psi = psiOf(root?.sample.memory?.psi);
  return {
    nodeName,
    systemContainers: look.system.map((one) => containerBase(one.name, host.bootMs, one)),
    startTime: isoSeconds(host.bootMs),
    cpu: cpu ?? { time, usageCoreNanoSeconds: host.cpuNs.busy },
    memory: {
      time,
      availableBytes: Math.max(0, memory.total - workingSetBytes),
      usageBytes,
      workingSetBytes,
      rssBytes: memory.anonymous,
      pageFaults: host.pageFaults,
      majorPageFaults: host.majorPageFaults,
      ...(psi ? { psi } : {}),
    },
    swap: { time, swapAvailableBytes: memory.swapFree, swapUsageBytes: memory.swapTotal - memory.swapFree },
  };
}

/** `?only_cpu_and_memory=true`, and what /metrics/resource shows. */
export const cpuAndMemorySummary = (input: SummaryInput): s.Summary => ({
  node: nodeBase(input),
  pods: input.look.pods.map((usage) => podBase(usage, input)),
});

const noLayers: ReadonlyMap<string, FilesystemUsage> = new Map();

export async function fullSummary(input: SummaryInput, files: Filesystems): Promise<s.Summary> {
  const { look, proc } = input;
  const slicer = createSlicer();
  const [node, images, layers] = await Promise.all([
    files.node(),
    files.images(),
    look.pods.length === 0 ? noLayers : files.writableLayers(),
  ]);

  const podFull = async (usage: PodUsage): Promise<s.PodStats> => {
    const base = podBase(usage, input);
    const volumes = await files.volumes(usage.pod);
    let usedBytes = 0;
    let inodesUsed = 0;
    const count = (fs: { usedBytes?: number; inodesUsed?: number }): void => {
      usedBytes += fs.usedBytes ?? 0;
      inodesUsed += fs.inodesUsed ?? 0;
    };
    const ids = new Map([...usage.containers, ...usage.unseen].map((one) => [one.name, one.id]));
    const containers: s.ContainerStats[] = [];
    for (const container of base.containers) {
      const layer = layers.get(ids.get(container.name) ?? '');
      const rootfs = layer && partOf(images.container, layer.usedBytes, layer.inodesUsed, layer.timestampMs);
      const logUsage = await files.logs(usage.pod, container.name);
      const logs = partOf(node, logUsage.usedBytes, logUsage.inodesUsed, look.timeMs);
      if (rootfs) count(rootfs);
      count(logs);
      containers.push({ ...container, ...(rootfs ? { rootfs } : {}), logs });
    }
    for (const volume of volumes) if (volume.ephemeral) count(volume);
    const network = networkOf(usage.interfaces, 'eth0', look.timeMs);
    const processes = usage.usage?.sample.processes?.current;
    return {
      ...base,
      containers,
      ...(network ? { network } : {}),
      ...(volumes.length > 0
        ? {
            volume: volumes.map((volume) => ({
              ...fsOf(volume)!,
              name: volume.name,
              ...(volume.claim ? { pvcRef: { ...volume.claim } } : {}),
              ...(volume.abnormal === undefined ? {} : { volumeHealthStats: { abnormal: volume.abnormal } }),
            })),
          }
        : {}),
      'ephemeral-storage': partOf(node, usedBytes, inodesUsed, look.timeMs),
      ...(processes === undefined ? {} : { process_stats: { process_count: processes } }),
    };
  };

  const pods: s.PodStats[] = [];
  for (const usage of look.pods) {
    pods.push(await podFull(usage));
    await slicer.breathe();
  }
  const network = networkOf(look.hostInterfaces, defaultInterface(proc), look.timeMs);
  return {
    node: {
      ...nodeBase(input),
      ...present({
        network,
        fs: fsOf(node),
        runtime: { ...present({ imageFs: fsOf(images.image), containerFs: fsOf(images.container) }) },
        io: look.root && ioOf(look.root.sample),
      }),
      rlimit: { time: isoSeconds(look.timeMs), maxpid: look.host.maxPid, curproc: look.host.processes },
    },
    pods,
  };
}
