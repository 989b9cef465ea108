// What device plugins want done for a container, in the runtime's terms, and the health of its devices in the API's.
import type { CdiDevice, Device, Mount } from '../../../cri/types.ts';
import type { ContainerStatus } from '../../../kube/types/pod.ts';
import type { DevicePlugins } from './device-plugins.ts';
import type { ContainerAllocateResponse } from './gen/device-plugin.ts';

export interface ContainerDevices {
  readonly envs: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly mounts: readonly Mount[];
  readonly devices: readonly Device[];
  readonly cdiDevices: readonly CdiDevice[];
}

/** The first of each path wins, as two resources of one plugin may both ask for its control device. */
const uniqueByPath = <T extends { readonly containerPath: string }>(items: readonly T[]): T[] =>
  [...new Map(items.toReversed().map((item) => [item.containerPath, item])).values()].reverse();

export const containerDevices = (response: ContainerAllocateResponse): ContainerDevices => ({
  envs: response.envs,
  annotations: response.annotations,
  mounts: uniqueByPath(
    response.mounts.map(({ containerPath, hostPath, readOnly }) => ({
      containerPath,
      hostPath,
      readonly: readOnly,
      recursiveReadOnly: false,
      selinuxRelabel: false,
      propagation: 'private' as const,
    })),
  ),
  devices: uniqueByPath(
    response.devices.map(({ containerPath, hostPath, permissions }) => ({ containerPath, hostPath, permissions })),
  ),
  cdiDevices: [...new Map(response.cdiDevices.map(({ name }) => [name, { name }])).values()],
});

/** `status.containerStatuses[].allocatedResourcesStatus`; undefined where the container has no devices. */
export function allocatedResourcesStatus(
  plugins: Pick<DevicePlugins, 'devices' | 'allocations'>,
  uid: string,
  container: string,
): ContainerStatus['allocatedResourcesStatus'] {
  const allocated = plugins.allocations().pods().get(uid)?.containers[container] ?? [];
  if (allocated.length === 0) return undefined;
  const known = new Map(plugins.devices().map((device) => [`${device.resource} ${device.id}`, device]));
  return allocated
    .toSorted((a, b) => (a.resource < b.resource ? -1 : 1))
    .map(({ resource, devices }) => ({
      name: resource,
      resources: devices.toSorted().map((id) => {
        const device = known.get(`${resource} ${id}`);
        return { resourceID: id, health: device === undefined ? 'Unknown' : device.healthy ? 'Healthy' : 'Unhealthy' };
      }),
    }));
}
