// What befalls a Service in its life, on both backends, from API objects to packets: the node moves to another zone, Services go while no
// proxy runs, health checks of load balancers, and a client that asks on and on meanwhile.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { resources } from '../../kube/resources.ts';
import type { EndpointSlice, Node } from '../../kube/types/core.ts';
import { createServicesLab, echoPort, eventually, type RunningProxy, type ServicesLab } from '../lab/services-lab.ts';

const vip = '10.96.0.10';
const spec = (fields: object = {}) => ({
  type: 'ClusterIP' as const,
  clusterIP: vip,
  clusterIPs: [vip],
  ipFamilies: ['IPv4' as const],
  ports: [{ port: 80, protocol: 'TCP' as const, targetPort: echoPort }],
  ...fields,
});

describe.each(['iptables', 'nftables'])('%s', (mode) => {
  let lab: ServicesLab;
  let running: RunningProxy;
  // The proxy's own servers are in this process, not on the node of the lab: they must not listen on its address alone.
  const document = { mode, nodePortAddresses: ['0.0.0.0/0'] };

  beforeAll(async () => {
    lab = await createServicesLab();
    running = await lab.startProxy(document);
  });
  afterAll(async () => {
    await running?.stop();
    await lab?.stop();
  });
  afterEach(async ({ task }) => {
    if (task.result?.state !== 'fail') return;
    console.error(running.lines.join(''), await lab.dump(), (await lab.node.exec('nft', ['list', 'ruleset'])).stdout);
  });

  const get = () => lab.get(lab.client, vip, 80);
  const answers = (wanted: RegExp) => eventually(`${vip} answers ${wanted}`, async () => wanted.test(await get()));

  it('hints of zones are followed as the node moves from one to another', async () => {
    await lab.setService('web', spec());
    await lab.setEndpoints('web', [0, 1]);
    const id = { namespace: 'lab', name: 'web-ipv4' };
    const slice = lab.api.find(resources.endpointSlices, id) as EndpointSlice;
    await lab.api.update(resources.endpointSlices, {
      ...slice,
      endpoints: (slice.endpoints ?? []).map((endpoint, at) => ({
        ...endpoint,
        hints: { forZones: [{ name: at === 0 ? 'a' : 'b' }] },
      })),
    });
    const moveTo = async (zone: string): Promise<void> => {
      const node = lab.api.find(resources.nodes, { name: 'n1' }) as Node;
      const labels = { 'topology.kubernetes.io/zone': zone };
      await lab.api.update(resources.nodes, { ...node, metadata: { ...node.metadata, labels } });
    };
    const seen = async (): Promise<string[]> => {
      const all = new Set<string>();
      for (let at = 0; at < 8; at++) all.add((await get()).split(' ')[0]!);
      return [...all];
    };
    for (const [zone, endpoint] of [
      ['a', 'ep0'],
      ['b', 'ep1'],
    ] as const) {
      await moveTo(zone);
      await eventually(`only ${endpoint} in zone ${zone}`, async () => (await seen()).join() === endpoint, 10_000);
    }
    await moveTo('c');
    await eventually('both where no hint names the zone', async () => (await seen()).length === 2, 10_000);
  });

  it('a UDP Service that goes while no proxy runs: its flows end when one runs again', async () => {
    const address = '10.96.0.53';
    await lab.setService(
      'dns',
      spec({ ports: [{ port: 53, protocol: 'UDP' as const }], clusterIP: address, clusterIPs: [address] }),
    );
    await lab.setEndpoints('dns', [0], { protocol: 'UDP' });
    const socket = await lab.udp(lab.client, address, 53, 4253);
    await eventually('ep0 answers', async () => (await socket.ask()).startsWith('ep0'));
    await running.stop();
    lab.removeService('dns');
    lab.api.remove(resources.endpointSlices, { namespace: 'lab', name: 'dns-ipv4' });
    expect(await socket.ask()).toMatch(/^ep0/);
    running = await lab.startProxy(document);
    await eventually('nobody answers', async () => !(await socket.ask()).startsWith('ep'));
    socket.stop();
  });

  it('the health check node port tells of endpoints on this node', async () => {
    const port = 32_000 + (process.pid % 500) * 2 + (mode === 'iptables' ? 0 : 1);
    const check = async (): Promise<string> => {
      const response = await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined);
      const body = (await response?.json()) as { localEndpoints?: number } | undefined;
      return response ? `${response.status} ${body?.localEndpoints}` : 'closed';
    };
    const balanced = {
      type: 'LoadBalancer' as const,
      externalTrafficPolicy: 'Local' as const,
      healthCheckNodePort: port,
      ports: [{ port: 80, protocol: 'TCP' as const, nodePort: 30_480 }],
    };
    await lab.setService('web', spec(balanced), { loadBalancer: { ingress: [{ ip: '10.97.0.9' }] } });
    await lab.setEndpoints('web', [0, 1]);
    await eventually('two here', async () => (await check()) === '200 2');
    expect(await lab.get(lab.client, '10.97.0.9', 80)).toMatch(new RegExp(`^ep[01] ${lab.toClient.peerIpv4}$`));
    await lab.setEndpoints('web', [0, 1], { nodeName: 'elsewhere' });
    await eventually('none here', async () => (await check()) === '503 0');
    await lab.setService('web', spec());
    await eventually('closed', async () => (await check()) === 'closed');
  });

  it('a client that asks on and on sees no failure while endpoints come and go and the proxy restarts', async () => {
    await lab.setEndpoints('web', [0, 1]);
    await answers(/^ep/);
    let on = true;
    const seen = new Map<string, number>();
    const asking = (async () => {
      while (on) {
        const answer = (await get()).replace(/^ep\d .*/, 'served');
        seen.set(answer, (seen.get(answer) ?? 0) + 1);
      }
    })();
    for (let round = 0; round < 10; round++) {
      await lab.setEndpoints('web', [[0], [0, 1], [1], [1, 0]][round % 4]!);
      if (round % 4 === 3) {
        await running.stop();
        running = await lab.startProxy(document);
      }
      await new Promise((resolve) => setTimeout(resolve, 120));
    }
    on = false;
    await asking;
    expect([...seen.keys()]).toEqual(['served']);
    expect(seen.get('served')).toBeGreaterThan(5);
  });
});
