// Keeps the EndpointSlices of each Service with a selector equal to its pods.
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import { keyOf } from '../../kube/store.ts';
import type { EndpointSlice, Service } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { safeText } from '../names.ts';
import { plain } from '../strategies.ts';
import { groupKey, planGroups } from './slices.ts';
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
  endpointSlices.wakeOwners('Service', controller);

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const service = services.get(key);
    if (!service?.spec.selector || service.metadata.deletionTimestamp || service.spec.type === 'ExternalName') return;
    const { namespace = '' } = service.metadata;
    const selected = pods.inNamespace(namespace).filter((pod) => selects(service, pod));
    const wanted = planGroups(service, selected, world.nodes.get).map((group) => sliceOf(service, group));
    for (const slice of wanted) {
      const there = endpointSlices.get(keyOf(slice));
      const resourceVersion = there?.metadata.resourceVersion ?? '';
      if (!there) await client.create(resources.endpointSlices, slice, { signal });
      else if (!isDeepStrictEqual(contentOf(slice), contentOf(there)))
        await client.update(
          resources.endpointSlices,
          { ...slice, metadata: { ...slice.metadata, resourceVersion } },
          { signal },
        );
    }
    const kept = wanted.map(keyOf);
    for (const slice of endpointSlices.ownedBy(service))
      if (slice.metadata.labels?.[managedBy] === manager && !kept.includes(keyOf(slice)))
        await client.delete(resources.endpointSlices, slice.metadata, { signal }).catch(unless(isNotFound));
  }

  /** Its name is that of its family and ports, so that it is the same one as long as these are. */
  function sliceOf(service: Service, group: Omit<EndpointSlice, 'metadata'>): EndpointSlice {
    const { name, namespace = '' } = service.metadata;
    const digest = createHash('sha256').update(groupKey(group)).digest();
    const headless = service.spec.clusterIP === 'None' ? { 'service.kubernetes.io/headless': '' } : {};
    const labels = { ...service.metadata.labels, [managedBy]: manager, [serviceName]: name, ...headless };
    const ownerReferences = [services.ownerReference(service)];
    const metadata = { name: `${name}-${safeText(digest.subarray(0, 5))}`, namespace, labels, ownerReferences };
    return { metadata, ...group };
  }

  return controller;
}

const contentOf = ({ metadata, endpoints, ports }: EndpointSlice): unknown =>
  plain([metadata.labels, endpoints ?? [], ports ?? []]);
