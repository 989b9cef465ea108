// The EndpointSlices a Service shall have, from its pods. Pure.
import type { Endpoint, EndpointSlice, Node, Service } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { isSidecar } from '../../kube/scheduling/pod-resources.ts';
import { familyOf } from '../addresses.ts';
import { isFinished, isReady } from './replicasets.ts';

type Ports = NonNullable<EndpointSlice['ports']>;

export interface WantedGroup {
  readonly addressType: 'IPv4' | 'IPv6';
  readonly ports: Ports;
  readonly endpoints: Endpoint[];
}

/** One for each family; pods whose named port is another number make a group of their own. */
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
      const key = groupKey({ addressType, ports });
      const group = groups.get(key) ?? { addressType, ports, endpoints: [] };
      group.endpoints.push(endpointFor(service, pod, address, nodeOf(pod.spec.nodeName)));
      groups.set(key, group);
    }
    // A family without endpoints has an empty slice, so that those who look find one.
    return groups.size > 0 ? [...groups.values()] : [{ addressType, ports: [], endpoints: [] }];
  });
}

export const groupKey = ({ addressType, ports }: Pick<EndpointSlice, 'addressType' | 'ports'>): string =>
  JSON.stringify([addressType, ports]);

function portsFor({ spec }: Service, pod: Pod): Ports {
  const running = [...pod.spec.containers, ...(pod.spec.initContainers ?? []).filter(isSidecar)];
  const known = running.flatMap((container) => container.ports ?? []);
  return (spec.ports ?? []).flatMap(({ name = '', protocol = 'TCP', targetPort, port, appProtocol }) => {
    const named = known.find((one) => one.name === targetPort && (one.protocol ?? 'TCP') === protocol);
    const number = typeof targetPort === 'string' ? named?.containerPort : (targetPort ?? port);
    return number === undefined ? [] : [{ name, protocol, port: number, ...(appProtocol ? { appProtocol } : {}) }];
  });
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
