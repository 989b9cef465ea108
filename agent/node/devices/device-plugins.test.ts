// A plugin of our own over the real sockets and wire format.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials, Metadata, type ServerWritableStream } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../lib/clock.ts';
import { silentLog } from '../../../lib/log.ts';
import { createRegistry, type MetricsRegistry } from '../../../lib/metrics.ts';
import { createKubeletMetrics } from '../../server/kubelet-metrics.ts';
import type { Pod } from '../../../kube/types/pod.ts';
import { choose } from './choose-devices.ts';
import { allocatedResourcesStatus } from './container-devices.ts';
import { createDevicePlugins, type DevicePlugins } from './device-plugins.ts';
import {
  AllocateRequest,
  AllocateResponse,
  type Device,
  DevicePluginOptions,
  Empty,
  ListAndWatchResponse,
  PreferredAllocationRequest,
  PreferredAllocationResponse,
  PreStartContainerRequest,
  PreStartContainerResponse,
  RegisterRequest,
} from './gen/device-plugin.ts';
import {
  GetPodResourcesRequest,
  GetPodResourcesResponse,
  ListPodResourcesRequest,
  ListPodResourcesResponse,
} from './gen/pod-resources.ts';
import { servePodResources } from './pod-resources-server.ts';
import { type Method, serveUnix, type UnixServer, unary } from './unix-grpc-server.ts';

const resource = 'example.com/gpu';

interface FakePlugin {
  show(devices: readonly [id: string, healthy: boolean][]): void;
  readonly prestarted: string[][];
  close(): Promise<void>;
}

async function call<Q, A>(socket: string, path: string, codecs: [Codec<Q>, Codec<A>], message: Q): Promise<A> {
  const client = new Client(`unix://${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'localhost',
  });
  try {
    return await new Promise<A>((resolve, reject) => {
      client.makeUnaryRequest(
        path,
        (value: Q) => Buffer.from(codecs[0].encode(value).finish()),
        (bytes: Buffer) => codecs[1].decode(bytes),
        message,
        new Metadata({ waitForReady: true }),
        { deadline: Date.now() + 5000 },
        (error, answer) => (error ? reject(error) : resolve(answer!)),
      );
    });
  } finally {
    client.close();
  }
}
interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

async function startPlugin(folder: string): Promise<FakePlugin> {
  const streams = new Set<ServerWritableStream<Empty, ListAndWatchResponse>>();
  const prestarted: string[][] = [];
  let shown: Device[] = [];
  const list: Method = {
    path: '/v1beta1.DevicePlugin/ListAndWatch',
    definition: {
      path: '/v1beta1.DevicePlugin/ListAndWatch',
      requestStream: false,
      responseStream: true,
      requestSerialize: () => Buffer.alloc(0),
      requestDeserialize: () => ({}),
      responseSerialize: (message: ListAndWatchResponse) => Buffer.from(ListAndWatchResponse.encode(message).finish()),
      responseDeserialize: (bytes: Buffer) => ListAndWatchResponse.decode(bytes),
    },
    handle: (stream: ServerWritableStream<Empty, ListAndWatchResponse>) => {
      streams.add(stream);
      stream.write({ devices: shown });
      stream.on('cancelled', () => streams.delete(stream));
    },
  };
  const server: UnixServer = await serveUnix(join(folder, 'device-plugins/fake.sock'), [
    list,
    unary('/v1beta1.DevicePlugin/GetDevicePluginOptions', Empty, DevicePluginOptions, () => ({
      preStartRequired: true,
      getPreferredAllocationAvailable: true,
    })),
    unary(
      '/v1beta1.DevicePlugin/GetPreferredAllocation',
      PreferredAllocationRequest,
      PreferredAllocationResponse,
      (request) => ({
        containerResponses: request.containerRequests.map(({ availableDeviceIDs }) => ({
          deviceIDs: [...availableDeviceIDs].sort().reverse(),
        })),
      }),
    ),
    unary('/v1beta1.DevicePlugin/Allocate', AllocateRequest, AllocateResponse, (request) => ({
      containerResponses: request.containerRequests.map(({ devicesIds }) => ({
        envs: { GPUS: devicesIds.join(',') },
        annotations: {},
        mounts: [],
        devices: devicesIds.map((id) => ({ containerPath: `/dev/${id}`, hostPath: `/dev/${id}`, permissions: 'rw' })),
        cdiDevices: [],
      })),
    })),
    unary('/v1beta1.DevicePlugin/PreStartContainer', PreStartContainerRequest, PreStartContainerResponse, (request) => {
      prestarted.push(request.devicesIds);
      return {};
    }),
  ]);
  return {
    prestarted,
    show(devices) {
      shown = devices.map(([ID, healthy]) => ({
        ID,
        health: healthy ? 'Healthy' : 'Unhealthy',
        topology: { nodes: [{ ID: 0n }] },
      }));
      for (const stream of streams) stream.write({ devices: shown });
    },
    close: () => server.close(),
  };
}

const pod = (name: string, count: string, init = '0'): Pod =>
  ({
    metadata: { name, namespace: 'default', uid: name },
    spec: {
      initContainers: init === '0' ? [] : [{ name: 'i', resources: { limits: { [resource]: init } } }],
      containers: [{ name: 'c', resources: { limits: { [resource]: count } } }],
    },
  }) as unknown as Pod;

async function until(what: string, look: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 5000; !look(); await sleep(10))
    if (Date.now() > deadline) throw new Error(`not within 5 s: ${what}`);
}

describe('device plugins', () => {
  let folder: string;
  let stop: AbortController;
  let registry: MetricsRegistry;
  const ends: (() => Promise<unknown>)[] = [];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sv-dev-'));
    stop = new AbortController();
    registry = createRegistry();
  });
  afterEach(async () => {
    stop.abort();
    for (const end of ends.splice(0).reverse()) await end();
    await rm(folder, { recursive: true, force: true });
  });

  const start = async (onChange: (holders: readonly string[]) => void = () => undefined): Promise<DevicePlugins> => {
    const plugins = await createDevicePlugins(
      { clock: systemClock, log: silentLog, onChange, metrics: createKubeletMetrics(registry) },
      { rootDir: folder },
    );
    const running = plugins.run(stop.signal);
    ends.push(() => running);
    return plugins;
  };
  const register = (options: Partial<RegisterRequest> = {}) =>
    call(join(folder, 'device-plugins/kubelet.sock'), '/v1beta1.Registration/Register', [RegisterRequest, Empty], {
      version: 'v1beta1',
      endpoint: 'fake.sock',
      resourceName: resource,
      options: undefined,
      ...options,
    });

  it('devices are counted, handed out once each, prepared, remembered over a restart, and given back', async () => {
    let plugins = await start();
    await sleep(50);
    const plugin = await startPlugin(folder);
    ends.push(plugin.close);
    plugin.show([
      ['g1', true],
      ['g2', true],
      ['g3', false],
    ]);
    await register();
    await until('counted', () => plugins.extendedResources().capacity[resource] === 3);
    expect(plugins.extendedResources()).toEqual({ capacity: { [resource]: 3 }, allocatable: { [resource]: 2 } });

    expect(await plugins.admit(pod('a', '1'))).toBeUndefined();
    expect(await plugins.admit(pod('a', '1'))).toBeUndefined();
    const prepared = await plugins.prepare('a', 'c');
    expect(prepared).toMatchObject({
      envs: { GPUS: 'g2' },
      devices: [{ containerPath: '/dev/g2', permissions: 'rw' }],
    });
    expect(plugin.prestarted).toEqual([['g2']]);
    const page = await registry.metrics();
    expect(page).toContain(`kubelet_device_plugin_registration_total{resource_name="${resource}"} 1\n`);
    expect(page).toContain(`kubelet_device_plugin_alloc_duration_seconds_count{resource_name="${resource}"} 1\n`);
    expect(await plugins.admit(pod('b', '2'))).toEqual({
      reason: 'UnexpectedAdmissionError',
      message: `Allocate failed due to requested number of devices unavailable for ${resource}. Requested: 2, Available: 1, which is unexpected`,
    });
    expect(await plugins.admit(pod('b', '1'))).toBeUndefined();

    const counts = createRegistry();
    const metrics = createKubeletMetrics(counts);
    const server = await servePodResources({ plugins, activePods: () => [pod('a', '1')], metrics }, folder);
    ends.push(server.close);
    const list = (apiVersion: string) =>
      call(
        join(folder, 'pod-resources/kubelet.sock'),
        `/${apiVersion}.PodResourcesLister/List`,
        [ListPodResourcesRequest, ListPodResourcesResponse],
        {},
      );
    const devices = { resourceName: resource, deviceIds: ['g2'] };
    expect((await list('v1')).podResources).toMatchObject([
      { name: 'a', containers: [{ name: 'c', devices: [{ ...devices, topology: { nodes: [{ ID: 0n }] } }] }] },
    ]);
    const [first] = (await list('v1alpha1')).podResources;
    expect(first).toMatchObject({ name: 'a', namespace: 'default', containers: [{ name: 'c', devices: [devices] }] });
    expect(first?.containers[0]?.devices[0]?.topology).toBeUndefined();
    await expect(
      call(
        join(folder, 'pod-resources/kubelet.sock'),
        '/v1.PodResourcesLister/Get',
        [GetPodResourcesRequest, GetPodResourcesResponse],
        { podName: 'b', podNamespace: 'default' },
      ),
    ).rejects.toThrow('pod b in namespace default not found');
    const requests = (await counts.metrics()).split('\n').filter((line) => line.startsWith('kubelet_pod_resources'));
    expect(requests.toSorted()).toEqual([
      'kubelet_pod_resources_endpoint_errors_get{server_api_version="v1"} 1',
      'kubelet_pod_resources_endpoint_requests_get{server_api_version="v1"} 1',
      'kubelet_pod_resources_endpoint_requests_list{server_api_version="v1"} 1',
      'kubelet_pod_resources_endpoint_requests_total{server_api_version="v1"} 2',
      'kubelet_pod_resources_endpoint_requests_total{server_api_version="v1alpha1"} 1',
    ]);

    stop.abort();
    stop = new AbortController();
    plugins = await start();
    expect(await plugins.prepare('a', 'c')).toMatchObject({ envs: { GPUS: 'g2' } });
    await plugins.release('a');
    expect(await plugins.prepare('a', 'c')).toBeUndefined();
  });

  it('an init container’s devices are used again by the containers after it', async () => {
    const plugins = await start();
    await sleep(50);
    const plugin = await startPlugin(folder);
    ends.push(plugin.close);
    plugin.show([['g1', true]]);
    await register();
    await until('counted', () => plugins.extendedResources().allocatable[resource] === 1);
    expect(await plugins.admit(pod('p', '1', '1'))).toBeUndefined();
    expect(plugins.allocations().pods().get('p')?.containers).toMatchObject({
      i: [{ devices: ['g1'] }],
      c: [{ devices: ['g1'] }],
    });
  });

  it('until its plugin is back after a restart, a resource is one without devices: nobody new gets past it, who has some keeps it', async () => {
    let plugins = await start();
    await sleep(50);
    let plugin = await startPlugin(folder);
    plugin.show([['g1', true]]);
    // A resource of nobody's is not ours to refuse.
    expect(await plugins.admit(pod('early', '1'))).toBeUndefined();
    await register();
    await until('counted', () => plugins.extendedResources().allocatable[resource] === 1);
    expect(await plugins.admit(pod('a', '1'))).toBeUndefined();

    stop.abort();
    stop = new AbortController();
    plugins = await start();
    expect(plugins.extendedResources()).toEqual({ capacity: { [resource]: 0 }, allocatable: { [resource]: 0 } });
    expect(await plugins.admit(pod('b', '1'))).toEqual({
      reason: 'UnexpectedAdmissionError',
      message: `Allocate failed due to no healthy devices present; cannot allocate unhealthy devices ${resource}, which is unexpected`,
    });
    expect(await plugins.admit(pod('a', '1'))).toBeUndefined();
    expect(plugins.allocatableFor(pod('a', '1'), { cpu: '2', [resource]: '0' })).toEqual({ cpu: '2', [resource]: '1' });
    expect(plugins.allocatableFor(pod('b', '1'), { [resource]: '0' })).toEqual({ [resource]: '0' });
    // A plugin sees that our socket is another, and starts anew.
    await plugin.close();
    plugin = await startPlugin(folder);
    ends.push(plugin.close);
    plugin.show([['g1', true]]);
    await register();
    await until('back', () => plugins.extendedResources().allocatable[resource] === 1);
    await plugins.release('a');
    expect(await plugins.admit(pod('b', '1'))).toBeUndefined();
  });

  it('a plugin that went away leaves its devices unhealthy', async () => {
    const plugins = await start();
    await sleep(50);
    const plugin = await startPlugin(folder);
    plugin.show([['g1', true]]);
    await register();
    await until('counted', () => plugins.extendedResources().allocatable[resource] === 1);
    await plugin.close();
    await until('away', () => plugins.extendedResources().allocatable[resource] === 0);
    expect(plugins.extendedResources().capacity[resource]).toBe(1);
    expect((await plugins.admit(pod('p', '1')))?.message).toContain('no healthy devices present');
  });

  it('who holds a device is told of with each change of its health', async () => {
    const told: (readonly string[])[] = [];
    const plugins = await start((holders) => told.push(holders));
    await sleep(50);
    const plugin = await startPlugin(folder);
    ends.push(plugin.close);
    plugin.show([['g1', true]]);
    await register();
    await until('counted', () => plugins.extendedResources().allocatable[resource] === 1);
    expect(await plugins.admit(pod('a', '1'))).toBeUndefined();
    expect(told.flat()).toEqual([]);
    plugin.show([['g1', false]]);
    await until('told', () => told.flat().includes('a'));
    expect(allocatedResourcesStatus(plugins, 'a', 'c')).toMatchObject([
      { resources: [{ resourceID: 'g1', health: 'Unhealthy' }] },
    ]);
  });

  it('a plugin that does not answer for its options is told so', async () => {
    await start();
    await sleep(50);
    const deaf = await serveUnix(join(folder, 'device-plugins/deaf.sock'), [
      unary('/v1beta1.DevicePlugin/Other', Empty, Empty, () => ({})),
    ]);
    ends.push(() => deaf.close());
    await expect(register({ endpoint: 'deaf.sock' })).rejects.toThrow('failed to get device plugin options');
  });

  it('registrations that make no sense are refused', async () => {
    await start();
    await sleep(50);
    await expect(register({ version: 'v1alpha' })).rejects.toThrow('not supported');
    await expect(register({ resourceName: 'cpu' })).rejects.toThrow('invalid name of device plugin');
    await expect(register({ endpoint: '../x' })).rejects.toThrow('invalid endpoint');
  });
});

describe('the choice', () => {
  it.each([
    [{ count: 2, reusable: [], available: ['a', 'b', 'c'] }, ['c'], ['c', 'a']],
    [{ count: 2, reusable: ['x'], available: ['a', 'b'] }, ['b', 'zz'], ['x', 'b']],
    [{ count: 1, reusable: ['x', 'y'], available: ['a'] }, [], ['x']],
    [{ count: 2, reusable: [], available: ['a', 'b'] }, ['b', 'b', 'a'], ['b', 'a']],
  ])('%j preferring %j', (choice, preferred, devices) => expect(choose(choice, preferred)).toEqual(devices));
});
