// A node, pods on it, a pod elsewhere and a client, each a network namespace, with addresses as a cluster gives them; and a prober in
// each that connects as it is told. What the node has no route for goes to a host that throws it away: nothing leaves the machine. For
// the contract of packet flows.
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { IpFamily } from '../../proxy/addresses.ts';
import type { Host, World } from '../../proxy/contract.ts';
import { createLabHost, type LabHost, type LabLink } from './netns.ts';

const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const echoPort = 8080;

const podAddresses: Readonly<Record<'ep0' | 'ep1' | 'pod' | 'far', readonly [string, string]>> = {
  ep0: ['10.200.1.10', 'fd00:10:244:1::10'],
  ep1: ['10.200.1.11', 'fd00:10:244:1::11'],
  pod: ['10.200.1.12', 'fd00:10:244:1::12'],
  far: ['10.200.2.10', 'fd00:10:244:2::10'],
};

export interface FlowsLab {
  readonly hosts: Readonly<Record<Host, LabHost>>;
  world(family: IpFamily): World;
  /** One new connection: what the other side said (its name and whom it saw), `rejected` or `dropped`. */
  ask(from: Host, protocol: 'TCP' | 'UDP', address: string, port: number, timeoutMs?: number): Promise<string>;
  /** A UDP socket that stays; `ask` sends one packet and gives the answer, `refused` or `timeout`. */
  udpFlow(
    from: Host,
    address: string,
    port: number,
    sourcePort: number,
  ): Promise<{ ask(): Promise<string>; stop(): void }>;
  /** All addresses of the node. */
  readonly nodeAddresses: ReadonlySet<string>;
  stop(): Promise<void>;
}

interface Prober {
  ask(request: { protocol: string; address: string; port: number; timeoutMs: number }): Promise<string>;
}

async function ready(child: ChildProcess): Promise<AsyncIterator<string>> {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  await lines.next();
  return lines;
}

async function startProber(host: LabHost): Promise<Prober> {
  const child = host.node(file('prober.ts'), [], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = await ready(child);
  const waiting = new Map<number, (answer: string) => void>();
  let nextId = 0;
  const read = async (): Promise<void> => {
    for (let line = await lines.next(); !line.done; line = await lines.next()) {
      const { id, answer } = JSON.parse(line.value) as { id: number; answer: string };
      waiting.get(id)?.(answer);
      waiting.delete(id);
    }
  };
  void read();
  return {
    ask: (request) =>
      new Promise((resolve) => {
        const id = nextId++;
        waiting.set(id, resolve);
        child.stdin!.write(`${JSON.stringify({ id, ...request })}\n`);
      }),
  };
}

/** The pod has no address but its own, as with most network plugins. */
async function makePod(
  node: LabHost,
  pod: LabHost,
  link: LabLink,
  [ipv4, ipv6]: readonly [string, string],
): Promise<void> {
  const device = `${link.device.slice(0, -1)}b`;
  await pod.exec('ip', ['addr', 'flush', 'dev', device, 'scope', 'global']);
  await pod.exec('ip', ['addr', 'add', `${ipv4}/32`, 'dev', device]);
  await pod.exec('ip', ['-6', 'addr', 'add', `${ipv6}/128`, 'dev', device, 'nodad']);
  await node.exec('ip', ['route', 'add', `${ipv4}/32`, 'dev', link.device]);
  await node.exec('ip', ['-6', 'route', 'add', `${ipv6}/128`, 'dev', link.device]);
  await pod.exec('ip', ['route', 'add', link.ipv4, 'dev', device]);
  await pod.exec('ip', ['-6', 'route', 'add', link.ipv6, 'dev', device]);
  await pod.exec('ip', ['route', 'add', 'default', 'via', link.ipv4]);
  await pod.exec('ip', ['-6', 'route', 'add', 'default', 'via', link.ipv6]);
}

export async function createFlowsLab(): Promise<FlowsLab> {
  const made: LabHost[] = [];
  const host = async (name: string, node: boolean): Promise<LabHost> => {
    const one = await createLabHost(name, { forward: node, unreachable: [] });
    made.push(one);
    return one;
  };
  const stop = async (): Promise<void> => void (await Promise.all(made.map((one) => one.stop())));
  try {
    const node = await host('flow-node', true);
    const sink = await host('flow-sink', false);
    // ICMP errors are limited to one a second, and that is what a refused UDP packet is told by.
    await node.exec('sysctl', ['-qw', 'net.ipv4.icmp_ratelimit=0', 'net.ipv6.icmp.ratelimit=0']);
    const away = await node.link(sink);
    await node.exec('ip', ['route', 'add', 'default', 'via', away.peerIpv4]);
    await node.exec('ip', ['-6', 'route', 'add', 'default', 'via', away.peerIpv6]);
    const hosts: Record<string, LabHost> = { node };
    const address: Record<string, readonly [string, string]> = { ...podAddresses };
    let podInterface = '';
    for (const name of ['client', 'ep0', 'ep1', 'pod', 'far'] as const) {
      const one = await host(`flow-${name}`, false);
      hosts[name] = one;
      const link = await node.link(one);
      if (name === 'client') {
        address.client = [link.peerIpv4, link.peerIpv6];
        address.node = [link.ipv4, link.ipv6];
        await one.exec('ip', ['route', 'add', 'default', 'via', link.ipv4]);
        await one.exec('ip', ['-6', 'route', 'add', 'default', 'via', link.ipv6]);
      } else await makePod(node, one, link, podAddresses[name]);
      if (name === 'pod') podInterface = link.device;
    }
    const echoes = (['ep0', 'ep1', 'far'] as const).map((name) =>
      ready(
        hosts[name]!.node(file('echo-server.ts'), [name, String(echoPort)], { stdio: ['ignore', 'pipe', 'inherit'] }),
      ),
    );
    const probers = new Map<string, Prober>();
    await Promise.all([
      ...echoes,
      ...(['client', 'node', 'ep0', 'pod', 'far'] as const).map(async (name) => {
        probers.set(name, await startProber(hosts[name]!));
      }),
    ]);
    const nodeAddresses = new Set(await node.addresses());
    return {
      hosts: hosts as Record<Host, LabHost>,
      nodeAddresses,
      world(family) {
        const at = family === 'IPv4' ? 0 : 1;
        const addresses = Object.fromEntries(Object.entries(address).map(([name, both]) => [name, both[at]]));
        return {
          family,
          address: addresses as Record<Host, string>,
          echoPort,
          clusterCIDR: family === 'IPv4' ? '10.200.0.0/16' : 'fd00:10:244::/56',
          nodeCIDR: family === 'IPv4' ? '10.200.1.0/24' : 'fd00:10:244:1::/64',
          podInterface,
        };
      },
      ask: (from, protocol, to, port, timeoutMs = 500) =>
        probers.get(from)!.ask({ protocol, address: to, port, timeoutMs }),
      async udpFlow(from, to, port, sourcePort) {
        const child = hosts[from]!.node(file('udp-ask.ts'), [to, String(port), String(sourcePort)], {
          stdio: ['pipe', 'pipe', 'inherit'],
        });
        const lines = await ready(child);
        return {
          async ask() {
            child.stdin!.write('\n');
            return String((await lines.next()).value);
          },
          stop: () => void child.stdin!.end(),
        };
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
