// CRI messages as the port's terms. Pure.
import type * as t from '../types.ts';
import * as wire from './gen/cri.ts';
import { signalFromWire } from './signals.ts';

/** Nanoseconds since the epoch to milliseconds; 0 stays 0. What is before the epoch (Go's zero time) is 0. */
export const msFromNs = (ns: bigint): number => (ns > 0n ? Number(ns / 1_000_000n) : 0);

const optional = (value: wire.UInt64Value | undefined): number | undefined => (value ? Number(value.value) : undefined);

const namespaceModes: Record<wire.NamespaceMode, t.NamespaceMode> = {
  [wire.NamespaceMode.POD]: 'pod',
  [wire.NamespaceMode.CONTAINER]: 'container',
  [wire.NamespaceMode.NODE]: 'node',
  [wire.NamespaceMode.TARGET]: 'target',
};

const metadata = (value: wire.PodSandboxMetadata | undefined): t.SandboxMetadata => ({
  name: value?.name ?? '',
  uid: value?.uid ?? '',
  namespace: value?.namespace ?? '',
  attempt: value?.attempt ?? 0,
});

const containerMetadata = (value: wire.ContainerMetadata | undefined): t.ContainerMetadata => ({
  name: value?.name ?? '',
  attempt: value?.attempt ?? 0,
});

/** What only a verbose Status tells, and no runtime changes while it runs. */
export interface RuntimeFacts {
  readonly cgroupDriver: t.RuntimeStatus['cgroupDriver'];
  readonly losingSupport?: string;
  readonly snapshotterRoot: string | undefined;
  readonly sandboxImage: string | undefined;
}

export function statusFromWire(response: wire.StatusResponse, facts: RuntimeFacts): t.RuntimeStatus {
  return {
    conditions: (response.status?.conditions ?? []).map((condition) => ({ ...condition })),
    runtimeHandlers: response.runtimeHandlers.map((handler) => ({
      name: handler.name,
      recursiveReadOnlyMounts: handler.features?.recursiveReadOnlyMounts ?? false,
      userNamespaces: handler.features?.userNamespaces ?? false,
    })),
    supplementalGroupsPolicy: response.features?.supplementalGroupsPolicy ?? false,
    ...facts,
  };
}

export const driverFromWire = (response: wire.RuntimeConfigResponse): t.RuntimeStatus['cgroupDriver'] =>
  response.linux && (response.linux.cgroupDriver === wire.CgroupDriver.SYSTEMD ? 'systemd' : 'cgroupfs');

const record = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};

/** The JSON of a verbose answer; empty where it is missing or is none. */
export function verboseInfo(info: Readonly<Record<string, string>>, key: string): Record<string, unknown> {
  try {
    return record(JSON.parse(info[key] ?? '{}'));
  } catch {
    return {};
  }
}

/** containerd before 2.0 has no RuntimeConfig; its verbose Status shows the configuration of the default runtime. */
export function driverFromInfo(info: Readonly<Record<string, string>>): t.RuntimeStatus['cgroupDriver'] {
  const config = verboseInfo(info, 'config');
  const containerd = record(config.containerd);
  const name = typeof containerd.defaultRuntimeName === 'string' ? containerd.defaultRuntimeName : 'runc';
  const options = record(record(record(containerd.runtimes)[name]).options);
  const systemd = options.SystemdCgroup ?? config.systemdCgroup;
  return typeof systemd === 'boolean' ? (systemd ? 'systemd' : 'cgroupfs') : undefined;
}

export function factsFromInfo(
  info: Readonly<Record<string, string>>,
  cgroupDriver: t.RuntimeStatus['cgroupDriver'],
): RuntimeFacts {
  const config = verboseInfo(info, 'config');
  const { containerdRootDir: root, sandboxImage } = config;
  const { snapshotter } = record(config.containerd);
  return {
    cgroupDriver,
    snapshotterRoot:
      typeof root === 'string' && typeof snapshotter === 'string'
        ? `${root}/io.containerd.snapshotter.v1.${snapshotter}`
        : undefined,
    sandboxImage: typeof sandboxImage === 'string' && sandboxImage !== '' ? sandboxImage : undefined,
  };
}

export function sandboxFromWire(sandbox: wire.PodSandbox | wire.PodSandboxStatus): t.SandboxSummary {
  return {
    id: sandbox.id as t.SandboxId,
    metadata: metadata(sandbox.metadata),
    state: sandbox.state === wire.PodSandboxState.SANDBOX_READY ? 'ready' : 'notready',
    createdAtMs: msFromNs(sandbox.createdAt),
    labels: sandbox.labels,
    annotations: sandbox.annotations,
    runtimeHandler: sandbox.runtimeHandler,
  };
}

function namespacesFromWire(options: wire.NamespaceOption | undefined): t.NamespaceOptions | undefined {
  if (!options) return undefined;
  const userns = options.usernsOptions;
  return {
    network: namespaceModes[options.network],
    pid: namespaceModes[options.pid],
    ipc: namespaceModes[options.ipc],
    ...(options.targetId === '' ? {} : { targetId: options.targetId as t.ContainerId }),
    ...(userns
      ? {
          userns: {
            mode: userns.mode === wire.NamespaceMode.POD ? 'pod' : 'node',
            uids: userns.uids,
            gids: userns.gids,
          },
        }
      : {}),
  };
}

function networkNamespace(info: Record<string, unknown>): string | undefined {
  const namespaces = record(record(info.runtimeSpec).linux).namespaces;
  if (!Array.isArray(namespaces)) return undefined;
  const network = namespaces.map(record).find((namespace) => namespace.type === 'network');
  return typeof network?.path === 'string' && network.path !== '' ? network.path : undefined;
}

const pidOf = (info: Record<string, unknown>): number | undefined =>
  typeof info.pid === 'number' && info.pid > 0 ? info.pid : undefined;

export function sandboxStatusFromWire(
  status: wire.PodSandboxStatus,
  info: Readonly<Record<string, string>>,
): t.SandboxStatus {
  const verbose = verboseInfo(info, 'info');
  const ips = [status.network?.ip ?? '', ...(status.network?.additionalIps ?? []).map(({ ip }) => ip)];
  return {
    ...sandboxFromWire(status),
    ips: ips.filter((ip) => ip !== ''),
    namespaces: namespacesFromWire(status.linux?.namespaces?.options),
    pid: pidOf(verbose),
    networkNamespace: networkNamespace(verbose),
    image: typeof verbose.image === 'string' && verbose.image !== '' ? verbose.image : undefined,
  };
}

const containerStates: Record<wire.ContainerState, t.ContainerRuntimeState> = {
  [wire.ContainerState.CONTAINER_CREATED]: 'created',
  [wire.ContainerState.CONTAINER_RUNNING]: 'running',
  [wire.ContainerState.CONTAINER_EXITED]: 'exited',
  [wire.ContainerState.CONTAINER_UNKNOWN]: 'unknown',
};

export function containerFromWire(container: wire.Container): t.ContainerSummary {
  return {
    id: container.id as t.ContainerId,
    sandboxId: container.podSandboxId as t.SandboxId,
    metadata: containerMetadata(container.metadata),
    image: container.image?.userSpecifiedImage || (container.image?.image ?? ''),
    imageRef: container.imageRef,
    // containerd before 2.0 has no image_id; there the reference of the running image is the image's id.
    imageId: container.imageId || container.imageRef,
    state: containerStates[container.state] ?? 'unknown',
    createdAtMs: msFromNs(container.createdAt),
    labels: container.labels,
    annotations: container.annotations,
  };
}

const propagations: Record<wire.MountPropagation, t.Mount['propagation']> = {
  [wire.MountPropagation.PROPAGATION_PRIVATE]: 'private',
  [wire.MountPropagation.PROPAGATION_HOST_TO_CONTAINER]: 'host-to-container',
  [wire.MountPropagation.PROPAGATION_BIDIRECTIONAL]: 'bidirectional',
};

function mountFromWire(mount: wire.Mount): t.Mount {
  return {
    containerPath: mount.containerPath,
    hostPath: mount.hostPath,
    readonly: mount.readonly,
    recursiveReadOnly: mount.recursiveReadOnly,
    selinuxRelabel: mount.selinuxRelabel,
    propagation: propagations[mount.propagation] ?? 'private',
    ...(mount.image ? { image: { image: mount.image.image } } : {}),
    ...(mount.imageSubPath === '' ? {} : { imageSubPath: mount.imageSubPath }),
  };
}

export function resourcesFromWire(resources: wire.LinuxContainerResources): t.LinuxResources {
  return {
    cpuPeriod: Number(resources.cpuPeriod),
    cpuQuota: Number(resources.cpuQuota),
    cpuShares: Number(resources.cpuShares),
    memoryLimitInBytes: Number(resources.memoryLimitInBytes),
    memorySwapLimitInBytes: Number(resources.memorySwapLimitInBytes),
    oomScoreAdj: Number(resources.oomScoreAdj),
    cpusetCpus: resources.cpusetCpus,
    cpusetMems: resources.cpusetMems,
    hugepageLimits: resources.hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limit: Number(limit) })),
    unified: resources.unified,
  };
}

export function inspectionFromWire(
  status: wire.ContainerStatus,
  info: Readonly<Record<string, string>>,
): t.ContainerInspection {
  const user = status.user?.linux;
  const finishedAtMs = msFromNs(status.finishedAt);
  return {
    id: status.id as t.ContainerId,
    metadata: containerMetadata(status.metadata),
    state: containerStates[status.state] ?? 'unknown',
    createdAtMs: msFromNs(status.createdAt),
    // containerd notes the start after the process runs, so one that ends at once seems to end before it began.
    startedAtMs:
      status.finishedAt > 0n ? Math.min(msFromNs(status.startedAt), finishedAtMs) : msFromNs(status.startedAt),
    finishedAtMs,
    exitCode: status.exitCode,
    image: status.image?.userSpecifiedImage || (status.image?.image ?? ''),
    imageRef: status.imageRef,
    imageId: status.imageId || status.imageRef,
    reason: status.reason,
    message: status.message,
    labels: status.labels,
    annotations: status.annotations,
    mounts: status.mounts.map(mountFromWire),
    logPath: status.logPath,
    resources: status.resources?.linux && resourcesFromWire(status.resources.linux),
    user: user && {
      uid: Number(user.uid),
      gid: Number(user.gid),
      supplementalGroups: user.supplementalGroups.map(Number),
    },
    stopSignal: signalFromWire(status.stopSignal),
    pid: pidOf(verboseInfo(info, 'info')),
  };
}

export function imageFromWire(image: wire.Image): t.Image {
  return {
    id: image.id,
    repoTags: image.repoTags,
    repoDigests: image.repoDigests,
    sizeBytes: Number(image.size),
    uid: image.uid ? Number(image.uid.value) : undefined,
    username: image.username,
    pinned: image.pinned,
  };
}

export function filesystemFromWire(usage: wire.FilesystemUsage): t.FilesystemUsage {
  return {
    timestampMs: msFromNs(usage.timestamp),
    mountpoint: usage.fsId?.mountpoint ?? '',
    usedBytes: optional(usage.usedBytes) ?? 0,
    inodesUsed: optional(usage.inodesUsed) ?? 0,
  };
}

export function statsFromWire(stats: wire.ContainerStats): t.ContainerStats {
  const { attributes, cpu, memory, swap, writableLayer } = stats;
  return {
    id: (attributes?.id ?? '') as t.ContainerId,
    metadata: containerMetadata(attributes?.metadata),
    labels: attributes?.labels ?? {},
    annotations: attributes?.annotations ?? {},
    cpu: cpu && {
      timestampMs: msFromNs(cpu.timestamp),
      usageCoreNanoSeconds: optional(cpu.usageCoreNanoSeconds) ?? 0,
      usageNanoCores: optional(cpu.usageNanoCores),
    },
    memory: memory && {
      timestampMs: msFromNs(memory.timestamp),
      workingSetBytes: optional(memory.workingSetBytes) ?? 0,
      availableBytes: optional(memory.availableBytes),
      usageBytes: optional(memory.usageBytes),
      rssBytes: optional(memory.rssBytes),
      pageFaults: optional(memory.pageFaults),
      majorPageFaults: optional(memory.majorPageFaults),
    },
    writableLayer: writableLayer && filesystemFromWire(writableLayer),
    swap: swap && {
      timestampMs: msFromNs(swap.timestamp),
      availableBytes: optional(swap.swapAvailableBytes) ?? 0,
      usageBytes: optional(swap.swapUsageBytes) ?? 0,
    },
  };
}
