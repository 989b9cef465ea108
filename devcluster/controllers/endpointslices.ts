// Keeps the EndpointSlices of each Service with a selector equal to its pods.
import { isDeepStrictEqual } from 'node:util';
import { isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import { keyOf } from '../../kube/store.ts';
import type { EndpointSlice, Service } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { plain } from '../strategies.ts';
import { distribute, groupKey, planGroups } from './slices.ts';
import {
  type Controller,
  type ControllerDeps,
  createController,
  namespaceIndex,
  ownedBy,
  ownerIndex,
  seen,
  unless,
  type World,
} from './world.ts';

const managedBy = 'endpointslice.kubernetes.io/managed-by';
const serviceName = 'kubernetes.io/service-name';
const manager = 'endpointslice-controller.k8s.io';

const selects = ({ spec }: Service, pod: Pod | undefined): boolean => {
  const selector = Object.entries(spec.selector ?? {});
  return selector.length > 0 && selector.every(([key, value]) => pod?.metadata.labels?.[key] === value);
};

export function createEndpointSliceController(deps: ControllerDeps, world: World): Controller {
  const { client } = deps;
  const controller = createController(deps, 'EndpointSlice', reconcile);
  world.services.onChange(({ key }) => controller.wake(key));
  world.pods.onChange(({ before, after }) => {
    const { namespace = '' } = (after ?? before!).metadata;
    for (const service of world.services.store.byIndex(namespaceIndex, namespace))
      if (selects(service, after) || selects(service, before)) controller.wake(keyOf(service));
  });
  world.endpointSlices.onChange(({ before, after }) => {
    const { namespace, labels = {} } = (after ?? before!).metadata;
    if (labels[managedBy] === manager) controller.wake(`${namespace}/${labels[serviceName]}`);
  });

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const service = world.services.store.get(key);
    if (!service?.spec.selector || service.metadata.deletionTimestamp || service.spec.type === 'ExternalName') return;
    const { namespace = '', uid = '' } = service.metadata;
    const pods = world.pods.store.byIndex(namespaceIndex, namespace).filter((pod) => selects(service, pod));
    const own = world.endpointSlices.store
      .byIndex(ownerIndex, uid)
      .filter(({ metadata }) => metadata.labels?.[managedBy] === manager && !metadata.deletionTimestamp);
    const kept = new Set<EndpointSlice | undefined>();
    for (const group of planGroups(service, pods, (name) => world.nodes.store.get(name))) {
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
      const ownerReferences = [ownedBy(resources.services, service)];
      const metadata = { name: '', generateName: `${name}-`, namespace, labels, ownerReferences };
      const made = await client.create(resources.endpointSlices, { metadata, ...wanted }, { signal });
      return seen(world.endpointSlices, made, signal);
    }
    const same = isDeepStrictEqual(plain(slice.endpoints ?? []), plain(wanted.endpoints));
    if (same && isDeepStrictEqual(slice.metadata.labels, labels)) return;
    const next = { ...slice, ...wanted, metadata: { ...slice.metadata, labels } };
    await client.update(resources.endpointSlices, next, { signal });
    await seen(world.endpointSlices, slice, signal, slice.metadata.resourceVersion);
  }

  return controller;
}
