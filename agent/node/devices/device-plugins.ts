// Device plugins: they register on our socket, tell of their devices, and are asked for them when a pod is admitted. Paths and the API are
// the kubelet's, so plugins unaware of us work.
//
//   (nothing) ──Register──▶ connected ──ListAndWatch ends──▶ away ──five minutes──▶ gone (capacity 0)
//                              ▲────────────Register──────────┘
//
// After a restart of the agent the resources of the plugins that were there are away, with no devices: a pod that wants one is refused rather than
// started without it.
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { aborted } from '../../../lib/abort.ts';
import type { Clock } from '../../../lib/clock.ts';
import type { Log } from '../../../lib/log.ts';
import type { ResourceList } from '../../../kube/types/meta.ts';
import type { Container, Pod } from '../../../kube/types/pod.ts';
import { isSidecar } from '../../../kube/scheduling/pod-resources.ts';
import type { KubeletMetrics } from '../../server/kubelet-metrics.ts';
import type { ExtendedResources } from '../capacity.ts';
import { type Allocation, type Allocations, openAllocations, type PodAllocations } from './allocations.ts';
import { choose, firstChoice } from './choose-devices.ts';
import { type ContainerAllocateResponse, Empty, RegisterRequest } from './gen/device-plugin.ts';
import { connectPlugin, type Plugin } from './plugin.ts';
import { serveUnix, unary } from './unix-grpc-server.ts';

export interface DevicePluginsDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Devices came, went or changed their health: capacity has to be shown anew, and so has the status of the pods that hold devices of the kind. */
  onChange(holders: readonly string[]): void;
  /** Whether the pod is still there or about to start: devices of others are free. Absent: only `release` frees any. */
  active?(uid: string): boolean;
  /** For metrics. */
  readonly metrics?: Pick<KubeletMetrics, 'devicePluginRegistrations' | 'deviceAllocation'>;
}

export interface DevicePluginsOptions {
  readonly rootDir: string;
}

export interface DeviceRecord {
  readonly resource: string;
  readonly id: string;
  readonly healthy: boolean;
  /** NUMA nodes it is near to. */
  readonly numaNodes: readonly number[];
}

export interface DevicePlugins {
  /** Serves registrations until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
  extendedResources(): ExtendedResources;
  /**
   * What the node has for this pod. One that has its devices already is not short of them because their plugin is away: of each resource there
   * is at least what is handed out.
   */
  allocatableFor(pod: Pod, allocatable: Readonly<ResourceList>): Readonly<ResourceList>;
  /** Chooses and allocates devices for the pod's containers, once; says why where that cannot be. */
  admit(pod: Pod): Promise<{ readonly reason: string; readonly message: string } | undefined>;
  /** What the container's devices need; undefined where it has none. Plugins that want it are told that it starts. */
  prepare(uid: string, container: string): Promise<ContainerAllocateResponse | undefined>;
  release(uid: string): Promise<void>;
  devices(): readonly DeviceRecord[];
  allocations(): Pick<Allocations, 'pods'>;
}

interface Resource {
  plugin: Plugin | undefined;
  end: AbortController | undefined;
  devices: Map<string, DeviceRecord>;
  /** Since when its plugin is away, on the monotonic clock. */
  awaySinceMs: number | undefined;
}

const apiVersion = 'v1beta1';
const goneAfterMs = 5 * 60_000;

const extended = (name: string): boolean =>
  name.includes('/') &&
  !name.startsWith('kubernetes.io/') &&
  !name.includes('.kubernetes.io/') &&
  !name.startsWith('requests.');

/** Extended resources a container wants, whole devices each. */
export const wantedDevices = (container: Container): [resource: string, count: number][] =>
  Object.entries(container.resources?.limits ?? {})
    .filter(([name]) => extended(name))
    .map(([name, quantity]): [string, number] => [name, Number(quantity)])
    .filter(([, count]) => count > 0);

const resourcesOf = ({ containers }: PodAllocations): string[] =>
  Object.values(containers)
    .flat()
    .map(({ resource }) => resource);

const merge = (responses: readonly ContainerAllocateResponse[]): ContainerAllocateResponse => ({
  envs: Object.assign({}, ...responses.map(({ envs }) => envs)) as Record<string, string>,
  annotations: Object.assign({}, ...responses.map(({ annotations }) => annotations)) as Record<string, string>,
  mounts: responses.flatMap(({ mounts }) => mounts),
  devices: responses.flatMap(({ devices }) => devices),
  cdiDevices: responses.flatMap(({ cdiDevices }) => cdiDevices),
});

export async function createDevicePlugins(
  deps: DevicePluginsDeps,
  options: DevicePluginsOptions,
): Promise<DevicePlugins> {
  const { clock, log } = deps;
  const folder = join(options.rootDir, 'device-plugins');
  await mkdir(folder, { recursive: true, mode: 0o750 });
  const allocations = await openAllocations(join(folder, 'stevedore_checkpoint.json'));
  const resources = new Map<string, Resource>();
  const tell = (name: string): void =>
    deps.onChange([...allocations.pods()].flatMap(([uid, pod]) => (resourcesOf(pod).includes(name) ? [uid] : [])));
  const goAway = (name: string, resource: Resource): void => {
    resource.plugin = undefined;
    resource.awaySinceMs = clock.monotonicMs();
    resource.devices = new Map([...resource.devices].map(([id, device]) => [id, { ...device, healthy: false }]));
    clock.setTimer(goneAfterMs, () => {
      if (resource.awaySinceMs === undefined || clock.monotonicMs() - resource.awaySinceMs < goneAfterMs) return;
      allocations.know(name, false).catch((error: unknown) => log.warn('a record was not written', { folder, error }));
      tell(name);
    });
  };
  for (const name of allocations.known()) {
    const resource: Resource = { plugin: undefined, end: undefined, devices: new Map(), awaySinceMs: undefined };
    resources.set(name, resource);
    goAway(name, resource);
  }
  // Two pods admitted at the same time must not be given the same device.
  let admitting: Promise<unknown> = Promise.resolve();

  const follow = async (name: string, resource: Resource, plugin: Plugin, end: AbortController): Promise<void> => {
    try {
      for await (const devices of plugin.devices(end.signal)) {
        resource.devices = new Map(
          devices.map(({ ID, health, topology }) => [
            ID,
            {
              resource: name,
              id: ID,
              healthy: health === 'Healthy',
              numaNodes: (topology?.nodes ?? []).map((node) => Number(node.ID)),
            },
          ]),
        );
        log.info('devices', { resource: name, devices: devices.length });
        tell(name);
      }
    } catch (error) {
      if (!end.signal.aborted)
        log.warn('a device plugin went away; its devices are not handed out until it is back', {
          resource: name,
          error,
        });
    } finally {
      plugin.close();
      if (resource.plugin === plugin) {
        goAway(name, resource);
        tell(name);
      }
    }
  };

  const register = async (request: RegisterRequest): Promise<void> => {
    if (request.version !== apiVersion)
      throw new Error(
        `requested API version "${request.version}" is not supported by kubelet. Supported version is ["${apiVersion}"]`,
      );
    if (!extended(request.resourceName)) throw new Error(`invalid name of device plugin: ${request.resourceName}`);
    if (request.endpoint === '' || request.endpoint.includes('/'))
      throw new Error(`invalid endpoint: ${request.endpoint}`);
    const name = request.resourceName;
    const plugin = await connectPlugin(join(folder, request.endpoint));
    const resource = resources.get(name) ?? {
      plugin: undefined,
      end: undefined,
      devices: new Map(),
      awaySinceMs: undefined,
    };
    resources.set(name, resource);
    resource.end?.abort();
    const end = new AbortController();
    Object.assign(resource, { plugin, end, awaySinceMs: undefined });
    await allocations.know(name, true);
    deps.metrics?.devicePluginRegistrations.inc({ resource_name: name });
    log.info('device plugin registered', { resource: name, endpoint: request.endpoint });
    void follow(name, resource, plugin, end);
  };

  const allocate = async (name: string, count: number, reusable: readonly string[]): Promise<Allocation> => {
    const resource = resources.get(name);
    if (!resource) throw new Error(`cannot allocate unregistered device ${name}`);
    const healthy = [...resource.devices.values()].filter((device) => device.healthy).map(({ id }) => id);
    if (healthy.length === 0 || !resource.plugin)
      throw new Error(`no healthy devices present; cannot allocate unhealthy devices ${name}`);
    const used = allocations.inUse(name);
    const choice = { count, reusable, available: healthy.filter((id) => !used.has(id)).sort() };
    const { taken, missing } = firstChoice(choice);
    if (choice.available.length < missing)
      throw new Error(
        `requested number of devices unavailable for ${name}. Requested: ${missing}, Available: ${choice.available.length}`,
      );
    const preferred = missing > 0 ? await resource.plugin.preferred([...choice.available, ...taken], taken, count) : [];
    const devices = choose(choice, preferred);
    const begunMs = clock.monotonicMs();
    const response = await resource.plugin
      .allocate(devices)
      .finally(() =>
        deps.metrics?.deviceAllocation.observe({ resource_name: name }, (clock.monotonicMs() - begunMs) / 1000),
      );
    return { resource: name, devices, response };
  };

  const allocatePod = async (pod: Pod): Promise<void> => {
    const uid = pod.metadata.uid ?? '';
    // Pods that went while this agent was down.
    for (const other of [...allocations.pods().keys()])
      if (other !== uid && deps.active?.(other) === false) await allocations.release(other);
    const containers: Record<string, readonly Allocation[]> = { ...allocations.pods().get(uid)?.containers };
    const reusable = new Map<string, string[]>();
    const init = pod.spec.initContainers ?? [];
    for (const container of [...init, ...pod.spec.containers]) {
      const known = containers[container.name] ?? [];
      for (const [resource, count] of wantedDevices(container)) {
        // What another agent, or a resource without a plugin, advertises is none of ours.
        if (!resources.has(resource) && !known.some((one) => one.resource === resource)) continue;
        const had = known.find((one) => one.resource === resource);
        const spare = reusable.get(resource) ?? [];
        const allocation = had ?? (await allocate(resource, count, spare));
        containers[container.name] = [
          ...(containers[container.name] ?? []).filter((one) => one.resource !== resource),
          allocation,
        ];
        const left = spare.filter((id) => !allocation.devices.includes(id));
        // Init containers run one after the other: what they had is free for those that come later.
        const again = init.includes(container) && !isSidecar(container) ? allocation.devices : [];
        reusable.set(resource, [...new Set([...left, ...again])]);
        await allocations.set(uid, {
          name: pod.metadata.name,
          namespace: pod.metadata.namespace ?? 'default',
          containers: { ...containers },
        });
      }
    }
  };

  const cleanFolder = async (): Promise<void> => {
    // Plugins watch for our socket to be made anew and register again; what a dead one left would only be found broken.
    for (const name of await readdir(folder)) {
      const path = join(folder, name);
      if ((await stat(path).catch(() => undefined))?.isSocket()) await rm(path, { force: true });
    }
  };

  return {
    allocations: () => allocations,
    devices: () => [...resources.values()].flatMap(({ devices }) => [...devices.values()]),
    extendedResources() {
      const capacity: Record<string, number> = {};
      const allocatable: Record<string, number> = {};
      for (const [name, { devices, awaySinceMs }] of resources) {
        const gone = awaySinceMs !== undefined && clock.monotonicMs() - awaySinceMs >= goneAfterMs;
        capacity[name] = gone ? 0 : devices.size;
        allocatable[name] = gone ? 0 : [...devices.values()].filter(({ healthy }) => healthy).length;
      }
      return { capacity, allocatable };
    },
    allocatableFor(pod, allocatable) {
      if (!allocations.pods().has(pod.metadata.uid ?? '')) return allocatable;
      const enough: Record<string, string> = {};
      for (const name of new Set([...allocations.pods().values()].flatMap(resourcesOf))) {
        const used = allocations.inUse(name).size;
        if (Number(allocatable[name] ?? 0) < used) enough[name] = String(used);
      }
      return { ...allocatable, ...enough };
    },
    admit(pod) {
      const work = admitting.then(() => allocatePod(pod));
      admitting = work.catch(() => undefined);
      return work.then(
        () => undefined,
        async (error: unknown) => {
          await allocations.release(pod.metadata.uid ?? '');
          const text = error instanceof Error ? error.message : String(error);
          return { reason: 'UnexpectedAdmissionError', message: `Allocate failed due to ${text}, which is unexpected` };
        },
      );
    },
    async prepare(uid, container) {
      const own = allocations.of(uid, container);
      if (own.length === 0) return undefined;
      for (const { resource, devices } of own) {
        const plugin = resources.get(resource)?.plugin;
        if (plugin) await plugin.preStart(devices);
      }
      return merge(own.map(({ response }) => response));
    },
    release: (uid) => allocations.release(uid),
    async run(signal) {
      await cleanFolder();
      const server = await serveUnix(join(folder, 'kubelet.sock'), [
        unary('/v1beta1.Registration/Register', RegisterRequest, Empty, async (request) => {
          await register(request);
          return {};
        }),
      ]);
      await aborted(signal);
      for (const { end } of resources.values()) end?.abort();
      await server.close();
    },
  };
}
