// The PodResources API: monitoring agents ask here which pod has which device.
import { join } from 'node:path';
import type { Pod } from '../../../kube/types/pod.ts';
import type { KubeletMetrics } from '../../server/kubelet-metrics.ts';
import type { DevicePlugins, DeviceRecord } from './device-plugins.ts';
import {
  AllocatableResourcesRequest,
  AllocatableResourcesResponse,
  type ContainerDevices,
  GetPodResourcesRequest,
  GetPodResourcesResponse,
  ListPodResourcesRequest,
  ListPodResourcesResponse,
  type PodResources,
} from './gen/pod-resources.ts';
import { NotFoundError, serveUnix, type UnixServer, unary } from './unix-grpc-server.ts';

export interface PodResourcesDeps {
  readonly plugins: Pick<DevicePlugins, 'devices' | 'allocations'>;
  /** Pods that run or may run. */
  activePods(): readonly Pod[];
  readonly metrics?: Pick<KubeletMetrics, CounterName>;
}

type CounterName =
  | 'podResourcesRequests'
  | 'podResourcesLists'
  | 'podResourcesListErrors'
  | 'podResourcesAllocatables'
  | 'podResourcesAllocatableErrors'
  | 'podResourcesGets'
  | 'podResourcesGetErrors';
type Counter = KubeletMetrics[CounterName] | undefined;

const topologyOf = (devices: readonly DeviceRecord[]): ContainerDevices['topology'] => {
  const nodes = [...new Set(devices.flatMap(({ numaNodes }) => numaNodes))].sort((a, b) => a - b);
  return nodes.length === 0 ? undefined : { nodes: nodes.map((ID) => ({ ID: BigInt(ID) })) };
};

export function podResources(deps: PodResourcesDeps, pod: Pod): PodResources {
  const known = new Map(deps.plugins.devices().map((device) => [`${device.resource} ${device.id}`, device]));
  const allocated =
    deps.plugins
      .allocations()
      .pods()
      .get(pod.metadata.uid ?? '')?.containers ?? {};
  const sidecars = (pod.spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always');
  return {
    name: pod.metadata.name,
    namespace: pod.metadata.namespace ?? 'default',
    containers: [...sidecars, ...pod.spec.containers].map(({ name }) => ({
      name,
      devices: (allocated[name] ?? []).map(({ resource, devices }) => ({
        resourceName: resource,
        deviceIds: [...devices],
        topology: topologyOf(
          devices.map((id) => known.get(`${resource} ${id}`)).filter((device) => device !== undefined),
        ),
      })),
    })),
  };
}

/**
 * As the first version of the API has it, v1alpha1: regular containers, and of devices no topology. Its messages are v1's with fewer
 * fields, by the same numbers.
 */
function firstVersion({ spec }: Pod, resources: PodResources): PodResources {
  const regular = new Set(spec.containers.map(({ name }) => name));
  return {
    ...resources,
    containers: resources.containers
      .filter(({ name }) => regular.has(name))
      .map(({ name, devices }) => ({
        name,
        devices: devices.map((device) => ({ ...device, topology: undefined })),
      })),
  };
}

/** Serves until closed, on `pod-resources/kubelet.sock` below the root folder. */
export function servePodResources(deps: PodResourcesDeps, rootDir: string): Promise<UnixServer> {
  const { metrics } = deps;
  const service = '/v1.PodResourcesLister/';
  const counted =
    <Request, Response>(asked: Counter, failed: Counter, answer: (request: Request) => Response) =>
    (request: Request): Response => {
      metrics?.podResourcesRequests.inc({ server_api_version: 'v1' });
      asked?.inc({ server_api_version: 'v1' });
      try {
        return answer(request);
      } catch (error) {
        failed?.inc({ server_api_version: 'v1' });
        throw error;
      }
    };
  return serveUnix(join(rootDir, 'pod-resources/kubelet.sock'), [
    unary('/v1alpha1.PodResourcesLister/List', ListPodResourcesRequest, ListPodResourcesResponse, () => {
      // Of the first version the kubelet counts no methods.
      metrics?.podResourcesRequests.inc({ server_api_version: 'v1alpha1' });
      return { podResources: deps.activePods().map((pod) => firstVersion(pod, podResources(deps, pod))) };
    }),
    unary(
      `${service}List`,
      ListPodResourcesRequest,
      ListPodResourcesResponse,
      counted(metrics?.podResourcesLists, metrics?.podResourcesListErrors, () => ({
        podResources: deps.activePods().map((pod) => podResources(deps, pod)),
      })),
    ),
    unary(
      `${service}GetAllocatableResources`,
      AllocatableResourcesRequest,
      AllocatableResourcesResponse,
      counted(metrics?.podResourcesAllocatables, metrics?.podResourcesAllocatableErrors, () => allocatable(deps)),
    ),
    unary(
      `${service}Get`,
      GetPodResourcesRequest,
      GetPodResourcesResponse,
      counted(metrics?.podResourcesGets, metrics?.podResourcesGetErrors, (request: GetPodResourcesRequest) =>
        resourcesOfOne(deps, request),
      ),
    ),
  ]);
}

const allocatable = ({ plugins }: PodResourcesDeps): AllocatableResourcesResponse => ({
  devices: plugins
    .devices()
    .filter(({ healthy }) => healthy)
    .map((device) => ({ resourceName: device.resource, deviceIds: [device.id], topology: topologyOf([device]) })),
});

function resourcesOfOne(deps: PodResourcesDeps, asked: GetPodResourcesRequest): GetPodResourcesResponse {
  const { podName, podNamespace } = asked;
  const pod = deps
    .activePods()
    .find(({ metadata }) => metadata.name === podName && (metadata.namespace ?? 'default') === podNamespace);
  if (!pod) throw new NotFoundError(`pod ${podName} in namespace ${podNamespace} not found`);
  return { podResources: podResources(deps, pod) };
}
