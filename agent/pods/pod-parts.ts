// What the operations of a pod need of the other rooms: folders, configurations, images, volumes, hooks, resources.
import type { ContainerConfig, ContainerId, SandboxConfig, SandboxStatus } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import type { ReadyImage } from './memory.ts';
import type { ObservedContainer, ObservedPod } from './observed.ts';

/** A failure with a reason that belongs in the container's status. */
export interface ReasonedError extends Error {
  readonly reason: string;
  /** When to try again, where the thrower keeps a back-off of its own. */
  readonly retryAfterMs?: number | undefined;
}

export const isReasoned = (error: unknown): error is ReasonedError =>
  error instanceof Error && typeof (error as { reason?: unknown }).reason === 'string';

export interface PodParts {
  /** Folders, /etc/hosts, the cgroup: what must be there before the sandbox is. */
  prepare(pod: Pod): Promise<void>;
  sandbox(pod: Pod, attempt: number): Promise<{ config: SandboxConfig; runtimeHandler: string }>;
  /** Rejects with a ReasonedError (CreateContainerConfigError) where the spec cannot be met. */
  container(
    request: {
      readonly pod: Pod;
      readonly container: Container;
      readonly attempt: number;
      readonly sandbox: SandboxStatus;
      readonly observed: ObservedPod;
      readonly image: ReadyImage;
    },
    signal: AbortSignal,
  ): Promise<{ config: ContainerConfig; sandboxConfig: SandboxConfig }>;
  /** Rejects with a ReasonedError (ErrImagePull, ImagePullBackOff, …). */
  image(pod: Pod, container: Container, signal: AbortSignal): Promise<ReadyImage>;
  setUpVolumes(pod: Pod, signal: AbortSignal): Promise<void>;
  tearDownVolumes(uid: string, signal: AbortSignal): Promise<void>;
  removeCgroup(uid: string, pod: Pod): Promise<void>;
  removeFiles(uid: string, pod: Pod): Promise<void>;
  hook(
    kind: 'postStart' | 'preStop',
    request: {
      readonly pod: Pod;
      readonly container: Container;
      readonly id: ContainerId;
      readonly podIp: string | undefined;
    },
    signal: AbortSignal,
  ): Promise<void>;
  /** A container was made with what is allocated to it. */
  created(pod: Pod, container: Container, id: ContainerId): void;
  /** It runs; its log is at this path. Never waits, never throws. */
  started(pod: Pod, container: Container, id: ContainerId, logPath: string): void;
  /** It is gone from the runtime; so goes its log. */
  removed(pod: Pod, container: ObservedContainer): Promise<void>;
  /** Brings cgroups and running containers to what is allocated to the pod. Rejects where it could not; to be called again. */
  resize(pod: Pod, observed: ObservedPod): Promise<void>;
}
