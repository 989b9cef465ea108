// The proxy in nftables mode from API objects to packets, through its whole life: changes, foreign hands, restarts, mode switches, cleanup.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { KubeClient } from '../../kube/client.ts';
import { ApiError } from '../../kube/errors.ts';
import { type Resource, resources } from '../../kube/resources.ts';
import { createServicesLab, echoPort, eventually, type RunningProxy, type ServicesLab } from '../lab/services-lab.ts';

const vip = '10.96.0.10';
const mode = { mode: 'nftables' };
const cli = fileURLToPath(new URL('../../cli/stevedore.ts', import.meta.url));
const spec = (fields: object = {}) => ({
  type: 'ClusterIP' as const,
  clusterIP: vip,
  clusterIPs: [vip],
  ipFamilies: ['IPv4' as const],
  ports: [{ port: 80, protocol: 'TCP' as const, targetPort: echoPort }],
  ...fields,
});

describe('Services through nftables', () => {
  let lab: ServicesLab;
  let running: RunningProxy;

  beforeAll(async () => {
    lab = await createServicesLab();
    running = await lab.startProxy(mode);
  });
  afterAll(async () => {
    await running?.stop();
    await lab?.stop();
  });
  afterEach(async ({ task }) => {
    if (task.result?.state !== 'fail') return;
    console.error(running.lines.join(''), (await lab.node.exec('nft', ['list', 'ruleset'])).stdout);
  });

  const get = (port = 80, address = vip) => lab.get(lab.client, address, port);
  const answers = (wanted: RegExp, port = 80, address = vip) =>
    eventually(`${address}:${port} answers ${wanted}`, async () => wanted.test(await get(port, address)));
  const ruleset = async (): Promise<string> => (await lab.node.exec('nft', ['-s', 'list', 'ruleset'])).stdout;
  /** Elements and rules, sorted: their order is none of ours. */
  const ours = async (): Promise<string[]> =>
    (await lab.node.exec('nft', ['-s', 'list', 'table', 'ip', 'stevedore'])).stdout
      .split(/[\n,{}]/)
      .map((line) => line.replace(/ counter packets \d+ bytes \d+/, '').trim())
      .filter((line) => line !== '' && !line.startsWith('elements'))
      .sort();

  it('a Service is served, refused without endpoints, and its endpoints change', async () => {
    await lab.setService('web', spec({ type: 'NodePort', ports: [{ port: 80, protocol: 'TCP', nodePort: 30080 }] }));
    await lab.setEndpoints('web', [0, 1]);
    await answers(/^ep/);
    await answers(/^ep/, 30080, lab.toClient.ipv4);
    await lab.setEndpoints('web', []);
    await answers(/^refused/);
    await lab.setEndpoints('web', [1]);
    await answers(/^ep1/);
  });

  it('what others take away of ours is mended within a second, and what is theirs stays', async () => {
    await lab.node.exec('nft', ['-f', '-'], { input: 'table ip others {\nset s {\ntype ipv4_addr\n}\n}\n' });
    // A start drops chains that nobody needs any more; then there is just what would be written anew.
    await running.stop();
    running = await lab.startProxy(mode);
    const late = `${vip} . 80 . 1`;
    await eventually('endpoints that went are deleted', async () => !(await ours()).join().includes(late));
    const before = await ours();
    for (const harm of [
      'delete table ip stevedore',
      'flush map ip stevedore svc',
      'flush chain ip stevedore services',
      'delete chain ip stevedore filter-forward',
      `delete element ip stevedore eps-tcp { ${vip} . 80 . 0 }`,
    ]) {
      const input = harm.includes('filter-forward') ? `flush chain ip stevedore filter-forward\n${harm}\n` : harm;
      await lab.node.exec('nft', ['-f', '-'], { input });
      await eventually(
        `mended after ${harm}`,
        async () => (await ours().catch(() => [])).join() === before.join(),
        2_500,
      );
    }
    await answers(/^ep1/);
    expect(await ruleset()).toContain('table ip others');
  });

  it('what is programmed is shown with counters, and nothing is missing', async () => {
    await get();
    const [description] = await running.proxy.describe('lab/web', AbortSignal.timeout(10_000));
    expect(description).toMatchObject({ missing: [], surplus: [] });
    const hits = description!.kernel.filter(({ chain }) => chain === 'eps-tcp').map(({ packets }) => packets ?? 0);
    expect(Math.max(...hits)).toBeGreaterThan(0);
  });

  it('a trace says where a packet goes and why, from the rules in the kernel', async () => {
    const trace = async (...words: string[]): Promise<string> => {
      const node = fileURLToPath(new URL('../../node_modules/node/bin/node', import.meta.url));
      return (await lab.node.exec(node, [cli, 'rules', '--trace', ...words])).stdout;
    };
    const said = await trace(lab.toClient.peerIpv4, `${vip}:80`);
    expect(said).toContain(`${lab.toEndpoint[1]!.peerIpv4}:${echoPort}`);
    expect(said).toContain('decided by cip-tcp-1');
    expect(await trace(lab.toClient.peerIpv4, `${vip}:81`)).toContain('is refused');
    expect(await trace(lab.toClient.peerIpv4, '192.0.2.1:80')).toContain('no rule of ours concerns it');
  });

  it('a restart takes over what is there; what changed meanwhile is written, and old UDP flows follow', async () => {
    const udp = {
      ports: [{ port: 53, protocol: 'UDP' as const }],
      clusterIP: '10.96.0.53',
      clusterIPs: ['10.96.0.53'],
    };
    await lab.setService('dns', spec(udp));
    await lab.setEndpoints('dns', [0], { protocol: 'UDP' });
    const socket = await lab.udp(lab.client, '10.96.0.53', 53, 4153);
    await eventually('ep0 answers', async () => (await socket.ask()).startsWith('ep0'));
    const before = await ours();
    await running.stop();
    await answers(/^ep1/);
    running = await lab.startProxy(mode);
    expect(await ours()).toEqual(before);
    await running.stop();
    await lab.setEndpoints('dns', [1], { protocol: 'UDP' });
    running = await lab.startProxy(mode);
    await eventually('ep1 answers', async () => (await socket.ask()).startsWith('ep1'));
    socket.stop();
  });

  it('the memory of a stopped proxy spares the listing', async () => {
    const stateDir = await mkdtemp(join(tmpdir(), 'proxy-state-'));
    try {
      await running.stop();
      running = await lab.startProxy(mode, { stateDir });
      const before = await ours();
      await running.stop();
      running = await lab.startProxy(mode, { stateDir });
      expect(running.commands.filter((command) => command.includes('list table ip stevedore'))).toEqual([]);
      expect((await ours()).filter((line) => !/^0x/.test(line))).toEqual(before);
      await lab.setEndpoints('web', [0]);
      await answers(/^ep0/);
    } finally {
      await rm(stateDir, { recursive: true, force: true });
    }
  });

  it('what goes to cluster IPs that no Service has is dropped, as ServiceCIDRs come, stay over a restart, and go', async () => {
    // Somebody answers there, unless rules prevent it.
    const nobodys = '10.96.200.7';
    await lab.endpoints[1]!.exec('ip', ['addr', 'add', `${nobodys}/32`, 'dev', 'lo']);
    await lab.node.exec('ip', ['route', 'add', `${nobodys}/32`, 'via', lab.toEndpoint[1]!.peerIpv4]);
    const networks = async (): Promise<string> =>
      (await lab.node.exec('nft', ['list', 'chain', 'ip', 'stevedore', 'unallocated'])).stdout;
    const differences = async () =>
      (await running.proxy.describe(undefined, AbortSignal.timeout(10_000))).flatMap(({ missing, surplus }) => [
        ...missing,
        ...surplus,
      ]);
    await answers(/^ep1/, echoPort, nobodys);

    running.inputs.length = 0;
    lab.api.seed(resources.serviceCidrs, { metadata: { name: 'kubernetes' }, spec: { cidrs: ['10.96.0.0/16'] } });
    await eventually('the network is dropped', async () => (await networks()).includes('ip daddr 10.96.0.0/16 drop'));
    expect(running.inputs.join('').match(/\b(?:add|delete|flush) [^;\n]*/g)).toEqual([
      'add chain ip stevedore unallocated',
      'flush chain ip stevedore unallocated',
      'add rule ip stevedore unallocated ip daddr @cluster-ips goto refuse',
      'add rule ip stevedore unallocated ip daddr 10.96.0.0/16 drop',
    ]);
    expect(await get(echoPort, nobodys)).toBe('timeout');
    expect(await get(81)).toBe('refused');
    await answers(/^ep/);
    expect(await differences()).toEqual([]);
    const node = fileURLToPath(new URL('../../node_modules/node/bin/node', import.meta.url));
    const { stdout } = await lab.node.exec(node, [cli, 'rules', '--trace', lab.toClient.peerIpv4, `${nobodys}:80`]);
    expect(stdout).toContain('is dropped: a cluster IP that no Service has\ndecided by unallocated');

    await running.stop();
    running = await lab.startProxy(mode);
    expect(running.inputs.filter((input) => input.includes('unallocated'))).toEqual([]);
    expect(await get(echoPort, nobodys)).toBe('timeout');
    await lab.node.exec('nft', ['flush', 'chain', 'ip', 'stevedore', 'unallocated']);
    await eventually('it is mended', async () => (await networks()).includes('drop'));

    lab.api.remove(resources.serviceCidrs, { name: 'kubernetes' });
    await answers(/^ep1/, echoPort, nobodys);
  });

  it('an API server without ServiceCIDRs holds nothing up and is told of once', async () => {
    const refused = new ApiError('not-found', 'the server could not find the requested resource', { status: 404 });
    const is = (resource: Resource): boolean => resource.plural === 'servicecidrs';
    const client: KubeClient = {
      ...lab.api,
      list: (resource, options) => (is(resource) ? Promise.reject(refused) : lab.api.list(resource, options)),
      async *watch(resource, options) {
        if (is(resource)) throw refused;
        yield* lab.api.watch(resource, options);
      },
    };
    await running.stop();
    const startedMs = performance.now();
    running = await lab.startProxy(mode, { client });
    expect(performance.now() - startedMs).toBeLessThan(5_000);
    await answers(/^ep/);
    await eventually('it is told', () => running.lines.join('').includes('ServiceCIDRs cannot be read'));
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(running.lines.filter((line) => line.includes('ServiceCIDRs'))).toHaveLength(1);
    await running.stop();
    running = await lab.startProxy(mode);
  });

  it('what a kube-proxy of this mode left is taken away', async () => {
    await running.stop();
    const left = [
      'table ip kube-proxy {',
      'chain nat-prerouting {',
      'type nat hook prerouting priority -110',
      `ip daddr ${vip} tcp dport 80 dnat to 192.0.2.7:80`,
      '}',
      '}',
    ];
    await lab.node.exec('nft', ['-f', '-'], { input: `${left.join('\n')}\n` });
    expect(await get()).not.toMatch(/^ep/);
    running = await lab.startProxy(mode);
    await eventually('its table is gone', async () => !(await ruleset()).includes('table ip kube-proxy'));
    await answers(/^ep/);
  });

  it('modes are switched without an unserved moment, and the other mode leaves nothing behind', async () => {
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
    for (const next of ['iptables', 'nftables']) {
      await running.stop();
      running = await lab.startProxy({ mode: next });
      const other = next === 'iptables' ? 'table ip stevedore' : 'KUBE-SERVICES';
      await eventually(`${other} is gone`, async () => !(await ruleset()).includes(other), 10_000);
    }
    on = false;
    await asking;
    expect([...seen.keys()]).toEqual(['served']);
    expect(seen.get('served')).toBeGreaterThan(5);
  });
});
