// Keeps the EndpointSlices of each Service with a selector equal to its pods.
import { isDeepStrictEqual } from 'node:util';
import { isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import { keyOf } from '../../kube/store.ts';
import type { EndpointSlice, Service } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { plain } from '../strategies.ts';
import { distribute, groupKey, planGroups } from './slices.ts';
import { unless, type World } from './world.ts';

const managedBy = 'endpointslice.kubernetes.io/managed-by';
const serviceName = 'kubernetes.io/service-name';
const manager = 'endpointslice-controller.k8s.io';

const selects = ({ spec }: Service, pod: Pod | undefined): boolean => {
  const selector = Object.entries(spec.selector ?? {});
  return selector.length > 0 && selector.every(([key, value]) => pod?.metadata.labels?.[key] === value);
};

export function createEndpointSliceController(world: World) {
  const { client, services, pods, endpointSlices } = world;
  const controller = world.controller('EndpointSlice', reconcile);
  services.onChange(({ key }) => controller.wake(key));
  pods.onChange(({ before, after }) => {
    const { namespace = '' } = (after ?? before!).metadata;
    for (const service of services.inNamespace(namespace))
      if (selects(service, after) || selects(service, before)) controller.wake(keyOf(service));
  });
  endpointSlices.onChange(({ before, after }) => {
    const { namespace, labels = {} } = (after ?? before!).metadata;
    if (labels[managedBy] === manager) controller.wake(`${namespace}/${labels[serviceName]}`);
  });

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const service = services.get(key);
    if (!service?.spec.selector || service.metadata.deletionTimestamp || service.spec.type === 'ExternalName') return;
    const selected = pods.inNamespace(service.metadata.namespace).filter((pod) => selects(service, pod));
    const own = endpointSlices
      .ownedBy(service)
      .filter(({ metadata }) => metadata.labels?.[managedBy] === manager && !metadata.deletionTimestamp);
    const kept = new Set<EndpointSlice | undefined>();
    for (const group of planGroups(service, selected, world.nodes.get)) {
      const { addressType, ports } = group;
      const wanted = groupKey(addressType, ports);
      const existing = own.filter((slice) => groupKey(slice.addressType, slice.ports ?? []) === wanted);
      for (const { slice, endpoints } of distribute(group, existing)) {
        kept.add(slice);
        await write(service, slice, { addressType, ports, endpoints }, signal);
      }
    }
    for (const slice of own)
      if (!kept.has(slice))
        await client.delete(resources.endpointSlices, slice.metadata, { signal }).catch(unless(isNotFound));
  }

  async function write(
    service: Service,
    slice: EndpointSlice | undefined,
    wanted: Omit<EndpointSlice, 'metadata'>,
    signal: AbortSignal,
  ): Promise<void> {
    const { name, namespace = '' } = service.metadata;
    const headless = service.spec.clusterIP === 'None' ? { 'service.kubernetes.io/headless': '' } : {};
    const labels = { ...service.metadata.labels, [managedBy]: manager, [serviceName]: name, ...headless };
    if (!slice) {
      const ownerReferences = [services.ownerReference(service)];
      const metadata = { name: '', generateName: `${name}-`, namespace, labels, ownerReferences };
      const made = await client.create(resources.endpointSlices, { metadata, ...wanted }, { signal });
      return endpointSlices.seen(made, signal);
    }
    const same = isDeepStrictEqual(plain(slice.endpoints ?? []), plain(wanted.endpoints));
    if (same && isDeepStrictEqual(slice.metadata.labels, labels)) return;
    const next = { ...slice, ...wanted, metadata: { ...slice.metadata, labels } };
    await client.update(resources.endpointSlices, next, { signal });
    await endpointSlices.seen(slice, signal, slice.metadata.resourceVersion);
  }

  return controller;
}
