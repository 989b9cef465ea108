// What every rules backend must do with packets: scenarios of service ports, and flows with what becomes of them. Pure; the suite that
// sends real packets is test/integration/proxy-contract.test.ts.
import type { NodeFacts } from './backend.ts';
import { fakePort } from './fake-ports.ts';
import {
  computeState,
  type Endpoint,
  type IpFamily,
  type Protocol,
  type ServicePort,
  type ServicePortState,
} from './model.ts';

/**
 * ep0, ep1: endpoints on this node. far: an endpoint on another node. pod: a pod of this node that serves nothing. client: outside the
 * cluster. node: this node itself.
 */
export type EndpointName = 'ep0' | 'ep1' | 'far';
export type Host = EndpointName | 'pod' | 'client' | 'node';

export interface World {
  readonly family: IpFamily;
  /** Addresses of all hosts; of `node`: the one in its Node object. */
  readonly address: Readonly<Record<Host, string>>;
  /** Where the endpoints listen. */
  readonly echoPort: number;
  /** Holds the addresses of all pods. */
  readonly clusterCIDR: string;
  /** Holds those of pods on this node. */
  readonly nodeCIDR: string;
  /** The node's interface to `pod`; no other interface's name begins alike. */
  readonly podInterface: string;
}

export type Target =
  | 'cluster-ip'
  | 'external-ip'
  | 'vip'
  | 'node-port'
  | 'node-port-on-loopback'
  | 'other-port'
  | 'node-port-elsewhere'
  | 'unallocated';

/** `source`: the endpoint sees who asked (`kept`), or an address of the node. */
export type Outcome =
  | { readonly lands: readonly EndpointName[]; readonly source: 'kept' | 'node' }
  | 'rejected'
  | 'dropped';

export interface Flow {
  readonly from: Host;
  readonly to: Target;
  readonly outcome: Outcome;
  /** New connections, all of them, land on one endpoint. */
  readonly sticks?: boolean;
}

export interface Scenario {
  readonly name: string;
  readonly state: ServicePortState;
  readonly flows: readonly Flow[];
  /** Only this kind of backend does so. */
  readonly only?: 'iptables' | 'nftables';
}

/** Facts of the node and scenarios that hold under them. */
export interface Round {
  readonly name: string;
  readonly facts: NodeFacts;
  readonly scenarios: readonly Scenario[];
}

type Condition = 'ready' | 'terminating' | 'not-ready';

interface Draft {
  readonly name: string;
  readonly protocol?: Protocol;
  readonly endpoints: Readonly<Partial<Record<EndpointName, Condition>>>;
  readonly fields?: (ips: { readonly externalIP: string; readonly vip: string }) => Partial<ServicePort>;
  readonly flows: readonly Flow[];
  readonly only?: Scenario['only'];
  /** Hints of zones, by endpoint; this node stands in zone `a`. */
  readonly zones?: Readonly<Partial<Record<EndpointName, string>>>;
  /** Hints of nodes, by endpoint; this node is `n1`. */
  readonly nodes?: Readonly<Partial<Record<EndpointName, string>>>;
}

export const servicePortNumber = 80;
export const nodePortBase = 31_000;
/** A port nobody serves, of addresses that serve others. */
export const otherPortNumber = 81;

export const loopbackOf = (family: IpFamily): string => (family === 'IPv4' ? '127.0.0.1' : '::1');

/** The address and port a flow goes to. */
export function targetOf(state: ServicePortState, to: Target, world: World): { address: string; port: number } {
  const { port } = state;
  switch (to) {
    case 'cluster-ip':
      return { address: port.clusterIP, port: port.port };
    case 'external-ip':
      return { address: port.externalIPs[0]!, port: port.port };
    case 'vip':
      return { address: port.loadBalancerVIPs[0]!, port: port.port };
    case 'node-port':
      return { address: world.address.node, port: port.nodePort };
    case 'node-port-on-loopback':
      return { address: loopbackOf(world.family), port: port.nodePort };
    case 'other-port':
      return { address: port.clusterIP, port: otherPortNumber };
    case 'node-port-elsewhere':
      return { address: world.address.client, port: port.nodePort };
    // Somebody is there and answers, unless rules prevent it.
    case 'unallocated':
      return { address: world.address.client, port: otherPortNumber };
  }
}

const lands = (endpoints: readonly EndpointName[], source: 'kept' | 'node'): Outcome => ({ lands: endpoints, source });
const flow = (from: Host, to: Target, outcome: Outcome): Flow => ({ from, to, outcome });

function stateOf(world: World, draft: Draft, number: number): ServicePortState {
  const v4 = world.family === 'IPv4';
  const ip = (block: number): string =>
    v4 ? `10.${block}.7.${number}` : `fd00:10:96::${block}:${number.toString(16)}`;
  const protocol = draft.protocol ?? 'TCP';
  const port = fakePort({
    family: world.family,
    namespace: 'contract',
    name: `s${number}`,
    protocol,
    clusterIP: ip(96),
    port: servicePortNumber,
    ...draft.fields?.({ externalIP: ip(97), vip: ip(98) }),
  });
  const nodePort = port.nodePort === 0 ? 0 : nodePortBase + number;
  const endpoints = (Object.entries(draft.endpoints) as [EndpointName, Condition][]).map(
    ([name, condition]): Endpoint => ({
      ip: world.address[name],
      port: world.echoPort,
      isLocal: name !== 'far',
      ready: condition === 'ready',
      serving: condition !== 'not-ready',
      terminating: condition === 'terminating',
      ...(draft.zones?.[name] === undefined ? {} : { zoneHints: [draft.zones[name]] }),
      ...(draft.nodes?.[name] === undefined ? {} : { nodeHints: [draft.nodes[name]] }),
    }),
  );
  return computeState({ ...port, nodePort }, endpoints, { nodeName: 'n1', zone: 'a' });
}

// Any number: the scenario's own takes its place.
const withNodePort = 1;

const clusterIp: readonly Draft[] = [
  {
    name: 'a cluster IP reaches every endpoint; pods keep their address, others are masqueraded',
    endpoints: { ep0: 'ready', ep1: 'ready', far: 'ready' },
    flows: [
      flow('pod', 'cluster-ip', lands(['ep0', 'ep1', 'far'], 'kept')),
      flow('client', 'cluster-ip', lands(['ep0', 'ep1', 'far'], 'node')),
      flow('node', 'cluster-ip', lands(['ep0', 'ep1', 'far'], 'node')),
    ],
  },
  {
    name: 'an endpoint that reaches itself is masqueraded',
    endpoints: { ep0: 'ready' },
    flows: [flow('ep0', 'cluster-ip', lands(['ep0'], 'node'))],
  },
  {
    name: 'an endpoint that reaches itself over UDP is masqueraded',
    protocol: 'UDP',
    endpoints: { ep0: 'ready' },
    flows: [flow('ep0', 'cluster-ip', lands(['ep0'], 'node'))],
  },
  {
    name: 'UDP',
    protocol: 'UDP',
    endpoints: { ep0: 'ready', ep1: 'ready' },
    fields: () => ({ nodePort: withNodePort }),
    flows: [
      flow('pod', 'cluster-ip', lands(['ep0', 'ep1'], 'kept')),
      flow('node', 'cluster-ip', lands(['ep0', 'ep1'], 'node')),
      flow('client', 'node-port', lands(['ep0', 'ep1'], 'node')),
    ],
  },
  {
    name: 'without endpoints connections are refused',
    endpoints: { ep0: 'not-ready' },
    fields: ({ externalIP, vip }) => ({ nodePort: withNodePort, externalIPs: [externalIP], loadBalancerVIPs: [vip] }),
    flows: [
      flow('pod', 'cluster-ip', 'rejected'),
      flow('client', 'cluster-ip', 'rejected'),
      flow('node', 'cluster-ip', 'rejected'),
      flow('client', 'node-port', 'rejected'),
      flow('client', 'external-ip', 'rejected'),
      flow('client', 'vip', 'rejected'),
    ],
  },
  {
    name: 'UDP without endpoints is refused',
    protocol: 'UDP',
    endpoints: {},
    flows: [flow('pod', 'cluster-ip', 'rejected'), flow('node', 'cluster-ip', 'rejected')],
  },
  {
    name: 'while all endpoints terminate, those that still serve are used',
    endpoints: { ep0: 'terminating', ep1: 'not-ready' },
    flows: [flow('pod', 'cluster-ip', lands(['ep0'], 'kept'))],
  },
  {
    name: 'while one is ready, terminating ones are not used',
    endpoints: { ep0: 'terminating', ep1: 'ready' },
    flows: [flow('pod', 'cluster-ip', lands(['ep1'], 'kept'))],
  },
  {
    name: 'zone hints are followed',
    endpoints: { ep0: 'ready', ep1: 'ready' },
    zones: { ep0: 'b', ep1: 'a' },
    flows: [flow('pod', 'cluster-ip', lands(['ep1'], 'kept'))],
  },
  {
    name: 'zone hints count for nothing where one endpoint has none',
    endpoints: { ep0: 'ready', ep1: 'ready' },
    zones: { ep1: 'a' },
    flows: [flow('pod', 'cluster-ip', lands(['ep0', 'ep1'], 'kept'))],
  },
  {
    name: 'node hints come before zone hints',
    endpoints: { ep0: 'ready', ep1: 'ready' },
    zones: { ep0: 'b', ep1: 'a' },
    nodes: { ep0: 'n1', ep1: 'n2' },
    flows: [flow('pod', 'cluster-ip', lands(['ep0'], 'kept'))],
  },
  {
    name: 'internal policy Local stays on this node',
    endpoints: { ep0: 'ready', far: 'ready' },
    fields: () => ({ internalPolicyLocal: true }),
    flows: [flow('pod', 'cluster-ip', lands(['ep0'], 'kept')), flow('node', 'cluster-ip', lands(['ep0'], 'node'))],
  },
  {
    name: 'internal policy Local without endpoints on this node drops, and node ports go elsewhere',
    endpoints: { far: 'ready' },
    fields: () => ({ internalPolicyLocal: true, nodePort: withNodePort }),
    flows: [flow('pod', 'cluster-ip', 'dropped'), flow('client', 'node-port', lands(['far'], 'node'))],
  },
  {
    name: 'session affinity sends a client to one endpoint',
    endpoints: { ep0: 'ready', ep1: 'ready', far: 'ready' },
    fields: () => ({ affinitySeconds: 60, nodePort: withNodePort }),
    flows: [
      { ...flow('pod', 'cluster-ip', lands(['ep0', 'ep1', 'far'], 'kept')), sticks: true },
      { ...flow('client', 'node-port', lands(['ep0', 'ep1', 'far'], 'node')), sticks: true },
    ],
  },
  {
    name: 'session affinity over UDP',
    protocol: 'UDP',
    endpoints: { ep0: 'ready', ep1: 'ready' },
    fields: () => ({ affinitySeconds: 60 }),
    flows: [{ ...flow('pod', 'cluster-ip', lands(['ep0', 'ep1'], 'kept')), sticks: true }],
  },
  {
    name: 'other ports of a cluster IP are refused',
    only: 'nftables',
    endpoints: { ep0: 'ready' },
    flows: [flow('pod', 'other-port', 'rejected')],
  },
];

const external = (world: World): readonly Draft[] => [
  {
    name: 'node port, external IP and load balancer VIP reach every endpoint, masqueraded',
    endpoints: { ep0: 'ready', far: 'ready' },
    fields: ({ externalIP, vip }) => ({ nodePort: withNodePort, externalIPs: [externalIP], loadBalancerVIPs: [vip] }),
    flows: [
      flow('client', 'node-port', lands(['ep0', 'far'], 'node')),
      flow('client', 'external-ip', lands(['ep0', 'far'], 'node')),
      flow('client', 'vip', lands(['ep0', 'far'], 'node')),
      flow('pod', 'node-port', lands(['ep0', 'far'], 'node')),
      flow('node', 'node-port', lands(['ep0', 'far'], 'node')),
      flow('node', 'external-ip', lands(['ep0', 'far'], 'node')),
    ],
  },
  {
    name: 'external policy Local keeps the source from outside; pods and the node reach all',
    endpoints: { ep0: 'ready', far: 'ready' },
    fields: ({ externalIP, vip }) => ({
      nodePort: withNodePort,
      externalIPs: [externalIP],
      loadBalancerVIPs: [vip],
      externalPolicyLocal: true,
    }),
    flows: [
      flow('client', 'node-port', lands(['ep0'], 'kept')),
      flow('client', 'external-ip', lands(['ep0'], 'kept')),
      flow('client', 'vip', lands(['ep0'], 'kept')),
      flow('pod', 'node-port', lands(['ep0', 'far'], 'kept')),
      flow('pod', 'vip', lands(['ep0', 'far'], 'kept')),
      flow('node', 'node-port', lands(['ep0', 'far'], 'node')),
      flow('node', 'vip', lands(['ep0', 'far'], 'node')),
      flow('pod', 'cluster-ip', lands(['ep0', 'far'], 'kept')),
    ],
  },
  {
    name: 'external policy Local without endpoints on this node drops from outside only',
    endpoints: { far: 'ready' },
    fields: ({ vip }) => ({ nodePort: withNodePort, loadBalancerVIPs: [vip], externalPolicyLocal: true }),
    flows: [
      flow('client', 'node-port', 'dropped'),
      flow('client', 'vip', 'dropped'),
      flow('pod', 'vip', lands(['far'], 'kept')),
      flow('node', 'node-port', lands(['far'], 'node')),
      flow('pod', 'cluster-ip', lands(['far'], 'kept')),
    ],
  },
  {
    name: 'external policy Local uses terminating endpoints of this node while none is ready on it',
    endpoints: { ep0: 'terminating', far: 'ready' },
    fields: () => ({ nodePort: withNodePort, externalPolicyLocal: true }),
    flows: [flow('client', 'node-port', lands(['ep0'], 'kept')), flow('pod', 'cluster-ip', lands(['far'], 'kept'))],
  },
  {
    name: 'external policy Local with affinity',
    endpoints: { ep0: 'ready', ep1: 'ready', far: 'ready' },
    fields: () => ({ nodePort: withNodePort, externalPolicyLocal: true, affinitySeconds: 60 }),
    flows: [{ ...flow('client', 'node-port', lands(['ep0', 'ep1'], 'kept')), sticks: true }],
  },
  {
    name: 'source ranges hold for VIPs only',
    endpoints: { ep0: 'ready' },
    fields: ({ externalIP, vip }) => ({
      nodePort: withNodePort,
      externalIPs: [externalIP],
      loadBalancerVIPs: [vip],
      // The second lies within the first; the third is elsewhere.
      sourceRanges:
        world.family === 'IPv4'
          ? [world.nodeCIDR, `${world.address.pod}/32`, '192.0.2.0/24']
          : [world.nodeCIDR, `${world.address.pod}/128`, '2001:db8::/64'],
    }),
    flows: [
      flow('pod', 'vip', lands(['ep0'], 'node')),
      flow('client', 'vip', 'dropped'),
      flow('far', 'vip', 'dropped'),
      flow('client', 'external-ip', lands(['ep0'], 'node')),
      flow('client', 'node-port', lands(['ep0'], 'node')),
    ],
  },
  {
    name: 'source ranges under external policy Local',
    endpoints: { ep0: 'ready', far: 'ready' },
    fields: ({ vip }) => ({
      loadBalancerVIPs: [vip],
      externalPolicyLocal: true,
      sourceRanges: [`${world.address.client}/${world.family === 'IPv4' ? 32 : 128}`],
    }),
    flows: [flow('client', 'vip', lands(['ep0'], 'kept')), flow('pod', 'vip', 'dropped')],
  },
  {
    name: 'a node port is not served on addresses of others',
    endpoints: { ep0: 'ready' },
    fields: () => ({ nodePort: withNodePort }),
    flows: [flow('pod', 'node-port-elsewhere', 'rejected')],
  },
];

const drafted = (world: World, drafts: readonly Draft[], from: number): Scenario[] =>
  drafts.map((draft, at) => ({
    name: draft.name,
    state: stateOf(world, draft, from + at),
    flows: draft.flows,
    ...(draft.only ? { only: draft.only } : {}),
  }));

/** How masquerading depends on what is told about pods: one cluster IP and one Local node port under each detector. */
const detection = (pods: 'kept' | 'node', client: 'kept' | 'node', shortcut: boolean): readonly Draft[] => [
  {
    name: 'cluster IP',
    endpoints: { ep0: 'ready' },
    flows: [flow('pod', 'cluster-ip', lands(['ep0'], pods)), flow('client', 'cluster-ip', lands(['ep0'], client))],
  },
  {
    name: 'external policy Local',
    endpoints: { ep0: 'ready', far: 'ready' },
    fields: () => ({ nodePort: withNodePort, externalPolicyLocal: true }),
    flows: [
      flow('pod', 'node-port', lands(shortcut ? ['ep0', 'far'] : ['ep0'], 'kept')),
      flow('client', 'node-port', lands(['ep0'], 'kept')),
    ],
  },
];

/** Node ports on the loopback address, as far as the backends have them: iptables in IPv4 only. */
const onLoopback = (world: World, served: boolean): readonly Draft[] => {
  const draft = {
    name: 'node port on the loopback address',
    endpoints: { ep0: 'ready' },
    fields: () => ({ nodePort: withNodePort }),
  } as const;
  const inside = flow('node', 'node-port', lands(['ep0'], 'node'));
  const refused: Draft = { ...draft, flows: [inside, flow('node', 'node-port-on-loopback', 'rejected')] };
  if (!served || world.family === 'IPv6') return [refused];
  return [
    { ...draft, only: 'iptables', flows: [inside, flow('node', 'node-port-on-loopback', lands(['ep0'], 'node'))] },
    { ...refused, only: 'nftables' },
  ];
};

/** What becomes of packets to service CIDRs, one of which is the client's address. */
const inServiceCidrs: readonly Draft[] = [
  {
    name: 'addresses that no Service has are dropped, those of Services are served, and their other ports refused',
    only: 'nftables',
    endpoints: { ep0: 'ready' },
    fields: () => ({ nodePort: withNodePort }),
    flows: [
      flow('pod', 'unallocated', 'dropped'),
      flow('node', 'unallocated', 'dropped'),
      flow('pod', 'other-port', 'rejected'),
      flow('pod', 'cluster-ip', lands(['ep0'], 'kept')),
      flow('node', 'cluster-ip', lands(['ep0'], 'node')),
      flow('client', 'cluster-ip', lands(['ep0'], 'node')),
      flow('client', 'node-port', lands(['ep0'], 'node')),
    ],
  },
  {
    name: 'addresses that no Service has are nobody’s business',
    only: 'iptables',
    endpoints: { ep0: 'ready' },
    flows: [flow('pod', 'unallocated', 'rejected'), flow('node', 'unallocated', 'rejected')],
  },
];

/** Everything a backend must do, in rounds: between them only the facts of the node change. */
export function flowContract(world: World): readonly Round[] {
  const facts: NodeFacts = {
    localDetector: { kind: 'cidr', cidr: world.clusterCIDR },
    nodeIP: world.address.node,
    nodePortAddresses: 'all',
    masqueradeAll: false,
    masqueradeBit: 14,
    localhostNodePorts: false,
    conntrackBeLiberal: false,
    serviceCidrs: [],
  };
  const v4 = world.family === 'IPv4';
  return [
    {
      name: 'service CIDRs',
      facts: {
        ...facts,
        serviceCidrs: [v4 ? '10.96.0.0/16' : 'fd00:10:96::/112', `${world.address.client}/${v4 ? 32 : 128}`],
      },
      scenarios: drafted(world, inServiceCidrs, 140),
    },
    {
      name: 'no service CIDRs any more',
      facts,
      scenarios: drafted(
        world,
        [{ name: 'nothing', endpoints: { ep0: 'ready' }, flows: [flow('pod', 'unallocated', 'rejected')] }],
        150,
      ),
    },
    {
      name: 'cluster CIDR',
      facts,
      scenarios: drafted(world, [...clusterIp, ...external(world)], 1),
    },
    {
      name: 'masquerade all',
      facts: { ...facts, masqueradeAll: true, masqueradeBit: 20 },
      scenarios: drafted(world, detection('node', 'node', true), 60),
    },
    {
      name: 'node CIDR',
      facts: { ...facts, localDetector: { kind: 'cidr', cidr: world.nodeCIDR } },
      scenarios: drafted(world, detection('kept', 'node', true), 70),
    },
    {
      name: 'bridge interface',
      facts: { ...facts, localDetector: { kind: 'bridge-interface', name: world.podInterface } },
      scenarios: drafted(world, detection('kept', 'node', true), 80),
    },
    {
      name: 'interface prefix',
      facts: { ...facts, localDetector: { kind: 'interface-prefix', prefix: world.podInterface.slice(0, -1) } },
      scenarios: drafted(world, detection('kept', 'node', true), 90),
    },
    {
      name: 'localhost node ports',
      facts: { ...facts, localhostNodePorts: true },
      scenarios: drafted(world, onLoopback(world, true), 120),
    },
    {
      name: 'no localhost node ports',
      facts,
      scenarios: drafted(world, onLoopback(world, false), 130),
    },
    {
      name: 'no detector, node ports on one address',
      facts: { ...facts, localDetector: { kind: 'none' }, nodePortAddresses: [world.address.node] },
      scenarios: drafted(world, detection('kept', 'kept', false), 100),
    },
    {
      name: 'node ports on an address of this host that is not asked for',
      facts: { ...facts, nodePortAddresses: [world.address.client] },
      scenarios: drafted(
        world,
        [
          {
            name: 'node port',
            endpoints: { ep0: 'ready' },
            fields: () => ({ nodePort: withNodePort }),
            flows: [flow('client', 'node-port', 'rejected'), flow('client', 'cluster-ip', lands(['ep0'], 'node'))],
          },
        ],
        110,
      ),
    },
  ];
}
