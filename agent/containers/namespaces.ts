// Whose namespaces a pod's sandbox and containers use.
import type { ContainerId, NamespaceOptions } from '../../cri/types.ts';
import type { Pod } from '../../kube/types/pod.ts';

export type UserNamespace = NonNullable<NamespaceOptions['userns']>;

/** Under `hostUsers: false`, `userns` says which ids the pod has on the host. `target` is whose processes an ephemeral container sees. */
export function podNamespaces(pod: Pod, userns?: UserNamespace, target?: ContainerId): NamespaceOptions {
  const pid = pod.spec.hostPID ? 'node' : pod.spec.shareProcessNamespace ? 'pod' : 'container';
  return {
    network: pod.spec.hostNetwork ? 'node' : 'pod',
    ipc: pod.spec.hostIPC ? 'node' : 'pod',
    ...(pid === 'container' && target !== undefined ? { pid: 'target', targetId: target } : { pid }),
    ...(userns === undefined ? {} : { userns }),
  };
}
