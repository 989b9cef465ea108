// What the runtime is told of a pod's sandbox.
import type { PortMapping, SandboxConfig } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { overheadResources, type ResourceFacts, sandboxResources } from '../resources/linux-resources.ts';
import { isSidecar } from '../../kube/scheduling/pod-resources.ts';
import type { DnsConfig } from './dns.ts';
import { kernelHostname, type PodHostname } from './hostname.ts';
import { sandboxAnnotations, sandboxLabels } from './labels.ts';
import { podLogDirectory } from './log-path.ts';
import { podNamespaces, type UserNamespace } from './namespaces.ts';
import { selinuxOf, supplementalGroups } from './security.ts';

export interface SandboxInput {
  readonly pod: Pod;
  /** How many sandboxes the pod had before this one. */
  readonly attempt: number;
  /** Where the pod came from and when the node first saw it, in milliseconds since the epoch. */
  readonly seen: { readonly source: 'api' | 'file' | 'http'; readonly atMs: number };
  /** From podHostname(). */
  readonly name: PodHostname;
  /** From podDns(). */
  readonly dns: DnsConfig;
  /** As the runtime wants it: from PodCgroups.parentFor(). */
  readonly cgroupParent: string;
  /** For pods with hostUsers: false. */
  readonly userns?: UserNamespace | undefined;
  /** Groups that the pod's volumes ask for. */
  readonly volumeGroups: readonly number[];
}

export interface SandboxFacts extends ResourceFacts {
  /** KubeletConfiguration podLogsDir, usually /var/log/pods. */
  readonly podLogsDirectory: string;
}

const allContainers = (pod: Pod): readonly Container[] => [
  ...(pod.spec.initContainers ?? []),
  ...pod.spec.containers,
  ...(pod.spec.ephemeralContainers ?? []),
];

/** Host ports of the containers that run as long as the pod; each name, or address and port, once in a container. */
export function portMappings(pod: Pod): PortMapping[] {
  if (pod.spec.hostNetwork) return [];
  const running = [...(pod.spec.initContainers ?? []).filter(isSidecar), ...pod.spec.containers];
  return running.flatMap((container) => {
    const names = new Set<string>();
    return (container.ports ?? []).flatMap((port): PortMapping[] => {
      const hostIp = port.hostIP ?? '';
      const protocol = port.protocol ?? 'TCP';
      const hostPort = port.hostPort ?? 0;
      const name = port.name || `${protocol} ${hostIp} ${port.containerPort} ${hostPort}`;
      if (names.has(name)) return [];
      names.add(name);
      return hostPort > 0 ? [{ protocol, containerPort: port.containerPort, hostPort, hostIp }] : [];
    });
  });
}

/** Throws a ConfigError where the pod's name cannot be made; the pod then waits, with an Event FailedCreatePodSandBox. */
export function sandboxConfig(input: SandboxInput, facts: SandboxFacts): SandboxConfig {
  const { pod } = input;
  const security = pod.spec.securityContext ?? {};
  return {
    metadata: {
      name: pod.metadata.name,
      namespace: pod.metadata.namespace ?? 'default',
      uid: pod.metadata.uid ?? '',
      attempt: input.attempt,
    },
    hostname: pod.spec.hostNetwork ? '' : kernelHostname(pod, input.name),
    logDirectory: podLogDirectory(facts.podLogsDirectory, pod),
    dns: input.dns,
    portMappings: portMappings(pod),
    labels: sandboxLabels(pod),
    annotations: sandboxAnnotations(pod, input.seen),
    cgroupParent: input.cgroupParent,
    sysctls: Object.fromEntries((security.sysctls ?? []).map(({ name, value }) => [name, value])),
    security: {
      namespaces: podNamespaces(pod, input.userns),
      ...(security.seLinuxOptions ? { selinux: selinuxOf(security.seLinuxOptions) } : {}),
      ...(security.runAsUser === undefined ? {} : { runAsUser: security.runAsUser }),
      ...(security.runAsGroup === undefined ? {} : { runAsGroup: security.runAsGroup }),
      readonlyRootfs: false,
      supplementalGroups: supplementalGroups(pod, input.volumeGroups),
      supplementalGroupsPolicy: security.supplementalGroupsPolicy ?? 'Merge',
      privileged: allContainers(pod).some((container) => container.securityContext?.privileged),
      // The pause process needs no more, whatever profile the pod's containers have.
      seccomp: { type: 'RuntimeDefault' },
    },
    resources: sandboxResources(pod, facts),
    overhead: overheadResources(pod, facts),
  };
}
