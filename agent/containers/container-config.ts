// What the runtime is told of a container.
import type { CdiDevice, ContainerConfig, ContainerId, Device, Mount } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { containerResources, type ResourceFacts } from '../resources/linux-resources.ts';
import { expand } from './expansion.ts';
import { containerAnnotations, containerLabels } from './labels.ts';
import { containerLogPath } from './log-path.ts';
import type { UserNamespace } from './namespaces.ts';
import { containerSecurity, type ImageUser, type SecurityFacts, verifyRunAsNonRoot } from './security.ts';

export interface ContainerInput {
  readonly pod: Pod;
  /** As it is to run: with the resources that are allocated to it. */
  readonly container: Container;
  readonly restartCount: number;
  /** The image's id, as the pull gave it. */
  readonly imageRef: string;
  readonly imageUser: ImageUser;
  /** The RuntimeClass's handler; empty for the default one. */
  readonly runtimeHandler: string;
  /** From containerEnv(). */
  readonly env: Readonly<Record<string, string>>;
  /** The pod's volumes, /etc/hosts and the termination log. */
  readonly mounts: readonly Mount[];
  readonly devices: readonly Device[];
  readonly cdiDevices?: readonly CdiDevice[];
  /** Annotations that device plugins ask for. */
  readonly annotations?: Readonly<Record<string, string>>;
  readonly volumeGroups: readonly number[];
  readonly userns?: UserNamespace | undefined;
  /** An ephemeral container's targetContainerName, as its container. */
  readonly target?: ContainerId | undefined;
}

export interface ContainerFacts extends ResourceFacts, SecurityFacts {}

const withMappings = (mount: Mount, userns: UserNamespace | undefined): Mount =>
  userns?.mode === 'pod' ? { ...mount, uidMappings: userns.uids, gidMappings: userns.gids } : mount;

/** Throws a ConfigError; the pod then waits with reason CreateContainerConfigError and the error's message. */
export function containerConfig(input: ContainerInput, facts: ContainerFacts): ContainerConfig {
  const { pod, container, env } = input;
  verifyRunAsNonRoot(pod, container, input.imageUser);
  const lookup = (name: string): string | undefined => (Object.hasOwn(env, name) ? env[name] : undefined);
  const stopSignal = container.lifecycle?.stopSignal;
  return {
    metadata: { name: container.name, attempt: input.restartCount },
    image: {
      image: input.imageRef,
      userSpecifiedImage: container.image ?? '',
      ...(input.runtimeHandler === '' ? {} : { runtimeHandler: input.runtimeHandler }),
    },
    command: (container.command ?? []).map((part) => expand(part, lookup)),
    args: (container.args ?? []).map((part) => expand(part, lookup)),
    workingDir: container.workingDir ?? '',
    envs: Object.entries(env).map(([key, value]) => ({ key, value })),
    mounts: input.mounts.map((mount) => withMappings(mount, input.userns)),
    devices: input.devices,
    cdiDevices: input.cdiDevices ?? [],
    labels: containerLabels(pod, container),
    annotations: containerAnnotations(pod, container, input.restartCount, input.annotations),
    logPath: containerLogPath(container.name, input.restartCount),
    stdin: container.stdin ?? false,
    stdinOnce: container.stdinOnce ?? false,
    tty: container.tty ?? false,
    resources: containerResources(pod, container, facts),
    security: containerSecurity({ ...input, image: input.imageUser }, facts),
    ...(stopSignal === undefined ? {} : { stopSignal }),
  };
}
