// Sandboxes and containers as Docker's create call wants them. Pure; what it cannot do throws a RuntimeError (`invalid`).
import type { ContainerCreateOptions, HostConfig } from 'dockerode';
import type * as t from '../types.ts';
import {
  type ContainerRecord,
  containerLabels,
  containerName,
  type SandboxRecord,
  sandboxLabels,
  sandboxName,
} from './labels.ts';
import {
  type HostLimits,
  limitsOf,
  oomScoreOf,
  privilegedOptions,
  refuse,
  refuseSecurity,
  securityOptions,
} from './resources.ts';

export interface SpecFacts {
  /** The OCI runtime that containers of the sandbox run by; empty: the default. */
  readonly runtimeHandler?: string;
  readonly limits: HostLimits;
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
  /** Content of the seccomp profile where a localhost one is named. */
  readonly seccompText?: string | undefined;
  /** Since 1.44 read-only mounts are read-only below too unless told otherwise. */
  readonly tellsNonRecursive: boolean;
}

// Docker's own copy of the output: what a stopped agent may fall behind by before lines are lost.
const logConfig = { Type: 'json-file', Config: { 'max-size': '20m', 'max-file': '5' } };

const shared = (facts: SpecFacts, cgroupParent: string): HostConfig => ({
  RestartPolicy: { Name: 'no' },
  AutoRemove: false,
  LogConfig: logConfig,
  // The daemon may remap the users of its containers; pods share volumes and namespaces with the host's ids.
  UsernsMode: 'host',
  CgroupParent: cgroupParentOf(cgroupParent, facts.cgroupDriver),
});

/** The systemd driver wants the slice's name alone, and knows the path that leads to it. */
export const cgroupParentOf = (path: string, driver: SpecFacts['cgroupDriver']): string =>
  driver === 'systemd' ? path.slice(path.lastIndexOf('/') + 1) : path;

const user = (security: Pick<t.ContainerSecurity, 'runAsUser' | 'runAsGroup' | 'runAsUsername'>): string => {
  const name = security.runAsUser === undefined ? (security.runAsUsername ?? '') : String(security.runAsUser);
  return name !== '' && security.runAsGroup !== undefined ? `${name}:${security.runAsGroup}` : name;
};

export function sandboxSpec(
  config: t.SandboxConfig,
  record: SandboxRecord,
  image: string,
  facts: SpecFacts,
): ContainerCreateOptions {
  const call = 'RunPodSandbox';
  const { security } = config;
  refuseSecurity(call, security);
  const host = security.namespaces.network === 'node';
  return {
    name: sandboxName(config.metadata),
    Image: image,
    Labels: sandboxLabels(record),
    ...(host || config.hostname === '' ? {} : { Hostname: config.hostname }),
    ...(user(security) === '' ? {} : { User: user(security) }),
    Healthcheck: { Test: ['NONE'] },
    ...(record.network === 'bridge' ? { ExposedPorts: exposedPorts(config.portMappings) } : {}),
    HostConfig: {
      ...shared(facts, config.cgroupParent),
      NetworkMode: host ? 'host' : record.network === 'bridge' ? 'bridge' : 'none',
      ...(record.network === 'bridge' ? { PortBindings: portBindings(config.portMappings) } : {}),
      ...(host ? { UTSMode: 'host' } : {}),
      IpcMode: security.namespaces.ipc === 'node' ? 'host' : 'shareable',
      PidMode: security.namespaces.pid === 'node' ? 'host' : '',
      // Docker switches IPv6 off where none of its own networks has it; what a pod has, CNI says.
      Sysctls: {
        ...(record.network === 'cni' && facts.limits.ipv6 ? { 'net.ipv6.conf.all.disable_ipv6': '0' } : {}),
        ...config.sysctls,
      },
      OomScoreAdj: oomScoreOf(undefined, -998, facts.limits),
      ReadonlyRootfs: security.readonlyRootfs,
      GroupAdd: security.supplementalGroups.map(String),
      // The pause process needs nothing; it does what it does under the profile that the pod was given.
      SecurityOpt: securityOptions({ ...security, noNewPrivs: true, privileged: false }, facts.seccompText),

      ...(record.runtimeHandler === '' ? {} : { Runtime: record.runtimeHandler }),
    },
  };
}

const protocolPort = (port: t.PortMapping): string => `${port.containerPort}/${port.protocol.toLowerCase()}`;
const exposedPorts = (ports: readonly t.PortMapping[]): Record<string, object> =>
  Object.fromEntries(ports.map((port) => [protocolPort(port), {}]));
function portBindings(ports: readonly t.PortMapping[]): Record<string, { HostIp: string; HostPort: string }[]> {
  const bindings: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const port of ports.filter(({ hostPort }) => hostPort > 0)) {
    const name = protocolPort(port);
    bindings[name] = [...(bindings[name] ?? []), { HostIp: port.hostIp, HostPort: String(port.hostPort) }];
  }
  return bindings;
}

const propagations = { private: 'rprivate', 'host-to-container': 'rslave', bidirectional: 'rshared' } as const;

function refuseMount(mount: t.Mount): void {
  const call = 'CreateContainer';
  const at = `the mount at ${mount.containerPath}`;
  if (mount.image !== undefined) refuse(call, `${at} is an image volume`);
  if (mount.recursiveReadOnly) refuse(call, `${at} is to be read-only recursively`);
  if ((mount.uidMappings?.length ?? 0) > 0 || (mount.gidMappings?.length ?? 0) > 0)
    refuse(call, `${at} has its ids mapped`);
}

function mountsOf(mounts: readonly t.Mount[], facts: SpecFacts): Pick<HostConfig, 'Mounts' | 'Binds'> {
  const asBinds: string[] = [];
  const asMounts: unknown[] = [];
  for (const mount of mounts) {
    refuseMount(mount);
    const propagation = propagations[mount.propagation];
    if (mount.selinuxRelabel && !/[:]/.test(mount.hostPath + mount.containerPath)) {
      // Only this older form can relabel.
      const options = [...(mount.readonly ? ['ro'] : []), propagation, 'Z'];
      asBinds.push(`${mount.hostPath}:${mount.containerPath}:${options.join(',')}`);
      continue;
    }
    asMounts.push({
      Type: 'bind',
      Source: mount.hostPath,
      Target: mount.containerPath,
      ReadOnly: mount.readonly,
      BindOptions: {
        Propagation: propagation,
        ...(facts.tellsNonRecursive && mount.readonly ? { ReadOnlyNonRecursive: true } : {}),
      },
    });
  }
  return { Binds: asBinds, Mounts: asMounts as NonNullable<HostConfig['Mounts']> };
}

function namespacesOf(options: t.NamespaceOptions, sandbox: string): Partial<HostConfig> {
  const pid =
    options.pid === 'node'
      ? 'host'
      : options.pid === 'pod'
        ? `container:${sandbox}`
        : options.pid === 'target'
          ? `container:${options.targetId ?? ''}`
          : '';
  return {
    NetworkMode: `container:${sandbox}`,
    IpcMode: options.ipc === 'node' ? 'host' : `container:${sandbox}`,
    PidMode: pid,
    ...(options.network === 'node' ? { UTSMode: 'host' } : {}),
  };
}

export function containerSpec(
  sandboxId: string,
  config: t.ContainerConfig,
  sandbox: t.SandboxConfig,
  record: ContainerRecord,
  facts: SpecFacts,
): ContainerCreateOptions {
  const call = 'CreateContainer';
  const { security, resources } = config;
  refuseSecurity(call, security);
  if (config.cdiDevices.length > 0) refuse(call, `CDI devices (${config.cdiDevices[0]?.name})`);
  const devices = config.devices.map((device) => ({
    PathOnHost: device.hostPath,
    PathInContainer: device.containerPath,
    CgroupPermissions: device.permissions,
  }));
  const hostConfig: HostConfig = {
    ...shared(facts, sandbox.cgroupParent),
    ...namespacesOf(security.namespaces, sandboxId),
    ...limitsOf(resources),
    ...mountsOf(config.mounts, facts),
    OomScoreAdj: oomScoreOf(resources, 0, facts.limits),
    ReadonlyRootfs: security.readonlyRootfs,
    GroupAdd: security.supplementalGroups.map(String),
    CapAdd: [...security.capabilities.add],
    CapDrop: [...security.capabilities.drop],
    Devices: devices,
    SecurityOpt: securityOptions(security, facts.seccompText),
    ...(facts.runtimeHandler ? { Runtime: facts.runtimeHandler } : {}),
    ...(security.privileged
      ? privilegedOptions(facts.limits)
      : { MaskedPaths: [...security.maskedPaths], ReadonlyPaths: [...security.readonlyPaths] }),
  };
  return {
    name: containerName(config.metadata, sandbox.metadata),
    Image: config.image.image,
    Labels: containerLabels(record, sandboxId, sandbox.metadata.uid),
    ...(config.command.length > 0 ? { Entrypoint: [...config.command] } : {}),
    ...(config.args.length > 0 ? { Cmd: [...config.args] } : {}),
    Env: config.envs.map(({ key, value }) => `${key}=${value}`),
    ...(config.workingDir === '' ? {} : { WorkingDir: config.workingDir }),
    ...(user(security) === '' ? {} : { User: user(security) }),
    ...(config.stopSignal === undefined ? {} : { StopSignal: config.stopSignal }),
    OpenStdin: config.stdin,
    StdinOnce: config.stdinOnce,
    Tty: config.tty,
    // Kubernetes has probes of its own.
    Healthcheck: { Test: ['NONE'] },
    HostConfig: hostConfig,
  };
}
