// Keeps the EndpointSlices of each Service with a selector equal to its pods.
import { isDeepStrictEqual } from 'node:util';
import { isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { EndpointSlice, Service } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { type Controller, createController } from './loop.ts';
import { distribute, groupKey, planGroups, type WantedGroup } from './slices.ts';
import { type ControllerDeps, namespaceIndex, ownerIndex, type World } from './world.ts';

const managedBy = 'endpointslice.kubernetes.io/managed-by';
const serviceName = 'kubernetes.io/service-name';
const manager = 'endpointslice-controller.k8s.io';

const selects = (service: Service, pod: Pod): boolean => {
  const selector = Object.entries(service.spec.selector ?? {});
  return selector.length > 0 && selector.every(([key, value]) => pod.metadata.labels?.[key] === value);
};

export function createEndpointSliceController(deps: ControllerDeps, world: World): Controller {
  const { client } = deps;
  const controller = createController(deps, 'EndpointSlice', reconcile);
  world.services.onChange(({ key }) => controller.queue.wake(key));
  world.pods.onChange(({ before, after }) => {
    const pod = after ?? before!;
    for (const service of world.services.store.byIndex(namespaceIndex, pod.metadata.namespace ?? ''))
      if (selects(service, pod) || (before && selects(service, before)))
        controller.queue.wake(`${service.metadata.namespace}/${service.metadata.name}`);
  });
  world.endpointSlices.onChange(({ before, after }) => {
    const { metadata } = after ?? before!;
    if (metadata.labels?.[managedBy] === manager)
      controller.queue.wake(`${metadata.namespace}/${metadata.labels[serviceName]}`);
  });

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const service = world.services.store.get(key);
    if (
      !service ||
      service.metadata.deletionTimestamp ||
      !service.spec.selector ||
      service.spec.type === 'ExternalName'
    )
      return;
    const namespace = service.metadata.namespace ?? '';
    const pods = world.pods.store.byIndex(namespaceIndex, namespace).filter((pod) => selects(service, pod));
    const own = world.endpointSlices.store
      .byIndex(ownerIndex, service.metadata.uid ?? '')
      .filter(({ metadata }) => metadata.labels?.[managedBy] === manager && !metadata.deletionTimestamp);
    const kept = new Set<EndpointSlice>();
    for (const group of planGroups(service, pods, (name) => world.nodes.store.get(name))) {
      const existing = own.filter(
        (slice) => groupKey(slice.addressType, slice.ports ?? []) === groupKey(group.addressType, group.ports),
      );
      for (const { slice, endpoints } of distribute(group, existing)) {
        if (slice) kept.add(slice);
        await write(service, slice, group, endpoints, signal);
      }
    }
    for (const slice of own) if (!kept.has(slice)) await remove(slice, signal);
  }

  async function write(
    service: Service,
    slice: EndpointSlice | undefined,
    group: WantedGroup,
    endpoints: WantedGroup['endpoints'],
    signal: AbortSignal,
  ): Promise<void> {
    const labels = {
      ...service.metadata.labels,
      [managedBy]: manager,
      [serviceName]: service.metadata.name,
      ...(service.spec.clusterIP === 'None' ? { 'service.kubernetes.io/headless': '' } : {}),
    };
    const wanted = { addressType: group.addressType, endpoints, ports: group.ports };
    if (!slice) {
      const made = await client.create(
        resources.endpointSlices,
        {
          metadata: {
            name: '',
            generateName: `${service.metadata.name}-`,
            namespace: service.metadata.namespace!,
            labels,
            ownerReferences: [ownedBy(service)],
          },
          ...wanted,
        },
        { signal },
      );
      await world.endpointSlices.until(
        (store) => store.get(`${made.metadata.namespace}/${made.metadata.name}`) !== undefined,
        signal,
      );
      return;
    }
    const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
    if (
      isDeepStrictEqual(plain(slice.endpoints ?? []), plain(endpoints)) &&
      isDeepStrictEqual(slice.metadata.labels, labels)
    )
      return;
    const { resourceVersion } = slice.metadata;
    await client.update(
      resources.endpointSlices,
      { ...slice, ...wanted, metadata: { ...slice.metadata, labels } },
      { signal },
    );
    await world.endpointSlices.until(
      (store) =>
        store.get(`${slice.metadata.namespace}/${slice.metadata.name}`)?.metadata.resourceVersion !== resourceVersion,
      signal,
    );
  }

  async function remove({ metadata }: EndpointSlice, signal: AbortSignal): Promise<void> {
    try {
      await client.delete(resources.endpointSlices, metadata, { signal });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  return controller;
}

const ownedBy = ({ metadata }: Service) => ({
  apiVersion: 'v1',
  kind: 'Service',
  name: metadata.name,
  uid: metadata.uid!,
  controller: true,
  blockOwnerDeletion: true,
});
