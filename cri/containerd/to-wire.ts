// The port's terms as CRI messages. Pure.
import type * as t from '../types.ts';
import * as wire from './gen/cri.ts';
import { signalToWire } from './signals.ts';

type Partial<T> = wire.DeepPartial<T>;

const namespaceModes: Record<t.NamespaceMode, wire.NamespaceMode> = {
  pod: wire.NamespaceMode.POD,
  container: wire.NamespaceMode.CONTAINER,
  node: wire.NamespaceMode.NODE,
  target: wire.NamespaceMode.TARGET,
};
const propagations: Record<t.Mount['propagation'], wire.MountPropagation> = {
  private: wire.MountPropagation.PROPAGATION_PRIVATE,
  'host-to-container': wire.MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
  bidirectional: wire.MountPropagation.PROPAGATION_BIDIRECTIONAL,
};

const int = (value: number): bigint => BigInt(Math.trunc(value));
const optionalInt = (value: number | undefined) => (value === undefined ? undefined : { value: int(value) });
const ints = (values: readonly number[]): bigint[] => values.map(int);
const idMappings = (mappings: readonly t.IdMapping[] | undefined) =>
  (mappings ?? []).map((mapping) => ({ ...mapping }));

export const metadataToWire = (metadata: t.SandboxMetadata): Partial<wire.PodSandboxMetadata> => ({ ...metadata });

export function namespacesToWire(options: t.NamespaceOptions): Partial<wire.NamespaceOption> {
  return {
    network: namespaceModes[options.network],
    pid: namespaceModes[options.pid],
    ipc: namespaceModes[options.ipc],
    targetId: options.targetId ?? '',
    usernsOptions: options.userns && {
      mode: namespaceModes[options.userns.mode],
      uids: idMappings(options.userns.uids),
      gids: idMappings(options.userns.gids),
    },
  };
}

const profileToWire = (profile: t.SecurityProfile | undefined): Partial<wire.SecurityProfile> | undefined =>
  profile && {
    profileType: wire.SecurityProfile_ProfileType[profile.type],
    localhostRef: profile.localhostRef ?? '',
  };

export function resourcesToWire(
  resources: t.LinuxResources | undefined,
): Partial<wire.LinuxContainerResources> | undefined {
  if (!resources) return undefined;
  return {
    cpuPeriod: int(resources.cpuPeriod ?? 0),
    cpuQuota: int(resources.cpuQuota ?? 0),
    cpuShares: int(resources.cpuShares ?? 0),
    memoryLimitInBytes: int(resources.memoryLimitInBytes ?? 0),
    memorySwapLimitInBytes: int(resources.memorySwapLimitInBytes ?? 0),
    oomScoreAdj: int(resources.oomScoreAdj ?? 0),
    cpusetCpus: resources.cpusetCpus ?? '',
    cpusetMems: resources.cpusetMems ?? '',
    hugepageLimits: (resources.hugepageLimits ?? []).map(({ pageSize, limit }) => ({ pageSize, limit: int(limit) })),
    unified: { ...resources.unified },
  };
}

export function sandboxConfigToWire(config: t.SandboxConfig): Partial<wire.PodSandboxConfig> {
  const { security } = config;
  return {
    metadata: metadataToWire(config.metadata),
    hostname: config.hostname,
    logDirectory: config.logDirectory,
    dnsConfig: config.dns && {
      servers: [...config.dns.servers],
      searches: [...config.dns.searches],
      options: [...config.dns.options],
    },
    portMappings: config.portMappings.map((port) => ({ ...port, protocol: wire.Protocol[port.protocol] })),
    labels: { ...config.labels },
    annotations: { ...config.annotations },
    linux: {
      cgroupParent: config.cgroupParent,
      sysctls: { ...config.sysctls },
      overhead: resourcesToWire(config.overhead),
      resources: resourcesToWire(config.resources),
      securityContext: {
        namespaceOptions: namespacesToWire(security.namespaces),
        selinuxOptions: security.selinux && { ...security.selinux },
        runAsUser: optionalInt(security.runAsUser),
        runAsGroup: optionalInt(security.runAsGroup),
        readonlyRootfs: security.readonlyRootfs,
        supplementalGroups: ints(security.supplementalGroups),
        supplementalGroupsPolicy: wire.SupplementalGroupsPolicy[security.supplementalGroupsPolicy],
        privileged: security.privileged,
        seccomp: profileToWire(security.seccomp),
        apparmor: profileToWire(security.apparmor),
      },
    },
  };
}

export const imageToWire = (image: t.ImageSpec): Partial<wire.ImageSpec> => ({
  image: image.image,
  annotations: { ...image.annotations },
  userSpecifiedImage: image.userSpecifiedImage ?? '',
  runtimeHandler: image.runtimeHandler ?? '',
});

const mountToWire = (mount: t.Mount): Partial<wire.Mount> => ({
  containerPath: mount.containerPath,
  hostPath: mount.hostPath,
  readonly: mount.readonly,
  recursiveReadOnly: mount.recursiveReadOnly,
  selinuxRelabel: mount.selinuxRelabel,
  propagation: propagations[mount.propagation],
  image: mount.image && imageToWire(mount.image),
  imageSubPath: mount.imageSubPath ?? '',
  uidMappings: idMappings(mount.uidMappings),
  gidMappings: idMappings(mount.gidMappings),
});

export function containerConfigToWire(config: t.ContainerConfig): Partial<wire.ContainerConfig> {
  const { security } = config;
  return {
    metadata: { ...config.metadata },
    image: imageToWire(config.image),
    command: [...config.command],
    args: [...config.args],
    workingDir: config.workingDir,
    envs: config.envs.map(({ key, value }) => ({ key, value })),
    mounts: config.mounts.map(mountToWire),
    devices: config.devices.map((device) => ({ ...device })),
    cdiDevices: config.cdiDevices.map(({ name }) => ({ name })),
    labels: { ...config.labels },
    annotations: { ...config.annotations },
    logPath: config.logPath,
    stdin: config.stdin,
    stdinOnce: config.stdinOnce,
    tty: config.tty,
    stopSignal: signalToWire(config.stopSignal),
    linux: {
      resources: resourcesToWire(config.resources),
      securityContext: {
        capabilities: {
          addCapabilities: [...security.capabilities.add],
          dropCapabilities: [...security.capabilities.drop],
        },
        privileged: security.privileged,
        namespaceOptions: namespacesToWire(security.namespaces),
        selinuxOptions: security.selinux && { ...security.selinux },
        runAsUser: optionalInt(security.runAsUser),
        runAsGroup: optionalInt(security.runAsGroup),
        runAsUsername: security.runAsUsername ?? '',
        readonlyRootfs: security.readonlyRootfs,
        supplementalGroups: ints(security.supplementalGroups),
        supplementalGroupsPolicy: wire.SupplementalGroupsPolicy[security.supplementalGroupsPolicy],
        noNewPrivs: security.noNewPrivs,
        maskedPaths: [...security.maskedPaths],
        readonlyPaths: [...security.readonlyPaths],
        seccomp: profileToWire(security.seccomp),
        apparmor: profileToWire(security.apparmor),
      },
    },
  };
}

export const authToWire = (auth: t.RegistryAuth | undefined): Partial<wire.AuthConfig> | undefined =>
  auth && {
    username: auth.username ?? '',
    password: auth.password ?? '',
    auth: auth.auth ?? '',
    serverAddress: auth.serverAddress ?? '',
    identityToken: auth.identityToken ?? '',
    registryToken: auth.registryToken ?? '',
  };

const podUidLabel = 'io.kubernetes.pod.uid';
const selector = (podUid: string | undefined): Record<string, string> =>
  podUid === undefined ? {} : { [podUidLabel]: podUid };

export const sandboxFilterToWire = (filter: t.SandboxFilter | undefined): Partial<wire.PodSandboxFilter> | undefined =>
  filter && { id: filter.id ?? '', labelSelector: selector(filter.podUid) };

export const containerFilterToWire = (
  filter: t.ContainerFilter | undefined,
): Partial<wire.ContainerFilter> | undefined =>
  filter && { id: filter.id ?? '', podSandboxId: filter.sandboxId ?? '', labelSelector: selector(filter.podUid) };
