// The EndpointSlices a Service shall have, from its pods. Pure.
import type { Endpoint, EndpointSlice, Node, Service } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { familyOf } from '../addresses.ts';
import { isFinished, isReady } from './replicasets.ts';

export interface WantedGroup {
  readonly addressType: 'IPv4' | 'IPv6';
  readonly ports: NonNullable<EndpointSlice['ports']>;
  readonly endpoints: Endpoint[];
}

/** Pods whose named port is another number make a group of their own. */
export function planGroups(
  service: Service,
  pods: readonly Pod[],
  nodeOf: (name: string) => Node | undefined,
): WantedGroup[] {
  const families = service.spec.ipFamilies?.length ? service.spec.ipFamilies : (['IPv4'] as const);
  const inOrder = pods.toSorted((a, b) => a.metadata.name.localeCompare(b.metadata.name));
  return families.flatMap((addressType) => {
    const groups = new Map<string, WantedGroup>();
    for (const pod of inOrder) {
      const address = (pod.status?.podIPs ?? []).map(({ ip }) => ip).find((ip) => familyOf(ip) === addressType);
      if (!address || isFinished(pod) || !pod.spec.nodeName) continue;
      const ports = portsFor(service, pod);
      if (ports.length === 0 && service.spec.ports?.length) continue;
      const key = groupKey(addressType, ports);
      const group = groups.get(key) ?? { addressType, ports, endpoints: [] };
      group.endpoints.push(endpointFor(service, pod, address, nodeOf(pod.spec.nodeName)));
      groups.set(key, group);
    }
    // A family without endpoints has an empty slice, so that those who look find one.
    return groups.size > 0 ? [...groups.values()] : [{ addressType, ports: [], endpoints: [] }];
  });
}

export const groupKey = (addressType: string, ports: WantedGroup['ports']): string =>
  [
    addressType,
    ...ports.map(({ name, protocol, port }) => `${name ?? ''}/${protocol ?? 'TCP'}/${port ?? ''}`).sort(),
  ].join(' ');

function portsFor({ spec }: Service, pod: Pod): WantedGroup['ports'] {
  return (spec.ports ?? []).flatMap(({ name = '', protocol = 'TCP', targetPort, port, appProtocol }) => {
    const number = typeof targetPort === 'string' ? namedPort(pod, targetPort, protocol) : (targetPort ?? port);
    return number === undefined ? [] : [{ name, protocol, port: number, ...(appProtocol ? { appProtocol } : {}) }];
  });
}

function namedPort({ spec }: Pod, name: string, protocol: string): number | undefined {
  const sidecars = (spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always');
  const ports = [...spec.containers, ...sidecars].flatMap((container) => container.ports ?? []);
  return ports.find((port) => port.name === name && (port.protocol ?? 'TCP') === protocol)?.containerPort;
}

function endpointFor({ metadata, spec }: Service, pod: Pod, address: string, node: Node | undefined): Endpoint {
  const serving = isReady(pod);
  const terminating = pod.metadata.deletionTimestamp !== undefined;
  const ready = spec.publishNotReadyAddresses === true || (serving && !terminating);
  const zone = node?.metadata.labels?.['topology.kubernetes.io/zone'];
  const { hostname, subdomain, nodeName = '' } = pod.spec;
  const { namespace = '', name, uid = '' } = pod.metadata;
  return {
    addresses: [address],
    conditions: { ready, serving, terminating },
    ...(hostname && subdomain === metadata.name ? { hostname } : {}),
    nodeName,
    targetRef: { kind: 'Pod', namespace, name, uid },
    ...(zone ? { zone } : {}),
  };
}

const mostEndpoints = 100;

/** Fills the slices that are there, each endpoint staying where it is; returns endpoints by the slice, or undefined for a new slice. */
export function distribute(
  { endpoints: wanted }: WantedGroup,
  existing: readonly EndpointSlice[],
): { slice: EndpointSlice | undefined; endpoints: Endpoint[] }[] {
  const left = new Map(wanted.map((endpoint) => [endpoint.targetRef?.uid, endpoint]));
  const filled = existing.map((slice): { slice: EndpointSlice | undefined; endpoints: Endpoint[] } => {
    const endpoints = (slice.endpoints ?? []).flatMap(({ targetRef }) => left.get(targetRef?.uid) ?? []);
    for (const { targetRef } of endpoints) left.delete(targetRef?.uid);
    return { slice, endpoints };
  });
  for (const endpoint of left.values()) {
    const room = filled.find(({ endpoints }) => endpoints.length < mostEndpoints);
    if (room) room.endpoints.push(endpoint);
    else filled.push({ slice: undefined, endpoints: [endpoint] });
  }
  // Of several slices, those that ran empty go.
  const used = filled.filter(({ endpoints }) => endpoints.length > 0);
  return used.length > 0 ? used : [filled[0] ?? { slice: undefined, endpoints: [] }];
}
