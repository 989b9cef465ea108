// The EndpointSlices a Service shall have, from its pods. Pure.
import type { Endpoint, EndpointSlice, Node, Service } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { familyOf } from '../addresses.ts';
import { isFinished, isReady } from './replicasets.ts';

export interface SlicePort {
  name: string;
  protocol: 'TCP' | 'UDP' | 'SCTP';
  port: number;
  appProtocol?: string;
}

export interface WantedGroup {
  readonly addressType: 'IPv4' | 'IPv6';
  readonly ports: SlicePort[];
  readonly endpoints: Endpoint[];
}

/** Pods whose named port is another number make a group of their own. */
export function planGroups(
  service: Service,
  pods: readonly Pod[],
  nodeOf: (name: string) => Node | undefined,
): WantedGroup[] {
  const families = service.spec.ipFamilies?.length ? service.spec.ipFamilies : (['IPv4'] as const);
  const groups = new Map<string, WantedGroup>();
  for (const addressType of families)
    for (const pod of [...pods].sort((a, b) => a.metadata.name.localeCompare(b.metadata.name))) {
      const address = (pod.status?.podIPs ?? []).map(({ ip }) => ip).find((ip) => familyOf(ip) === addressType);
      if (!address || isFinished(pod) || !pod.spec.nodeName) continue;
      const ports = portsFor(service, pod);
      if (ports.length === 0 && (service.spec.ports?.length ?? 0) > 0) continue;
      const key = groupKey(addressType, ports);
      const group = groups.get(key) ?? { addressType, ports, endpoints: [] };
      group.endpoints.push(endpointFor(service, pod, address, nodeOf(pod.spec.nodeName)));
      groups.set(key, group);
    }
  // A family without endpoints has an empty slice, so that those who look find one.
  for (const addressType of families)
    if (![...groups.values()].some((group) => group.addressType === addressType))
      groups.set(groupKey(addressType, []), { addressType, ports: [], endpoints: [] });
  return [...groups.values()];
}

export const groupKey = (
  addressType: string,
  ports: readonly { name?: string; protocol?: string; port?: number | null }[],
): string =>
  `${addressType} ${ports
    .map(({ name, protocol, port }) => `${name ?? ''}/${protocol ?? 'TCP'}/${port ?? ''}`)
    .sort()
    .join(' ')}`;

function portsFor(service: Service, pod: Pod): SlicePort[] {
  return (service.spec.ports ?? []).flatMap(({ name = '', protocol = 'TCP', targetPort, port, appProtocol }) => {
    const number = typeof targetPort === 'string' ? namedPort(pod, targetPort, protocol) : (targetPort ?? port);
    return number === undefined ? [] : [{ name, protocol, port: number, ...(appProtocol ? { appProtocol } : {}) }];
  });
}

function namedPort(pod: Pod, name: string, protocol: string): number | undefined {
  const sidecars = (pod.spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always');
  const ports = [...pod.spec.containers, ...sidecars].flatMap((container) => container.ports ?? []);
  return ports.find((port) => port.name === name && (port.protocol ?? 'TCP') === protocol)?.containerPort;
}

function endpointFor(service: Service, pod: Pod, address: string, node: Node | undefined): Endpoint {
  const serving = isReady(pod);
  const terminating = pod.metadata.deletionTimestamp !== undefined;
  const zone = node?.metadata.labels?.['topology.kubernetes.io/zone'];
  const named = pod.spec.hostname && pod.spec.subdomain === service.metadata.name;
  return {
    addresses: [address],
    conditions: {
      ready: service.spec.publishNotReadyAddresses === true || (serving && !terminating),
      serving,
      terminating,
    },
    ...(named ? { hostname: pod.spec.hostname! } : {}),
    nodeName: pod.spec.nodeName!,
    targetRef: { kind: 'Pod', namespace: pod.metadata.namespace!, name: pod.metadata.name, uid: pod.metadata.uid! },
    ...(zone ? { zone } : {}),
    ...hintsFor(service, pod.spec.nodeName!, zone),
  };
}

function hintsFor({ spec }: Service, nodeName: string, zone: string | undefined): Pick<Endpoint, 'hints'> {
  const how = spec.trafficDistribution;
  if (!zone || !['PreferClose', 'PreferSameZone', 'PreferSameNode'].includes(how ?? '')) return {};
  return {
    hints: { forZones: [{ name: zone }], ...(how === 'PreferSameNode' ? { forNodes: [{ name: nodeName }] } : {}) },
  };
}

const mostEndpoints = 100;

/** Fills the slices that are there, each endpoint staying where it is; returns endpoints by the slice, or undefined for a new slice. */
export function distribute(
  group: WantedGroup,
  existing: readonly EndpointSlice[],
): { slice: EndpointSlice | undefined; endpoints: Endpoint[] }[] {
  const left = new Map(group.endpoints.map((endpoint) => [endpoint.targetRef?.uid, endpoint]));
  const filled = existing.map((slice) => {
    const endpoints: Endpoint[] = [];
    for (const { targetRef } of slice.endpoints ?? []) {
      const kept = left.get(targetRef?.uid);
      if (!kept) continue;
      left.delete(targetRef?.uid);
      endpoints.push(kept);
    }
    return { slice: slice as EndpointSlice | undefined, endpoints };
  });
  for (const endpoint of left.values()) {
    const room = filled.find(({ endpoints }) => endpoints.length < mostEndpoints);
    if (room) room.endpoints.push(endpoint);
    else filled.push({ slice: undefined, endpoints: [endpoint] });
  }
  if (filled.length === 0) filled.push({ slice: undefined, endpoints: [] });
  // Of several slices, those that ran empty go.
  return filled.filter(
    ({ endpoints, slice }, index) =>
      endpoints.length > 0 || (index === 0 && filled.every((one) => one.endpoints.length === 0)) || slice === undefined,
  );
}
