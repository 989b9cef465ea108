// What the node's server asks of the rest of the agent about its pods.
import type { ContainerId, ContainerRuntimeState, SandboxId } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';

export interface KnownContainer {
  readonly id: ContainerId;
  readonly state: ContainerRuntimeState;
  /** Absolute. */
  readonly logPath: string;
  readonly restartCount: number;
}

export interface KnownSandbox {
  readonly id: SandboxId;
  readonly ips: readonly string[];
  readonly ready: boolean;
}

export interface PodDirectory {
  /** All pods known, with their current status. */
  pods(): readonly Pod[];
  byName(namespace: string, name: string): Pod | undefined;
  /** The newest container of that name, or the one before it; ended ones too, as long as the runtime has them. */
  container(uid: string, containerName: string, options?: { previous?: boolean }): KnownContainer | undefined;
  sandbox(uid: string): KnownSandbox | undefined;
  /** Resolves when the container has ended and its output is written, at once where it has or is unknown; rejects when the signal aborts. */
  ended(id: ContainerId, signal: AbortSignal): Promise<void>;
}

/** The container's part of the spec, whichever list it is in. */
export function containerSpec(pod: Pod, name: string): Container | undefined {
  const { containers, initContainers = [], ephemeralContainers = [] } = pod.spec;
  return [...containers, ...initContainers, ...ephemeralContainers].find((container) => container.name === name);
}
