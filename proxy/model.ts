// What the proxy knows about a Service's port and its endpoints in one IP family, and which endpoints traffic may go to. Pure.
import type { IpFamily } from './addresses.ts';

export type { IpFamily } from './addresses.ts';
export type Protocol = 'TCP' | 'UDP' | 'SCTP';

/** `namespace/name:port/TCP`; unique within one IP family. */
export type ServicePortKey = string;

/** One port of a Service in one IP family. Two are the same where all fields are. */
export interface ServicePort {
  readonly key: ServicePortKey;
  readonly family: IpFamily;
  readonly namespace: string;
  readonly name: string;
  /** Empty where the Service's only port has no name. */
  readonly portName: string;
  readonly protocol: Protocol;
  readonly clusterIP: string;
  readonly port: number;
  /** 0 where there is none. */
  readonly nodePort: number;
  readonly externalIPs: readonly string[];
  /** Ingress IPs whose ipMode is VIP or absent. */
  readonly loadBalancerVIPs: readonly string[];
  /** CIDRs; empty where every source is let in. They hold for `loadBalancerVIPs` only. */
  readonly sourceRanges: readonly string[];
  /** Session affinity by client address lasts this long, in seconds; 0 where there is none. */
  readonly affinitySeconds: number;
  readonly internalPolicyLocal: boolean;
  readonly externalPolicyLocal: boolean;
  /** 0 where there is none. */
  readonly healthCheckNodePort: number;
}

export interface Endpoint {
  readonly ip: string;
  readonly port: number;
  readonly isLocal: boolean;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  /** Names of zones; absent where the endpoint has no such hint. */
  readonly zoneHints?: readonly string[];
  /** Names of nodes; absent where the endpoint has no such hint. */
  readonly nodeHints?: readonly string[];
}

/** Where this node stands; decides what topology hints mean. */
export interface Topology {
  readonly nodeName: string;
  /** The Node's label `topology.kubernetes.io/zone`. */
  readonly zone: string | undefined;
}

export interface EndpointChoice {
  /** Endpoints for traffic under policy Cluster; empty where the port never has such traffic. */
  readonly cluster: readonly Endpoint[];
  /** Endpoints on this node, for traffic under policy Local; empty where the port never has such traffic. */
  readonly local: readonly Endpoint[];
  /** The union of both, each once. */
  readonly reachable: readonly Endpoint[];
  /** Whether anything in the cluster serves the port, be it out of reach for a policy. */
  readonly hasAny: boolean;
}

/** What becomes of a new connection. `drop`: endpoints exist, but the policy is Local and none is on this node. */
export type Verdict = 'serve' | 'reject' | 'drop';

/** Everything a rules backend needs to know of one service port. */
export interface ServicePortState {
  readonly port: ServicePort;
  /** All endpoints, whatever their state, ordered by address; each ip and port once. */
  readonly endpoints: readonly Endpoint[];
  readonly choice: EndpointChoice;
  /** For the cluster IP. */
  readonly internal: Verdict;
  /**
   * For node port, external IPs and load balancer VIPs, as far as traffic comes from outside: traffic from pods and from the
   * node itself goes to `choice.cluster` under either policy, as long as `choice.hasAny`.
   */
  readonly external: Verdict;
}

export const servicePortKey = (namespace: string, name: string, portName: string, protocol: Protocol): ServicePortKey =>
  `${namespace}/${name}:${portName}/${protocol}`;

/** `namespace/name` or `namespace/name:port`, as kube-proxy writes it in comments and hashes it into chain names. */
export const servicePortName = (port: Pick<ServicePort, 'namespace' | 'name' | 'portName'>): string =>
  port.portName === '' ? `${port.namespace}/${port.name}` : `${port.namespace}/${port.name}:${port.portName}`;

/** Reachable by something other than the cluster IP. */
export const externallyAccessible = (port: ServicePort): boolean =>
  port.nodePort !== 0 || port.loadBalancerVIPs.length > 0 || port.externalIPs.length > 0;

// Even under an external policy of Local, traffic from pods and the node itself goes to all endpoints.
export const usesClusterEndpoints = (port: ServicePort): boolean =>
  !port.internalPolicyLocal || externallyAccessible(port);

export const usesLocalEndpoints = (port: ServicePort): boolean =>
  port.internalPolicyLocal || (port.externalPolicyLocal && externallyAccessible(port));

const isLeaving = (endpoint: Endpoint): boolean => endpoint.serving && endpoint.terminating;

type TopologyMode = 'all' | 'same-node' | 'same-zone';

// Hints count only where every ready endpoint has one and at least one names this place: half a rollout must not send all
// traffic to a few endpoints.
function topologyMode(ready: readonly Endpoint[], topology: Topology): TopologyMode {
  if (ready.length === 0) return 'all';
  const { nodeName, zone } = topology;
  const names = (hints: 'nodeHints' | 'zoneHints', place: string): boolean =>
    ready.every((endpoint) => (endpoint[hints]?.length ?? 0) > 0) &&
    ready.some((endpoint) => endpoint[hints]?.includes(place));
  if (names('nodeHints', nodeName)) return 'same-node';
  if (zone !== undefined && names('zoneHints', zone)) return 'same-zone';
  return 'all';
}

function forTopology(ready: readonly Endpoint[], topology: Topology): readonly Endpoint[] {
  switch (topologyMode(ready, topology)) {
    case 'all':
      return ready;
    case 'same-node':
      return ready.filter((endpoint) => endpoint.nodeHints?.includes(topology.nodeName));
    case 'same-zone':
      return ready.filter((endpoint) => endpoint.zoneHints?.includes(topology.zone ?? ''));
  }
}

const nothing: EndpointChoice = { cluster: [], local: [], reachable: [], hasAny: false };

/** Ready endpoints, else those that still serve while they terminate; decided apart for the policies Cluster and Local. */
export function chooseEndpoints(port: ServicePort, endpoints: readonly Endpoint[], topology: Topology): EndpointChoice {
  const ready = endpoints.filter((endpoint) => endpoint.ready);
  const leaving = endpoints.filter((endpoint) => !endpoint.ready && isLeaving(endpoint));
  if (ready.length === 0 && leaving.length === 0) return nothing;

  const usesCluster = usesClusterEndpoints(port);
  const cluster = !usesCluster ? [] : ready.length > 0 ? forTopology(ready, topology) : leaving;
  if (!usesLocalEndpoints(port)) return { cluster, local: [], reachable: cluster, hasAny: true };

  const localReady = ready.filter((endpoint) => endpoint.isLocal);
  const local = localReady.length > 0 ? localReady : leaving.filter((endpoint) => endpoint.isLocal);
  const inCluster = new Set(cluster);
  const reachable = usesCluster ? [...cluster, ...local.filter((endpoint) => !inCluster.has(endpoint))] : local;
  return { cluster, local, reachable, hasAny: true };
}

export function computeState(port: ServicePort, endpoints: readonly Endpoint[], topology: Topology): ServicePortState {
  const choice = chooseEndpoints(port, endpoints, topology);
  const verdict = (policyLocal: boolean): Verdict => {
    if (!choice.hasAny) return 'reject';
    return policyLocal && choice.local.length === 0 ? 'drop' : 'serve';
  };
  return {
    port,
    endpoints,
    choice,
    internal: verdict(port.internalPolicyLocal),
    external: verdict(port.externalPolicyLocal),
  };
}

const sameList = (a: readonly string[] | undefined, b: readonly string[] | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && a.length === b.length && a.every((item, at) => item === b[at]));

export const sameEndpoint = (a: Endpoint, b: Endpoint): boolean =>
  a === b ||
  (a.ip === b.ip &&
    a.port === b.port &&
    a.isLocal === b.isLocal &&
    a.ready === b.ready &&
    a.serving === b.serving &&
    a.terminating === b.terminating &&
    sameList(a.zoneHints, b.zoneHints) &&
    sameList(a.nodeHints, b.nodeHints));

export const sameEndpoints = (a: readonly Endpoint[], b: readonly Endpoint[]): boolean =>
  a === b || (a.length === b.length && a.every((endpoint, at) => sameEndpoint(endpoint, b[at]!)));

export const sameServicePort = (a: ServicePort, b: ServicePort): boolean =>
  (Object.keys(a) as (keyof ServicePort)[]).every((field) => {
    const [left, right] = [a[field], b[field]];
    return Array.isArray(left) ? sameList(left, right as readonly string[]) : left === right;
  });
