// The map and set elements of one service port. Pure.
import { cidrContains, parseCidr } from '../addresses.ts';
import type { NodeFacts } from '../backend.ts';
import {
  type Endpoint,
  externallyAccessible,
  type ServicePort,
  type ServicePortState,
  type Verdict,
} from '../model.ts';
import { chainName } from './chains.ts';
import {
  affinityId,
  type AffinityPool,
  clusterIpsSet,
  type ElementId,
  elementId,
  filteredMap,
  type FrontSuffix,
  hairpinSet,
  protocolName,
  rangesSet,
  recordChain,
  stickyChain,
} from './names.ts';

/** An address the service port answers on. */
export interface Front {
  readonly suffix: FrontSuffix;
  /** As in the verdict maps: address . protocol . port, or protocol . port for a node port. */
  readonly key: string;
  /** As in the endpoint maps, without the index. */
  readonly endpointKey: string;
  readonly internal: boolean;
  readonly filtered: boolean;
}

/** A service port as it is in the kernel. */
export interface Programmed {
  readonly state: ServicePortState;
  /** The fronts that are its own: another service port may hold the same address and port. */
  readonly fronts: readonly Front[];
  /** Rows of `address . port` by index. */
  readonly cluster: readonly string[];
  readonly local: readonly string[];
}

export const endpointText = ({ ip, port }: Endpoint): string => `${ip} . ${port}`;

/** All addresses it would answer on, were they its own. */
export function frontsOf(port: ServicePort): Front[] {
  const proto = protocolName(port.protocol);
  const atIp = (ip: string, internal: boolean, filtered: boolean): Front => ({
    suffix: '',
    key: `${ip} . ${proto} . ${port.port}`,
    endpointKey: `${ip} . ${port.port}`,
    internal,
    filtered,
  });
  const filtered = port.sourceRanges.length > 0;
  const fronts = [
    atIp(port.clusterIP, true, false),
    ...port.loadBalancerVIPs.map((ip) => atIp(ip, false, filtered)),
    ...port.externalIPs.map((ip) => atIp(ip, false, false)),
  ];
  if (port.nodePort !== 0)
    fronts.push({
      suffix: '-node',
      key: `${proto} . ${port.nodePort}`,
      endpointKey: String(port.nodePort),
      internal: false,
      filtered: false,
    });
  // An address may be given twice, as external IP and as load balancer VIP: the VIP with its filter comes first.
  const seen = new Set<string>();
  return fronts.filter(({ key }) => !seen.has(key) && seen.add(key));
}

/** The sources let in, none within another: nft refuses intervals that overlap. */
function sourcesOf(port: ServicePort, vip: string, facts: NodeFacts): string[] {
  const fromNode = facts.nodeIP !== undefined && port.sourceRanges.some((range) => cidrContains(range, facts.nodeIP!));
  // Where the VIP is an address of this host, its own packets to it have it as their source.
  const all = [...port.sourceRanges, ...(fromNode ? [`${vip}/${vip.includes(':') ? 128 : 32}`] : [])];
  const cidrs = [...new Map(all.flatMap((text) => parseCidr(text) ?? []).map((cidr) => [cidr.text, cidr])).values()];
  return cidrs
    .filter(
      (one) => !cidrs.some((other) => other.prefix < one.prefix && cidrContains(other.text, one.text.split('/')[0]!)),
    )
    .map(({ text, prefix }) => (prefix === (vip.includes(':') ? 128 : 32) ? text.split('/')[0]! : text));
}

const refusal = (verdict: Verdict): string => (verdict === 'reject' ? 'goto refuse' : 'drop');

const affinityPool = (port: ServicePort, internal: boolean): AffinityPool => {
  if (internal) return port.internalPolicyLocal ? 'internal' : 'cluster';
  return port.externalPolicyLocal ? 'external' : 'cluster';
};

/** Names of its session affinity, one for each memory of clients it has; none where it has no affinity. */
export const affinityIdsOf = (port: ServicePort): string[] => {
  if (port.affinitySeconds === 0) return [];
  const internals = externallyAccessible(port) ? [true, false] : [true];
  return [...new Set(internals.map((internal) => affinityId(port.key, affinityPool(port, internal))))];
};

/** Adds the elements of one front. */
function frontElements(programmed: Programmed, front: Front, facts: NodeFacts, add: Add): void {
  const { state, cluster, local } = programmed;
  const { port, choice } = state;
  const { suffix, key, endpointKey } = front;
  const proto = protocolName(port.protocol);
  const sticky = port.affinitySeconds > 0;
  const row = (map: 'eps' | 'loc', endpoints: readonly string[]): void => {
    for (const [at, endpoint] of endpoints.entries())
      add(`${map}${suffix}-${proto}`, `${endpointKey} . ${at}`, endpoint);
  };
  // An endpoint may be this very address: then nothing tells its NATed packets from others.
  const isItself = suffix === '-node' && choice.reachable.some((endpoint) => endpoint.port === port.nodePort);
  const guard = (verdict: Verdict): void => {
    if (!isItself) add(`guard${suffix}`, key, refusal(verdict));
  };
  const affinity = (): void => {
    if (!sticky) return;
    const id = affinityId(port.key, affinityPool(port, front.internal));
    add(`sticky${suffix}`, key, `jump ${stickyChain(id)}`);
    add(`record${suffix}`, key, `jump ${recordChain(id)}`);
  };

  if (front.internal) {
    const endpoints = port.internalPolicyLocal ? local : cluster;
    if (state.internal !== 'serve' || endpoints.length === 0) {
      guard(state.internal === 'serve' ? 'drop' : state.internal);
      return;
    }
    add('svc', key, `goto ${chainName({ kind: 'cip', proto, count: endpoints.length, sticky })}`);
    row('eps', endpoints);
    affinity();
    guard('drop');
    return;
  }
  if (!choice.hasAny) {
    guard('reject');
    return;
  }
  const policyLocal = port.externalPolicyLocal;
  const node = suffix === '-node';
  const verdict = `goto ${chainName({ kind: policyLocal ? 'loc' : 'ext', node, proto, count: policyLocal ? local.length : cluster.length, sticky })}`;
  if (front.filtered) {
    add('svc', key, 'goto fw');
    add(filteredMap, key, verdict);
    const vip = endpointKey.split(' ')[0]!;
    for (const source of sourcesOf(port, vip, facts)) add(rangesSet, `${key} . ${source}`, '');
  } else {
    add(`svc${suffix}`, key, verdict);
  }
  row('eps', cluster);
  if (policyLocal) {
    row('loc', local);
    if (cluster.length > 0)
      add(`clu${suffix}`, key, `goto ${chainName({ kind: 'lb', node, proto, count: cluster.length, sticky })}`);
  }
  affinity();
  guard('drop');
}

type Add = (map: string, key: string, value: string) => void;

/** The elements that are this service port's alone, by id; the value of a set's element is empty. */
export function elementsOf(programmed: Programmed, facts: NodeFacts): Map<ElementId, string> {
  const elements = new Map<ElementId, string>();
  const add: Add = (map, key, value) => void elements.set(elementId(map, key), value);
  for (const front of programmed.fronts) frontElements(programmed, front, facts, add);
  return elements;
}

/** Elements other service ports may have in common with this one. */
export function sharedOf({ state }: Programmed): Set<ElementId> {
  const shared = new Set<ElementId>([elementId(clusterIpsSet, state.port.clusterIP)]);
  for (const endpoint of state.choice.reachable)
    if (endpoint.isLocal) shared.add(elementId(hairpinSet, `${endpoint.ip} . ${endpoint.ip}`));
  return shared;
}
