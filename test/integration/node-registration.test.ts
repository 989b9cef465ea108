// The node against a real API server with Node authorizer and NodeRestriction, as `system:node:NAME` and nothing more.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { createNodeAgent, type NodeAgent } from '../../agent/node/node-agent.ts';
import { defaultKubeletConfiguration } from '../../agent/config.ts';
import { systemClock } from '../../lib/clock.ts';
import { createLog } from '../../lib/log.ts';
import { createKubeClient } from '../../kube/http-client.ts';
import type { KubeClient } from '../../kube/client.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { resources } from '../../kube/resources.ts';
import type { Node } from '../../kube/types/core.ts';
import { type ControlPlane, startControlPlane } from '../lab/control-plane.ts';

let plane: ControlPlane;
let rootDir: string;
const lines: string[] = [];
const log = createLog({ level: 'debug', format: 'json', write: (line) => void lines.push(line) });

beforeAll(async () => {
  rootDir = await mkdtemp(join(tmpdir(), 'sv-node-'));
  plane = await startControlPlane();
});
afterAll(async () => {
  await plane?.stop();
  await rm(rootDir, { recursive: true, force: true });
});

const ends: (() => Promise<void>)[] = [];
afterEach(async (context) => {
  for (const end of ends.splice(0)) await end();
  if (context.task.result?.state === 'fail') console.log(lines.splice(0).join(''));
});

const runtimeFake = {
  networkReady: true,
  podCidrs: [] as string[],
};

async function startNode(nodeName: string): Promise<{ agent: NodeAgent; client: KubeClient }> {
  const client = createKubeClient(
    { log, clock: systemClock },
    await loadKubeconfig(await plane.nodeKubeconfig(nodeName)),
  );
  const agent = createNodeAgent(
    {
      client,
      clock: systemClock,
      log,
      events: { record: () => undefined },
      runtime: {
        status: () =>
          Promise.resolve({
            conditions: [
              { type: 'RuntimeReady', status: true, reason: '', message: '' },
              {
                type: 'NetworkReady',
                status: runtimeFake.networkReady,
                reason: 'NetworkPluginNotReady',
                message: 'none',
              },
            ],
            runtimeHandlers: [{ name: '', recursiveReadOnlyMounts: true, userNamespaces: true }],
            supplementalGroupsPolicy: true,
            cgroupDriver: undefined,
          }),
        version: () => Promise.resolve({ runtimeName: 'containerd', runtimeVersion: '2.1.9', runtimeApiVersion: 'v1' }),
        listImages: () => Promise.resolve([]),
        updatePodCidr: (range) => Promise.resolve(void runtimeFake.podCidrs.push(range)),
      },
      addresses: () =>
        Promise.resolve([
          { type: 'InternalIP', address: '192.0.2.1' },
          { type: 'InternalIP', address: '2001:db8::1' },
          { type: 'Hostname', address: nodeName },
        ]),
    },
    {
      nodeName,
      nodeIp: '',
      labels: { 'example.com/tier': 'web', 'node.kubernetes.io/pool': 'a' },
      taints: [{ key: 'dedicated', value: 'x', effect: 'NoSchedule' }],
      config: { ...defaultKubeletConfiguration(), nodeStatusUpdateFrequency: 1000 },
      rootDir,
      kubeletVersion: 'v1.36.2+stevedore.0.1.0',
    },
  );
  const stop = new AbortController();
  const running = agent.run(stop.signal).catch(() => undefined);
  ends.push(async () => {
    stop.abort();
    await running;
    await client.close();
  });
  return { agent, client };
}

async function until<T>(what: string, look: () => Promise<T | undefined> | T | undefined, ms = 15_000): Promise<T> {
  for (const deadline = Date.now() + ms; ; ) {
    const found = await Promise.resolve(look()).catch(() => undefined);
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(50);
  }
}

const getNode = (name: string): Promise<Node> => plane.admin.get(resources.nodes, { name });
const conditionOf = (node: Node, type: string) => node.status?.conditions?.find((condition) => condition.type === type);

it('registers, gets Ready, renews its lease, and follows its own Node', async () => {
  const { agent } = await startNode('n1');
  await until('registered and Ready', () => agent.registered() && agent.ready());
  const node = await getNode('n1');
  expect(node.metadata.labels).toMatchObject({
    'kubernetes.io/hostname': 'n1',
    'kubernetes.io/os': 'linux',
    'example.com/tier': 'web',
    'node.kubernetes.io/pool': 'a',
  });
  expect(node.spec.taints).toContainEqual({ key: 'dedicated', value: 'x', effect: 'NoSchedule' });
  expect(node.status?.addresses).toEqual([
    { type: 'InternalIP', address: '192.0.2.1' },
    { type: 'InternalIP', address: '2001:db8::1' },
    { type: 'Hostname', address: 'n1' },
  ]);
  expect(conditionOf(node, 'Ready')).toMatchObject({ status: 'True', reason: 'KubeletReady' });
  expect(node.status?.nodeInfo?.kubeletVersion).toBe('v1.36.2+stevedore.0.1.0');
  expect(Number(node.status?.allocatable?.pods)).toBe(110);
  const lease = await until('the lease', () =>
    plane.admin.get(resources.leases, { namespace: 'kube-node-lease', name: 'n1' }),
  );
  expect(lease.metadata.ownerReferences).toMatchObject([{ kind: 'Node', name: 'n1', uid: node.metadata.uid ?? '' }]);

  await plane.admin.patch(
    resources.nodes,
    { name: 'n1' },
    { metadata: { labels: { extra: 'x' } }, spec: { podCIDR: '10.244.9.0/24', podCIDRs: ['10.244.9.0/24'] } },
    { type: 'merge' },
  );
  await until('the own Node is seen', () => agent.node()?.metadata.labels?.extra === 'x');
  await until('the runtime knows the pod range', () => runtimeFake.podCidrs.includes('10.244.9.0/24'));

  const quiet = (await getNode('n1')).metadata.resourceVersion;
  await sleep(2500);
  expect((await getNode('n1')).metadata.resourceVersion).toBe(quiet);

  runtimeFake.networkReady = false;
  await until('NotReady', async () => conditionOf(await getNode('n1'), 'Ready')?.status === 'False');
  runtimeFake.networkReady = true;
  await until('Ready again', async () => conditionOf(await getNode('n1'), 'Ready')?.status === 'True');
  expect((await getNode('n1')).status?.addresses).toHaveLength(3);
});

it('takes over its Node after a restart without touching taints or foreign conditions', async () => {
  const first = await startNode('n2');
  await until('registered', () => first.agent.registered() && first.agent.ready());
  for (const end of ends.splice(0)) await end();
  await plane.admin.patch(
    resources.nodes,
    { name: 'n2' },
    {
      metadata: { labels: { 'kubernetes.io/hostname': 'wrong' } },
      spec: { taints: [{ key: 'mine', effect: 'NoExecute' }] },
    },
    { type: 'merge' },
  );
  await plane.admin.patch(
    resources.nodes,
    { name: 'n2' },
    { status: { conditions: [{ type: 'KernelDeadlock', status: 'False', reason: 'Fine', message: '' }] } },
    { type: 'strategic', subresource: 'status' },
  );
  const { agent } = await startNode('n2');
  await until('taken over', () => agent.registered() && agent.ready());
  const node = await until('label put right', async () => {
    const found = await getNode('n2');
    return found.metadata.labels?.['kubernetes.io/hostname'] === 'n2' ? found : undefined;
  });
  expect(node.spec.taints).toEqual([{ key: 'mine', effect: 'NoExecute' }]);
  expect(conditionOf(node, 'KernelDeadlock')).toMatchObject({ status: 'False', reason: 'Fine' });
});

it('registers again when its Node is deleted', async () => {
  const { agent } = await startNode('n3');
  await until('registered', () => agent.registered() && agent.ready());
  const { uid } = (await getNode('n3')).metadata;
  await plane.admin.delete(resources.nodes, { name: 'n3' });
  await until('a new Node', async () => {
    const found = (await getNode('n3')).metadata.uid;
    return found !== undefined && found !== uid;
  });
  await until('its status stands', async () => conditionOf(await getNode('n3'), 'Ready')?.status === 'True');
});

it('the API server goes away and comes back: the node reports at once', async () => {
  const { agent } = await startNode('n4');
  await until('registered', () => agent.registered() && agent.ready());
  await plane.stopApiServer();
  runtimeFake.networkReady = false;
  await sleep(3000);
  await plane.startApiServer();
  await until('what happened meanwhile', async () => conditionOf(await getNode('n4'), 'Ready')?.status === 'False');
  runtimeFake.networkReady = true;
  await until('Ready again', async () => conditionOf(await getNode('n4'), 'Ready')?.status === 'True');
}, 90_000);
