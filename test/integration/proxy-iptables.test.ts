// Services through real iptables, with real packets: a client, a node and two endpoints, each in a network namespace of its own.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../lib/log.ts';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { createBackendContext } from '../../proxy/backends.ts';
import { cleanupProxy } from '../../proxy/cleanup.ts';
import { createServicesLab, echoPort, eventually, type RunningProxy, type ServicesLab } from '../lab/services-lab.ts';

const vip = '10.96.0.10';
const vip6 = 'fd00:10:96::10';
const spec = (fields: object = {}) => ({
  type: 'ClusterIP' as const,
  clusterIP: vip,
  clusterIPs: [vip],
  ipFamilies: ['IPv4' as const],
  ports: [{ port: 80, protocol: 'TCP' as const, targetPort: echoPort }],
  ...fields,
});
const nodePortSpec = (fields: object = {}) =>
  spec({ type: 'NodePort', ports: [{ port: 80, protocol: 'TCP', nodePort: 30080 }], ...fields });

// Long waits, as that for the end of a kube-proxy, are cut short.
const quick: Clock = { ...systemClock, sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 500), signal) };

describe('Services through iptables', () => {
  let lab: ServicesLab;
  let running: RunningProxy;

  beforeAll(async () => {
    lab = await createServicesLab();
    running = await lab.startProxy();
  });
  afterAll(async () => {
    await running?.stop();
    await lab?.stop();
  });
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') console.error(running.lines.join(''), await lab.dump());
  });

  const get = (port = 80, address = vip) => lab.get(lab.client, address, port);
  const answers = (wanted: RegExp, port = 80, address = vip) =>
    eventually(`${address}:${port} answers ${wanted}`, async () => wanted.test(await get(port, address)));

  it('a cluster IP reaches its endpoints, each of them, and keeps the source address of pods', async () => {
    await lab.setService('web', spec());
    await lab.setEndpoints('web', [0, 1]);
    await answers(/^ep/);
    const names = new Set<string>();
    await eventually('both answer', async () => names.add((await get()).split(' ')[0]!).size === 2, 20_000);
    expect(await get()).toMatch(new RegExp(`^ep[01] ${lab.toClient.peerIpv4}$`));
  });

  it('the node itself reaches it', async () => {
    expect(await lab.get(lab.node, vip, 80)).toMatch(/^ep/);
  });

  it('an endpoint that reaches itself through the Service is masqueraded', async () => {
    await lab.setEndpoints('web', [0]);
    await eventually(
      'only ep0 is left',
      async () => !(await lab.dump()).includes(`--to-destination ${lab.toEndpoint[1]!.peerIpv4}:`),
    );
    const [own, peer] = [lab.toEndpoint[0]!.ipv4, lab.toEndpoint[0]!.peerIpv4];
    expect(await lab.get(lab.endpoints[0]!, vip, 80)).toBe(`ep0 ${own}`);
    expect(own).not.toBe(peer);
  });

  it('without endpoints connections are refused at once, and served again when one comes', async () => {
    await lab.setEndpoints('web', []);
    await eventually('refused', async () => (await get()) === 'refused');
    await lab.setEndpoints('web', [1]);
    await answers(/^ep1/);
  });

  it('a node port is served on the addresses of the node, masqueraded', async () => {
    await lab.setService('web', nodePortSpec());
    await answers(/^ep1/, 30080, lab.toClient.ipv4);
    expect(await get(30080, lab.toClient.ipv4)).toBe(`ep1 ${lab.toEndpoint[1]!.ipv4}`);
  });

  it('external policy Local keeps the source address, and drops where no endpoint is local', async () => {
    await lab.setService('web', nodePortSpec({ externalTrafficPolicy: 'Local' }));
    const kept = new RegExp(`^ep1 ${lab.toClient.peerIpv4}$`);
    await answers(kept, 30080, lab.toClient.ipv4);
    await lab.setEndpoints('web', [1], { nodeName: 'elsewhere' });
    await eventually('dropped', async () => (await get(30080, lab.toClient.ipv4)) === 'timeout', 10_000);
    expect(await get()).toMatch(/^ep1/);
    expect(await lab.get(lab.node, lab.toClient.ipv4, 30080)).toMatch(/^ep1/);
  });

  it('external IPs and load balancer VIPs with source ranges', async () => {
    const ingress = { loadBalancer: { ingress: [{ ip: '10.97.0.1' }] } };
    const balanced = {
      type: 'LoadBalancer',
      externalIPs: ['10.97.0.2'],
      loadBalancerSourceRanges: [`${lab.toClient.peerIpv4}/32`],
    };
    await lab.setService('web', nodePortSpec(balanced), ingress);
    await lab.setEndpoints('web', [0]);
    await answers(/^ep0/, 80, '10.97.0.1');
    expect(await get(80, '10.97.0.2')).toMatch(/^ep0/);
    expect(await lab.get(lab.endpoints[1]!, '10.97.0.1', 80)).toBe('timeout');
    expect(await lab.get(lab.endpoints[1]!, '10.97.0.2', 80)).toMatch(/^ep0/);
  });

  it('session affinity sends a client to one endpoint', async () => {
    const timeout = { sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } } };
    await lab.setService('web', spec({ sessionAffinity: 'ClientIP', ...timeout }));
    await lab.setEndpoints('web', [0, 1]);
    await eventually('affinity is programmed', async () => {
      const { stdout } = await lab.node.exec('iptables-save', ['-t', 'nat']);
      return (stdout.match(/--rcheck/g) ?? []).length === 2;
    });
    const seen = new Set<string>();
    for (let at = 0; at < 12; at++) seen.add((await get()).split(' ')[0]!);
    expect(seen.size).toBe(1);
  });

  it('UDP: a socket that stays follows when its endpoint goes, when none is left, and when one comes', async () => {
    const udp = {
      ports: [{ port: 53, protocol: 'UDP' as const }],
      clusterIP: '10.96.0.53',
      clusterIPs: ['10.96.0.53'],
    };
    await lab.setService('dns', spec(udp));
    await lab.setEndpoints('dns', [0], { protocol: 'UDP' });
    const socket = await lab.udp(lab.client, '10.96.0.53', 53, 4053);
    await eventually('ep0 answers', async () => (await socket.ask()).startsWith('ep0'));
    await lab.setEndpoints('dns', [1], { protocol: 'UDP' });
    await eventually('ep1 answers', async () => (await socket.ask()).startsWith('ep1'));
    await lab.setEndpoints('dns', [], { protocol: 'UDP' });
    await eventually('none answers', async () => !(await socket.ask()).startsWith('ep'));
    await lab.setEndpoints('dns', [0], { protocol: 'UDP' });
    await eventually('ep0 answers again', async () => (await socket.ask()).startsWith('ep0'));
    lab.removeService('dns');
    await eventually('nobody answers', async () => !(await socket.ask()).startsWith('ep'));
    socket.stop();
  });

  it('IPv6', async () => {
    await lab.setService('six', spec({ clusterIP: vip6, clusterIPs: [vip6], ipFamilies: ['IPv6'] }));
    await eventually('refused', async () => (await get(80, vip6)) === 'refused');
    await lab.setEndpoints('six', [0], { family: 'IPv6' });
    await answers(/^ep0/, 80, vip6);
    expect(await lab.get(lab.endpoints[0]!, vip6, 80)).toBe(`ep0 ${lab.toEndpoint[0]!.ipv6}`);
  });

  it("others' rules survive, and what they flush of ours is mended within a second", async () => {
    await lab.node.exec('iptables', ['-t', 'nat', '-N', 'OTHERS']);
    await lab.node.exec('iptables', ['-t', 'nat', '-A', 'OTHERS', '-s', '192.0.2.1/32', '-j', 'RETURN']);
    await lab.node.exec('iptables', ['-t', 'nat', '-A', 'PREROUTING', '-j', 'OTHERS']);
    for (const flush of [
      ['iptables', '-t', 'nat', '-F', 'KUBE-SERVICES'],
      ['iptables', '-t', 'nat', '-D', 'PREROUTING', '1'],
      ['iptables', '-t', 'filter', '-F'],
    ]) {
      const before = (await lab.node.exec('iptables-save', [])).stdout.match(/^-A .*KUBE/gm)!.sort();
      await lab.node.exec(flush[0]!, flush.slice(1));
      await eventually(
        `mended after ${flush.join(' ')}`,
        async () => {
          const now = (await lab.node.exec('iptables-save', [])).stdout.match(/^-A .*KUBE/gm)?.sort();
          return JSON.stringify(now) === JSON.stringify(before);
        },
        1_500,
      );
    }
    const { stdout } = await lab.node.exec('iptables-save', ['-t', 'nat']);
    expect(stdout).toContain('-A PREROUTING -j OTHERS');
    expect(stdout).toContain('-A OTHERS -s 192.0.2.1/32 -j RETURN');
  });

  it('a restart takes over what is there and writes only the difference; connections live on', async () => {
    await lab.setService('web', spec());
    await lab.setEndpoints('web', [0]);
    await eventually(
      'only ep0 is left',
      async () => !(await lab.dump()).includes(`--to-destination ${lab.toEndpoint[1]!.peerIpv4}:`),
    );
    const before = (await lab.node.exec('iptables-save', [])).stdout.match(/^[-:].*KUBE.*/gm);
    await running.stop();
    running = await lab.startProxy();
    expect(running.inputs).toEqual([]);
    expect((await lab.node.exec('iptables-save', [])).stdout.match(/^[-:].*KUBE.*/gm)).toEqual(before);
    await running.stop();
    await lab.setEndpoints('web', [1]);
    lab.removeService('six');
    running = await lab.startProxy();
    await answers(/^ep1/);
    expect(running.inputs.join('')).not.toMatch(/:KUBE-(SERVICES|POSTROUTING|MARK-MASQ)/);
  });

  it('what is programmed is shown with counters, and nothing is missing', async () => {
    await get();
    const [description] = await running.proxy.describe('lab/web', AbortSignal.timeout(5_000));
    expect(description).toMatchObject({ missing: [], surplus: [] });
    const hits = description!.kernel
      .filter(({ chain }) => chain.startsWith('KUBE-SEP-'))
      .map(({ packets }) => packets ?? 0);
    expect(Math.max(...hits)).toBeGreaterThan(0);
  });

  it('cleanup removes all of ours and nothing else', async () => {
    await running.stop();
    const { exec } = createBackendContext(systemClock, silentLog, { enter: lab.node.enter });
    const left = await cleanupProxy(
      { exec, clock: systemClock, log: silentLog },
      { kubeProxy: true },
      AbortSignal.timeout(10_000),
    );
    expect(left).toEqual([]);
    const all = `${(await lab.node.exec('iptables-save', [])).stdout}${(await lab.node.exec('ip6tables-save', [])).stdout}`;
    expect(all).not.toContain('KUBE');
    expect(all).toContain('-A PREROUTING -j OTHERS');
    running = await lab.startProxy();
    await answers(/^ep1/);
  });

  it('stands by while a kube-proxy runs, and goes on when it ends; a dry run writes nothing', async () => {
    await running.stop();
    let found: string | undefined = 'process 1';
    const starting = lab.startProxy({}, { detectKubeProxy: () => Promise.resolve(found), clock: quick });
    const dry = await lab.startProxy({}, { dryRun: true });
    await lab.node.exec('iptables', ['-t', 'nat', '-F', 'KUBE-SERVICES']);
    expect(dry.inputs).toEqual([]);
    expect(await dry.proxy.render()).toContain('-j KUBE-SVC-');
    await dry.stop();
    expect((await lab.node.exec('iptables', ['-t', 'nat', '-S', 'KUBE-SERVICES'])).stdout).not.toContain('KUBE-SVC');
    found = undefined;
    running = await starting;
    expect(running.lines.filter((line) => line.includes('stands by'))).toHaveLength(1);
    await answers(/^ep1/);
  });
});
