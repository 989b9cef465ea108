// Names of everything the nftables backend keeps in the kernel, and how element ids are made. Pure.
//
// One table per family. A service port's front is an address it answers on: an IP, or (suffix `-node`) a node port.
//
//   svc        front → goto CHAIN           who serves it: cip-, ext-, loc- (see chains.ts)
//   eps-PROTO  front . index → endpoint     endpoints under policy Cluster (for a cluster IP: those of its policy)
//   loc-PROTO  front . index → endpoint     endpoints on this node, for external traffic under policy Local
//   clu        front → goto lb-…            what pods and the node itself use under external policy Local
//   filtered   VIP → goto CHAIN             where source ranges hold; `ranges` has front . source
//   sticky, record  front → jump …          session affinity: look up, note
//   guard      front → drop | goto refuse   what becomes of new packets that were not NATed
//   hairpin    endpoint . endpoint          of endpoints on this node: traffic that loops back
//   cluster-ips                             other ports of these are refused
//   epoch                                   what a backend that stopped left there; see memory.ts
import { createHash } from 'node:crypto';
import type { IpFamily, Protocol, ServicePortKey } from '../model.ts';

export const tableName = 'stevedore';
export const tableFamily = (family: IpFamily): 'ip' | 'ip6' => (family === 'IPv4' ? 'ip' : 'ip6');

export type ProtocolName = 'tcp' | 'udp' | 'sctp';
export const protocolNames: readonly ProtocolName[] = ['tcp', 'udp', 'sctp'];
export const protocolName = (protocol: Protocol): ProtocolName => protocol.toLowerCase() as ProtocolName;

/** `''`: fronts that are IPs; `-node`: node ports. */
export type FrontSuffix = '' | '-node';
export const suffixes: readonly FrontSuffix[] = ['', '-node'];

export const hairpinSet = 'hairpin';
export const clusterIpsSet = 'cluster-ips';
export const rangesSet = 'ranges';
export const filteredMap = 'filtered';
export const epochSet = 'epoch';
/** The chain where other ports of cluster IPs are refused, and packets to cluster IPs that no Service has are dropped. */
export const unallocatedChain = 'unallocated';

/** A map's name, a blank, and the element's key as nft prints it. */
export type ElementId = string;
export const elementId = (map: string, key: string): ElementId => `${map} ${key}`;
export const mapOf = (id: ElementId): string => id.slice(0, id.indexOf(' '));
export const keyOf = (id: ElementId): string => id.slice(id.indexOf(' ') + 1);

/** Endpoint maps: an index that is no longer drawn may be looked up by a packet in flight, so these are deleted late. */
export const isEndpointMap = (map: string): boolean => map.startsWith('eps-') || map.startsWith('loc-');

/**
 * Where clients are remembered. `cluster`: fronts under policy Cluster have one memory. What a policy of Local lets a client have is less:
 * the cluster IP has one of its own then, and so have the fronts for what comes from outside.
 */
export type AffinityPool = 'cluster' | 'internal' | 'external';
export const affinityPools: readonly AffinityPool[] = ['cluster', 'internal', 'external'];

/** Names the chains and the maps of a service port's session affinity. */
export const affinityId = (key: ServicePortKey, pool: AffinityPool): string =>
  createHash('sha256')
    .update(pool === 'cluster' ? key : `${key} ${pool}`)
    .digest('hex')
    .slice(0, 16);
/** Client → endpoint's address. */
export const affinityMap = (id: string): string => `aff-${id}`;
/** Client → endpoint's port. */
export const affinityPortMap = (id: string): string => `afp-${id}`;
export const isAffinityMap = (map: string): boolean => map.startsWith('aff-') || map.startsWith('afp-');
export const stickyChain = (id: string): string => `sticky-${id}`;
export const recordChain = (id: string): string => `record-${id}`;
