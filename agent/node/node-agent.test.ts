import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createFakeClient } from '../../kube/fake-client.ts';
import { ApiError } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { Lease, Node } from '../../kube/types/core.ts';
import type { Image, RuntimeStatus } from '../../cri/types.ts';
import { defaultKubeletConfiguration } from '../config.ts';
import type { HostFacts } from './host-facts.ts';
import { createNodeAgent, type NodeAgentOptions } from './node-agent.ts';

const facts: HostFacts = {
  architecture: 'amd64',
  cpus: 4,
  memoryBytes: 8 * 2 ** 30,
  swapBytes: 0,
  hugePages: new Map([[2 ** 21, 0]]),
  storageBytes: 100 * 2 ** 30,
  machineId: 'm',
  systemUuid: 'u',
  bootId: 'b',
  kernelVersion: '6.18.0',
  osImage: 'Debian GNU/Linux 12 (bookworm)',
};

const networkDown: RuntimeStatus['conditions'][number] = {
  type: 'NetworkReady',
  status: false,
  reason: 'NetworkPluginNotReady',
  message: 'Network plugin returns error: cni plugin not initialized',
};

/** `answers`: the runtime says nothing before. */
function setUp(
  options: Partial<NodeAgentOptions> = {},
  { answers = Promise.resolve(), lease }: { answers?: Promise<void>; lease?: Lease } = {},
) {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  client.seed(resources.namespaces, { metadata: { name: 'kube-node-lease' } } as never);
  if (lease) client.seed(resources.leases, lease);
  const events: string[] = [];
  const runtime = {
    conditions: [
      { type: 'RuntimeReady', status: true, reason: '', message: '' },
      { type: 'NetworkReady', status: true, reason: '', message: '' },
    ] as RuntimeStatus['conditions'][number][],
    images: [] as Image[],
    podCidrs: [] as string[],
  };
  const agent = createNodeAgent(
    {
      client,
      clock,
      log: silentLog,
      events: { record: (_about, type, reason, message) => void events.push(`${type} ${reason}: ${message}`) },
      random: () => 0.5,
      hostFacts: () => Promise.resolve(facts),
      addresses: () =>
        Promise.resolve([
          { type: 'InternalIP', address: '192.0.2.7' },
          { type: 'Hostname', address: 'n1' },
        ]),
      runtime: {
        status: () =>
          answers.then(() => ({
            conditions: runtime.conditions,
            runtimeHandlers: [{ name: '', recursiveReadOnlyMounts: true, userNamespaces: false }],
            supplementalGroupsPolicy: true,
            cgroupDriver: undefined,
          })),
        version: () =>
          Promise.resolve({ runtimeName: 'containerd', runtimeVersion: 'v2.1.9', runtimeApiVersion: 'v1' }),
        listImages: () => Promise.resolve(runtime.images),
        updatePodCidr: (range) => Promise.resolve(void runtime.podCidrs.push(range)),
      },
    },
    {
      nodeName: 'n1',
      nodeIp: '',
      labels: { tier: 'web' },
      taints: [{ key: 'dedicated', value: 'x', effect: 'NoSchedule' }],
      config: { ...defaultKubeletConfiguration(), systemReserved: { cpu: '250m', memory: '1Gi' } },
      rootDir: '/var/lib/kubelet',
      kubeletVersion: 'v1.36.2+stevedore.0.1.0',
      ...options,
    },
  );
  const stop = new AbortController();
  const running = agent.run(stop.signal).catch(() => undefined);
  const node = (): Node | undefined => client.find(resources.nodes, { name: 'n1' });
  const end = async (): Promise<void> => {
    stop.abort();
    await clock.advance(0);
    await running;
  };
  const patches = (): number =>
    client.calls.filter(({ verb, resource }) => verb === 'patch' && resource?.plural === 'nodes').length;
  return { clock, client, events, runtime, agent, node, end, patches };
}

const ready = (node: Node | undefined) => node?.status?.conditions?.find(({ type }) => type === 'Ready');

describe('the node agent', () => {
  it('registers a whole Node and renews its lease', async () => {
    const { clock, client, events, agent, node, end } = setUp();
    await clock.advance(200);
    expect(node()).toMatchObject({
      metadata: {
        labels: {
          tier: 'web',
          'kubernetes.io/hostname': 'n1',
          'kubernetes.io/os': 'linux',
          'kubernetes.io/arch': 'amd64',
          'beta.kubernetes.io/os': 'linux',
          'beta.kubernetes.io/arch': 'amd64',
        },
        annotations: { 'volumes.kubernetes.io/controller-managed-attach-detach': 'true' },
      },
      spec: { taints: [{ key: 'dedicated', value: 'x', effect: 'NoSchedule' }] },
      status: {
        capacity: { cpu: '4', memory: '8Gi', pods: '110', 'ephemeral-storage': '100Gi', 'hugepages-2Mi': '0' },
        allocatable: { cpu: '3750m', memory: '7068Mi', pods: '110', 'ephemeral-storage': '90Gi' },
        addresses: [
          { type: 'InternalIP', address: '192.0.2.7' },
          { type: 'Hostname', address: 'n1' },
        ],
        daemonEndpoints: { kubeletEndpoint: { Port: 10_250 } },
        nodeInfo: {
          containerRuntimeVersion: 'containerd://2.1.9',
          kubeletVersion: 'v1.36.2+stevedore.0.1.0',
          bootID: 'b',
        },
        runtimeHandlers: [{ name: '', features: { recursiveReadOnlyMounts: true, userNamespaces: false } }],
        features: { supplementalGroupsPolicy: true },
      },
    });
    expect(node()?.status?.conditions?.map(({ type, status, reason }) => [type, status, reason])).toEqual([
      ['MemoryPressure', 'False', 'KubeletHasSufficientMemory'],
      ['DiskPressure', 'False', 'KubeletHasNoDiskPressure'],
      ['PIDPressure', 'False', 'KubeletHasSufficientPID'],
      ['Ready', 'True', 'KubeletReady'],
    ]);
    expect(ready(node())?.message).toBe('kubelet is posting ready status');
    expect(agent.registered()).toBe(true);
    expect(events).toContain('Normal NodeReady: Node n1 status is now: NodeReady');
    const lease = (): Lease | undefined => client.find(resources.leases, { namespace: 'kube-node-lease', name: 'n1' });
    expect(lease()).toMatchObject({
      metadata: { ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: 'n1', uid: node()?.metadata.uid }] },
      spec: { holderIdentity: 'n1', leaseDurationSeconds: 40 },
    });
    const first = lease()?.spec?.renewTime ?? '';
    await clock.advance(11_000);
    expect(Date.parse(lease()?.spec?.renewTime ?? '') - Date.parse(first)).toBeGreaterThanOrEqual(10_000);
    await clock.advance(7_000);
    const before = lease()?.spec?.renewTime;
    const stoppedAtMs = clock.now();
    await end();
    expect(lease()?.spec?.renewTime).not.toBe(before);
    expect(Date.parse(lease()?.spec?.renewTime ?? '')).toBe(stoppedAtMs);
  });

  it.each([
    ['the node’s own lease is renewed all the while', 'n1', true],
    ['a lease of somebody else is left', 'n0', false],
  ])('a host and a runtime that take their time: %s', async (_what, holderIdentity, renewed) => {
    let answer = (): void => undefined;
    const renewTime = '2020-01-01T00:00:00.000000Z';
    const { clock, client, agent, end } = setUp(
      {},
      {
        answers: new Promise((resolve) => (answer = resolve)),
        lease: {
          apiVersion: 'coordination.k8s.io/v1',
          kind: 'Lease',
          metadata: { namespace: 'kube-node-lease', name: 'n1' },
          spec: { holderIdentity, renewTime },
        },
      },
    );
    const told = () => client.find(resources.leases, { namespace: 'kube-node-lease', name: 'n1' })?.spec?.renewTime;
    await clock.advance(100);
    expect(agent.registered()).toBe(false);
    expect(told() !== renewTime).toBe(renewed);
    const first = told();
    await clock.advance(11_000);
    expect(told() !== first).toBe(renewed);
    answer();
    await clock.advance(100);
    expect(agent.registered()).toBe(true);
    expect(client.find(resources.leases, { namespace: 'kube-node-lease', name: 'n1' })?.spec?.holderIdentity).toBe(
      'n1',
    );
    await end();
  });

  it('makes no lease before the node is registered', async () => {
    let answer = (): void => undefined;
    const { clock, client, end } = setUp({}, { answers: new Promise((resolve) => (answer = resolve)) });
    await clock.advance(30_000);
    expect(client.find(resources.leases, { namespace: 'kube-node-lease', name: 'n1' })).toBeUndefined();
    answer();
    await end();
  });

  it('writes nothing between heartbeats, and all conditions at one', async () => {
    const { clock, client, node, end, patches } = setUp();
    await clock.advance(60_000);
    const before = patches();
    await clock.advance(200_000);
    expect(patches()).toBe(before);
    await clock.advance(200_000);
    expect(patches()).toBe(before + 1);
    const heartbeats = new Set(node()?.status?.conditions?.map(({ lastHeartbeatTime }) => lastHeartbeatTime));
    expect(heartbeats.size).toBe(1);
    const last = client.calls.findLast(({ verb, resource }) => verb === 'patch' && resource?.plural === 'nodes');
    expect(Object.keys((last?.body as { status?: object } | undefined)?.status ?? {})).toEqual(['conditions']);
    await end();
  });

  it('says at once why it is not ready, and when it is again', async () => {
    const { clock, agent, runtime, node, events, end } = setUp();
    await clock.advance(1000);
    runtime.conditions[1] = networkDown;
    await clock.advance(5200);
    expect(ready(node())).toMatchObject({
      status: 'False',
      reason: 'KubeletNotReady',
      message:
        'container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized',
    });
    expect(events).toContain('Normal NodeNotReady: Node n1 status is now: NodeNotReady');
    runtime.conditions[1] = { ...networkDown, status: true };
    await clock.advance(700);
    expect(ready(node())?.status).toBe('True');
    const remove = agent.addReadySource(() => 'node is shutting down');
    await clock.advance(10);
    expect(ready(node())).toMatchObject({ status: 'False', message: 'node is shutting down' });
    remove();
    agent.setPressure({ memory: true, disk: false, pid: false });
    await clock.advance(10);
    expect(ready(node())?.status).toBe('True');
    expect(node()?.status?.conditions?.[0]).toMatchObject({ status: 'True', reason: 'KubeletHasInsufficientMemory' });
    expect(events).toContain('Normal NodeHasInsufficientMemory: Node n1 status is now: NodeHasInsufficientMemory');
    await end();
  });

  it.each([
    { what: 'that is new', before: undefined, first: 'False' },
    { what: 'that was Ready on this boot', before: { boot: 'b', ready: 'True' }, first: 'True' },
    { what: 'that was Ready on another boot', before: { boot: 'older', ready: 'True' }, first: 'False' },
    { what: 'that was not Ready', before: { boot: 'b', ready: 'False' }, first: 'False' },
  ])('what is missing at the start keeps a node $what from being Ready: $first', async ({ before, first }) => {
    const { clock, client, agent, node, end } = setUp();
    if (before)
      client.seed(resources.nodes, {
        metadata: { name: 'n1' },
        spec: {},
        status: {
          nodeInfo: { bootID: before.boot },
          conditions: [{ type: 'Ready', status: before.ready, reason: 'KubeletReady', message: 'before' }],
        },
      } as never);
    const seen = new Set<string | undefined>();
    agent.onNode((after) => after?.metadata.uid !== undefined && seen.add(ready(after)?.status));
    let missing: string | undefined = 'Services are not programmed yet';
    agent.addStartSource(() => missing);
    await clock.advance(1_000);
    expect(ready(node())?.status).toBe(first);
    missing = undefined;
    agent.refresh();
    await clock.advance(1_000);
    expect(ready(node())).toMatchObject({ status: 'True', message: 'kubelet is posting ready status' });
    if (first === 'True') expect([...seen]).toEqual(['True']);
    await end();
  });

  it('takes over a Node that is there: labels put right, others’ work kept', async () => {
    const { clock, client, node, end, events } = setUp();
    client.seed(resources.nodes, {
      metadata: { name: 'n1', labels: { 'kubernetes.io/arch': 'arm64', mine: 'yes' } },
      spec: { taints: [{ key: 'other', effect: 'NoSchedule' }], podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.0/24'] },
      status: {
        capacity: { 'example.com/gpu': '2' },
        conditions: [{ type: 'NetworkUnavailable', status: 'False', reason: 'Up', message: '' }],
        nodeInfo: { bootID: 'earlier' },
      },
    } as unknown as Node);
    await clock.advance(1000);
    expect(node()).toMatchObject({
      metadata: { labels: { 'kubernetes.io/arch': 'amd64', mine: 'yes', 'kubernetes.io/hostname': 'n1' } },
      spec: { taints: [{ key: 'other', effect: 'NoSchedule' }] },
      status: { capacity: { cpu: '4', 'example.com/gpu': '2' } },
    });
    expect(node()?.metadata.labels?.tier).toBeUndefined();
    expect(
      node()
        ?.status?.conditions?.map(({ type }) => type)
        .sort(),
    ).toEqual(['DiskPressure', 'MemoryPressure', 'NetworkUnavailable', 'PIDPressure', 'Ready']);
    expect(events).toContain('Warning Rebooted: Node n1 has been rebooted, boot id: b');
    await end();
  });

  it('puts its platform’s labels right while it runs, and leaves others’ alone', async () => {
    const { clock, client, node, end, patches } = setUp();
    await clock.advance(1_000);
    const labels = { 'kubernetes.io/arch': 'dummyArch', 'kubernetes.io/os': null, tier: 'db' };
    await client.patch(resources.nodes, { name: 'n1' }, { metadata: { labels } }, { type: 'merge' });
    const before = patches();
    await clock.advance(25_000);
    expect(node()?.metadata.labels).toMatchObject({
      'kubernetes.io/arch': 'amd64',
      'kubernetes.io/os': 'linux',
      tier: 'db',
    });
    expect(patches()).toBe(before + 1);
    await end();
  });

  it('tells the runtime the pod range once it is given', async () => {
    const { clock, client, runtime, end } = setUp();
    await clock.advance(500);
    await client.patch(
      resources.nodes,
      { name: 'n1' },
      { spec: { podCIDR: '10.244.3.0/24', podCIDRs: ['10.244.3.0/24'] } },
      { type: 'merge' },
    );
    await clock.advance(11_000);
    expect(runtime.podCidrs).toEqual(['10.244.3.0/24']);
    await end();
  });

  it('registers again when its Node is deleted', async () => {
    const { clock, client, node, agent, end } = setUp();
    await clock.advance(500);
    const seen: (string | undefined)[] = [];
    agent.onNode((after) => void seen.push(after?.metadata.uid));
    const first = node()?.metadata.uid;
    client.remove(resources.nodes, { name: 'n1' });
    await clock.advance(500);
    expect(node()?.metadata.uid).toBeDefined();
    expect(node()?.metadata.uid).not.toBe(first);
    expect(seen).toContain(undefined);
    expect(agent.registered()).toBe(true);
    await end();
  });

  it('keeps trying while the API server is away, and comes back with it', async () => {
    const { clock, client, node, end } = setUp();
    const away = new ApiError('unreachable', 'POST /api/v1/nodes: connection refused');
    let gone = true;
    client.failNext(() => gone, away, 1000);
    await clock.advance(20_000);
    expect(node()).toBeUndefined();
    const tries = client.calls.filter(({ verb, resource }) => verb === 'create' && resource?.plural === 'nodes').length;
    expect(tries).toBeGreaterThan(5);
    expect(tries).toBeLessThan(12);
    gone = false;
    await clock.advance(8000);
    expect(ready(node())?.status).toBe('True');
    await end();
  });

  it('refuses labels that the API server would not take', () => {
    expect(() => setUp({ labels: { 'node-role.kubernetes.io/worker': '' } })).toThrow('node-role.kubernetes.io/worker');
    expect(() => setUp({ nodeIp: '1.2.3' })).toThrow('node IP "1.2.3" is not an IP address');
  });
});
