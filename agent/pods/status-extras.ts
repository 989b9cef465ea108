// What a container's status shows beside its state and its resources: mounts, the user it runs as.
import type { Container, ContainerStatus } from '../../kube/types/pod.ts';
import type { ObservedContainer } from './observed.ts';

export interface ExtrasFacts {
  /** Whether the pod's runtime handler can make mounts read-only all the way down. */
  readonly recursiveReadOnly: boolean;
}

export function containerExtras(
  container: Container,
  observed: ObservedContainer | undefined,
  facts: ExtrasFacts,
): Partial<ContainerStatus> {
  const mounts = (container.volumeMounts ?? []).map((mount) => ({
    name: mount.name,
    mountPath: mount.mountPath,
    ...(mount.readOnly ? { readOnly: true, recursiveReadOnly: recursive(mount.recursiveReadOnly, facts) } : {}),
  }));
  const user = observed?.user;
  return {
    ...(mounts.length > 0 ? { volumeMounts: mounts } : {}),
    ...(user
      ? {
          user: {
            linux: {
              uid: user.uid,
              gid: user.gid,
              ...(user.supplementalGroups.length > 0 ? { supplementalGroups: [...user.supplementalGroups] } : {}),
            },
          },
        }
      : {}),
    ...(observed?.stopSignal ? { stopSignal: observed.stopSignal } : {}),
  };
}

function recursive(asked: string | undefined, facts: ExtrasFacts): 'Enabled' | 'Disabled' {
  if (asked === 'Enabled') return 'Enabled';
  return asked === 'IfPossible' && facts.recursiveReadOnly ? 'Enabled' : 'Disabled';
}
