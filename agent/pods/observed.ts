// What the runtime has of one pod, newest first, and questions about it.
import type { ContainerEnding, ContainerId, ContainerInspection, SandboxId, SandboxStatus } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';

export interface ObservedContainer extends ContainerInspection {
  readonly sandboxId: SandboxId;
  /** What the container left in its termination message file, once it ended; takes the place of the runtime's message. */
  readonly terminationMessage?: string | undefined;
  /** Its process has ended, and the runtime shows it running because it has not noted that yet. */
  readonly ending?: ContainerEnding | undefined;
}

export interface ObservedPod {
  /** Newest first. */
  readonly sandboxes: readonly SandboxStatus[];
  /** Of all sandboxes, newest first. */
  readonly containers: readonly ObservedContainer[];
}

export const nothingObserved: ObservedPod = { sandboxes: [], containers: [] };

export const newestOf = (observed: ObservedPod, name: string): ObservedContainer | undefined =>
  observed.containers.find((container) => container.metadata.name === name);

export const containerById = (observed: ObservedPod, id: ContainerId): ObservedContainer | undefined =>
  observed.containers.find((container) => container.id === id);

/** Containers that may have processes: `unknown` is one of them, since nobody knows. */
export const mayRun = (container: ObservedContainer): boolean =>
  container.state === 'running' || container.state === 'unknown';

/** Where containers do not have process namespaces of their own, what one has begun may outlive its first process. */
export const sharesProcesses = ({ spec }: Pod): boolean => spec.hostPID === true || spec.shareProcessNamespace === true;

export const isHostNetwork = (pod: Pod): boolean => pod.spec.hostNetwork === true;

export const isSidecar = (container: Container): boolean => container.restartPolicy === 'Always';

export type SandboxVerdict =
  | { readonly kind: 'usable'; readonly sandbox: SandboxStatus }
  /** Something must be cleared away before the next one, which gets this attempt number. */
  | { readonly kind: 'needed'; readonly attempt: number; readonly stale: readonly SandboxStatus[] };

/** Whether the pod has a sandbox its containers can be started in. Same rules as the kubelet's PodSandboxChanged. */
export function judgeSandbox(pod: Pod, observed: ObservedPod): SandboxVerdict {
  const [newest] = observed.sandboxes;
  if (!newest) return { kind: 'needed', attempt: 0, stale: [] };
  const ready = observed.sandboxes.filter((sandbox) => sandbox.state === 'ready');
  const next = { kind: 'needed', attempt: newest.metadata.attempt + 1, stale: ready } as const;
  if (ready.length > 1 || newest.state !== 'ready') return next;
  const wanted = isHostNetwork(pod) ? 'node' : 'pod';
  if (newest.namespaces && newest.namespaces.network !== wanted) return next;
  if (wanted === 'pod' && newest.ips.length === 0) return next;
  return { kind: 'usable', sandbox: newest };
}
