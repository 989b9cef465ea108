// The security context of a container: what the pod says, what the container says instead, and the node's defaults.
import type { ContainerId, ContainerSecurity, SecurityProfile, SELinux } from '../../cri/types.ts';
import type {
  AppArmorProfile,
  Container,
  Pod,
  SeccompProfile,
  SecurityContext,
  SELinuxOptions,
} from '../../kube/types/pod.ts';
import { ConfigError, podName } from './config-error.ts';
import { podNamespaces, type UserNamespace } from './namespaces.ts';

export interface SecurityFacts {
  /** `<root>/seccomp`: where Localhost profiles are. */
  readonly seccompProfileRoot: string;
  /** KubeletConfiguration seccompDefault. */
  readonly seccompDefault: boolean;
  /** Paths of this host to mask besides the usual ones: the CPUs' thermal_throttle folders. */
  readonly moreMaskedPaths: readonly string[];
}

/** The user that the image says its process runs as. Neither: root. */
export interface ImageUser {
  readonly uid?: number | undefined;
  readonly username?: string | undefined;
}

const maskedPaths = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/** The container's fields where it sets them, else the pod's. */
export function effectiveSecurity(pod: Pod, container: Container): SecurityContext {
  const { seLinuxOptions, runAsUser, runAsGroup, runAsNonRoot } = pod.spec.securityContext ?? {};
  return {
    ...(seLinuxOptions === undefined ? {} : { seLinuxOptions }),
    ...(runAsUser === undefined ? {} : { runAsUser }),
    ...(runAsGroup === undefined ? {} : { runAsGroup }),
    ...(runAsNonRoot === undefined ? {} : { runAsNonRoot }),
    ...container.securityContext,
  };
}

/** Throws a ConfigError where runAsNonRoot is asked for and the process would be, or might be, root. */
export function verifyRunAsNonRoot(pod: Pod, container: Container, image: ImageUser): void {
  const security = effectiveSecurity(pod, container);
  if (!security.runAsNonRoot) return;
  const where = `(pod: "${podName(pod)}", container: ${container.name})`;
  if (security.runAsUser !== undefined) {
    if (security.runAsUser === 0) throw new ConfigError(`container's runAsUser breaks non-root policy ${where}`);
    return;
  }
  if (image.uid === undefined && image.username)
    throw new ConfigError(
      `container has runAsNonRoot and image has non-numeric user (${image.username}), cannot verify user is non-root ${where}`,
    );
  const uid = image.uid ?? 0;
  if (uid === 0) throw new ConfigError(`container has runAsNonRoot and image will run as root ${where}`);
  if (uid < 0 || uid > 2_147_483_647)
    throw new ConfigError(
      `container has runAsNonRoot and image has an invalid user id (${uid}). (Must be 1-(2147483647)): must be between 0 and 2147483647, inclusive ${where}`,
    );
}

export const selinuxOf = (options: SELinuxOptions): SELinux => ({
  user: options.user ?? '',
  role: options.role ?? '',
  type: options.type ?? '',
  level: options.level ?? '',
});

function seccomp(profile: SeccompProfile | undefined, facts: SecurityFacts): SecurityProfile {
  if (!profile) return { type: facts.seccompDefault ? 'RuntimeDefault' : 'Unconfined' };
  if (profile.type !== 'Localhost') return { type: profile.type };
  if (!profile.localhostProfile)
    throw new ConfigError('localhostProfile must be set if seccompProfile type is Localhost.');
  return { type: 'Localhost', localhostRef: `${facts.seccompProfileRoot}/${profile.localhostProfile}` };
}

const appArmorAnnotation = 'container.apparmor.security.beta.kubernetes.io/';

function appArmorOfAnnotation(value: string | undefined): AppArmorProfile | undefined {
  if (value === 'runtime/default') return { type: 'RuntimeDefault' };
  if (value === 'unconfined') return { type: 'Unconfined' };
  if (value?.startsWith('localhost/')) return { type: 'Localhost', localhostProfile: value.slice('localhost/'.length) };
  return undefined;
}

/** The container's field, else the old annotation (static pods have only that), else the pod's field. */
export function appArmorProfile(pod: Pod, container: Container): AppArmorProfile | undefined {
  return (
    container.securityContext?.appArmorProfile ??
    appArmorOfAnnotation(pod.metadata.annotations?.[`${appArmorAnnotation}${container.name}`]) ??
    pod.spec.securityContext?.appArmorProfile
  );
}

function appArmor(profile: AppArmorProfile): SecurityProfile {
  if (profile.type !== 'Localhost') return { type: profile.type };
  if (profile.localhostProfile === undefined) throw new ConfigError('missing localhost apparmor profile name');
  return { type: 'Localhost', localhostRef: profile.localhostProfile };
}

/** fsGroup, the pod's groups, and those its volumes ask for. */
export const supplementalGroups = (pod: Pod, ofVolumes: readonly number[]): number[] => {
  const { fsGroup, supplementalGroups: groups = [] } = pod.spec.securityContext ?? {};
  return [...(fsGroup === undefined ? [] : [fsGroup]), ...groups, ...ofVolumes];
};

export interface SecurityInput {
  readonly pod: Pod;
  readonly container: Container;
  readonly image: ImageUser;
  readonly volumeGroups: readonly number[];
  readonly userns?: UserNamespace | undefined;
  readonly target?: ContainerId | undefined;
}

/** Throws a ConfigError for profiles without a name. Does not check runAsNonRoot: verifyRunAsNonRoot does. */
export function containerSecurity(input: SecurityInput, facts: SecurityFacts): ContainerSecurity {
  const { pod, container, image } = input;
  const security = effectiveSecurity(pod, container);
  const armor = appArmorProfile(pod, container);
  const unmasked = security.procMount === 'Unmasked';
  const ownUser = security.runAsUser;
  const user: { runAsUser?: number; runAsUsername?: string } =
    ownUser !== undefined
      ? { runAsUser: ownUser }
      : image.uid === undefined && image.username
        ? { runAsUsername: image.username }
        : { runAsUser: image.uid ?? 0 };
  return {
    capabilities: { add: security.capabilities?.add ?? [], drop: security.capabilities?.drop ?? [] },
    privileged: security.privileged ?? false,
    namespaces: podNamespaces(pod, input.userns, input.target),
    ...(security.seLinuxOptions ? { selinux: selinuxOf(security.seLinuxOptions) } : {}),
    ...user,
    ...(security.runAsGroup === undefined ? {} : { runAsGroup: security.runAsGroup }),
    readonlyRootfs: security.readOnlyRootFilesystem ?? false,
    supplementalGroups: supplementalGroups(pod, input.volumeGroups),
    supplementalGroupsPolicy: pod.spec.securityContext?.supplementalGroupsPolicy ?? 'Merge',
    noNewPrivs: security.allowPrivilegeEscalation === false,
    maskedPaths: unmasked ? [] : [...maskedPaths, ...facts.moreMaskedPaths],
    readonlyPaths: unmasked ? [] : readonlyPaths,
    seccomp: seccomp(container.securityContext?.seccompProfile ?? pod.spec.securityContext?.seccompProfile, facts),
    ...(armor ? { apparmor: appArmor(armor) } : {}),
  };
}
