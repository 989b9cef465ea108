// What a container's status shows beside its state and its resources: mounts, the user it runs as.
import { posix } from 'node:path';
import type { Container, ContainerStatus, VolumeMount } from '../../kube/types/pod.ts';
import type { ObservedContainer } from './observed.ts';

export interface ExtrasFacts {
  /** Whether the pod's runtime handler can make mounts read-only all the way down: for containers that are not made yet. */
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
    ...(mount.readOnly ? { readOnly: true, recursiveReadOnly: recursive(mount, observed, facts) } : {}),
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

function recursive(
  mount: VolumeMount,
  observed: ObservedContainer | undefined,
  facts: ExtrasFacts,
): 'Enabled' | 'Disabled' {
  const { recursiveReadOnly: asked = 'Disabled' } = mount;
  const path = posix.resolve('/', mount.mountPath);
  const made = observed?.mounts.find(({ containerPath }) => posix.resolve('/', containerPath) === path);
  // What the container was made with; a runtime that tells nothing of it was not given what it does not know.
  if (made) return made.recursiveReadOnly ? 'Enabled' : 'Disabled';
  return asked === 'Enabled' || (asked === 'IfPossible' && facts.recursiveReadOnly) ? 'Enabled' : 'Disabled';
}
