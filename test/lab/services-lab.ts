// A node with a client and two endpoints beside it, each a network namespace, and the real proxy on the node fed by a fake API server.
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import * as v from 'valibot';
import { createFakeClient, type FakeClient } from '../../kube/fake-client.ts';
import { resources } from '../../kube/resources.ts';
import type { EndpointSlice, Node, Service } from '../../kube/types/core.ts';
import { systemClock } from '../../lib/clock.ts';
import { createLog } from '../../lib/log.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { createBackendContext } from '../../proxy/backends.ts';
import { completeKubeProxyConfiguration, kubeProxyConfigurationFields } from '../../proxy/config.ts';
import { createProxy, type ProxyDeps, type ServiceProxy } from '../../proxy/proxy.ts';
import { fileURLToPath } from 'node:url';
import { createLabHost, type LabHost, type LabLink } from './netns.ts';

const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export interface RunningProxy {
  readonly proxy: ServiceProxy;
  /** Everything it logged. */
  readonly lines: readonly string[];
  /** Scripts given to iptables-restore or nft so far. */
  readonly inputs: string[];
  /** Command lines run so far. */
  readonly commands: string[];
  stop(): Promise<void>;
}

export interface AskingClient {
  ask(): Promise<string>;
  stop(): void;
}

export interface ServicesLab {
  readonly node: LabHost;
  readonly client: LabHost;
  readonly endpoints: readonly LabHost[];
  /** The node's side of its link to the client. */
  readonly toClient: LabLink;
  readonly toEndpoint: readonly LabLink[];
  readonly api: FakeClient;
  setService(name: string, spec: Partial<Service['spec']>, status?: Service['status']): Promise<void>;
  removeService(name: string): void;
  /** `ready`: numbers of endpoint hosts. All are on this node unless said otherwise. */
  setEndpoints(
    name: string,
    ready: readonly number[],
    options?: { nodeName?: string; family?: 'IPv4' | 'IPv6'; protocol?: 'TCP' | 'UDP' },
  ): Promise<void>;
  /** One HTTP call by a new connection: the answer, or `refused` or `timeout`, which is after a second SYN: between namespaces the kernel
   * may get the answer to the first while connect() still holds the socket, and miss it. */
  get(from: LabHost, address: string, port: number): Promise<string>;
  /** A UDP socket that stays. */
  udp(from: LabHost, address: string, port: number, sourcePort: number): Promise<AskingClient>;
  /** Rejects where the first sync does not come within `firstSyncMs` milliseconds, 20 s by default. */
  startProxy(
    document?: Record<string, unknown>,
    deps?: Partial<ProxyDeps>,
    options?: { readonly firstSyncMs?: number },
  ): Promise<RunningProxy>;
  /** Rules of all tables, for a failing test. */
  dump(): Promise<string>;
  stop(): Promise<void>;
}

const firstLine = async (child: ChildProcess): Promise<void> => {
  for await (const line of createInterface({ input: child.stdout! })) if (line === 'ready') return;
};

export const echoPort = 8080;
let nextPort = 21_000 + (process.pid % 4000);

export async function createServicesLab(): Promise<ServicesLab> {
  const hosts: LabHost[] = [];
  const host = async (name: string, node: boolean): Promise<LabHost> => {
    const made = await createLabHost(name, node ? {} : { forward: false, unreachable: [] });
    hosts.push(made);
    return made;
  };
  const stop = async (): Promise<void> => void (await Promise.all(hosts.map((one) => one.stop())));
  try {
    const node = await host('node', true);
    const client = await host('client', false);
    const endpoints = [await host('ep0', false), await host('ep1', false)];
    const links: LabLink[] = [];
    for (const other of [client, ...endpoints]) {
      const link = await node.link(other);
      await other.exec('ip', ['route', 'add', 'default', 'via', link.ipv4]);
      await other.exec('ip', ['-6', 'route', 'add', 'default', 'via', link.ipv6]);
      links.push(link);
    }
    const [toClient, ...toEndpoint] = links as [LabLink, ...LabLink[]];
    // As on a real node, packets to a VIP have a way: what no rule turns away ends at a host that forwards nothing.
    const sink = await node.link(await host('sink', false));
    for (const [family, range] of [
      ['-4', '10.96.0.0/12'],
      ['-6', 'fd00:10:96::/108'],
    ] as const)
      await node.exec('ip', [family, 'route', 'add', range, 'dev', sink.device, 'metric', '1']);
    await Promise.all(
      endpoints.map((one, at) =>
        firstLine(
          one.node(file('echo-server.ts'), [`ep${at}`, String(echoPort)], { stdio: ['ignore', 'pipe', 'inherit'] }),
        ),
      ),
    );
    const addresses = await node.addresses();
    const api = createFakeClient();
    const self: Node = {
      metadata: { name: 'n1' },
      spec: {},
      status: {
        addresses: [
          { type: 'InternalIP', address: toClient.ipv4 },
          { type: 'InternalIP', address: toClient.ipv6 },
        ],
      },
    };
    api.seed(resources.nodes, self);

    return {
      node,
      client,
      endpoints,
      toClient,
      toEndpoint,
      api,
      async setService(name, spec, status) {
        const object: Service = { metadata: { namespace: 'lab', name }, spec, ...(status ? { status } : {}) };
        if (api.find(resources.services, { namespace: 'lab', name })) {
          await api.update(resources.services, object);
          if (status) await api.update(resources.services, object, { subresource: 'status' });
        } else api.seed(resources.services, object);
      },
      removeService: (name) => api.remove(resources.services, { namespace: 'lab', name }),
      async setEndpoints(name, ready, options = {}) {
        const { nodeName = 'n1', family = 'IPv4', protocol = 'TCP' } = options;
        const object: EndpointSlice = {
          metadata: {
            namespace: 'lab',
            name: `${name}-${family.toLowerCase()}`,
            labels: { 'kubernetes.io/service-name': name },
          },
          addressType: family,
          endpoints: ready.map((at) => ({
            addresses: [family === 'IPv4' ? toEndpoint[at]!.peerIpv4 : toEndpoint[at]!.peerIpv6],
            nodeName,
            conditions: { ready: true },
          })),
          ports: [{ name: '', port: echoPort, protocol }],
        };
        const id = { namespace: 'lab', name: object.metadata.name };
        if (api.find(resources.endpointSlices, id)) await api.update(resources.endpointSlices, object);
        else api.seed(resources.endpointSlices, object);
      },
      async get(from, address, port) {
        const url = `http://${address.includes(':') ? `[${address}]` : address}:${port}/`;
        try {
          return (await from.exec('curl', ['-s', '-m', '2.5', url])).stdout;
        } catch (error) {
          const { exitCode } = error as { exitCode?: number };
          return exitCode === 7 ? 'refused' : exitCode === 28 ? 'timeout' : String(error);
        }
      },
      async udp(from, address, port, sourcePort) {
        const child = from.node(file('udp-ask.ts'), [address, String(port), String(sourcePort)], {
          stdio: ['pipe', 'pipe', 'inherit'],
        });
        const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
        await lines.next();
        return {
          async ask() {
            child.stdin!.write('\n');
            return String((await lines.next()).value);
          },
          stop: () => void child.stdin!.end(),
        };
      },
      async startProxy(document = {}, given = {}, options = {}) {
        const fields = v.parse(kubeProxyConfigurationFields, {
          healthzBindAddress: `127.0.0.1:${nextPort++}`,
          metricsBindAddress: `127.0.0.1:${nextPort++}`,
          // The settings of the machine that runs the test are none of the test's business.
          conntrack: { maxPerCore: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
          iptables: { localhostNodePorts: false },
          ...document,
        });
        const config = completeKubeProxyConfiguration(fields);
        const lines: string[] = [];
        const inputs: string[] = [];
        const commands: string[] = [];
        const log = createLog({ level: 'debug', format: 'text', write: (line) => lines.push(line) });
        const real = createBackendContext(systemClock, log, { enter: node.enter, stateDir: given.stateDir });
        const proxy = createProxy(
          {
            client: api,
            clock: systemClock,
            log,
            registry: createRegistry(),
            events: { record: (...event) => void lines.push(`EVENT ${JSON.stringify(event)}`) },
            nodeName: 'n1',
            detectKubeProxy: () => Promise.resolve(undefined),
            hostAddresses: () => ['127.0.0.1', ...addresses],
            ...given,
            context: {
              ...real,
              exec(command, args, execOptions) {
                commands.push([command, ...args].join(' '));
                if (execOptions?.input !== undefined) inputs.push(String(execOptions.input));
                return real.exec(command, args, execOptions);
              },
              converse(command, args, converseOptions) {
                const conversation = real.converse!(command, args, converseOptions);
                return {
                  pid: conversation.pid,
                  get ended() {
                    return conversation.ended;
                  },
                  ask(text, mark, askOptions) {
                    // The first question only asks whether it is there.
                    if (text.includes('\n', text.indexOf('\n') + 1)) inputs.push(text);
                    return conversation.ask(text, mark, askOptions);
                  },
                  end: () => conversation.end(),
                };
              },
            },
          },
          config,
        );
        const stopping = new AbortController();
        const done = proxy.run(stopping.signal);
        try {
          await Promise.race([proxy.waitForFirstSync(AbortSignal.timeout(options.firstSyncMs ?? 20_000)), done]);
        } catch (error) {
          stopping.abort();
          await done;
          throw new Error(`the first sync did not come: ${String(error)}\n${lines.slice(-20).join('')}`, {
            cause: error,
          });
        }
        return {
          proxy,
          lines,
          inputs,
          commands,
          async stop() {
            stopping.abort();
            await done;
          },
        };
      },
      async dump() {
        const parts = [['iptables-save'], ['ip6tables-save'], ['conntrack', '-L']].map(([command, ...args]) =>
          node.exec(command!, args).then(({ stdout }) => stdout, String),
        );
        return (await Promise.all(parts)).join('\n');
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Waits until `check` says yes, looking every 10 ms. */
export async function eventually(
  what: string,
  check: () => Promise<boolean> | boolean,
  withinMs = 5_000,
): Promise<void> {
  const end = performance.now() + withinMs;
  while (!(await check())) {
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await systemClock.sleep(10);
  }
}
