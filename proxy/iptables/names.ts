// The chains' names. They are kube-proxy's own: CNI plugins, conformance tests and operators look for them. Pure.
import { hash } from 'node:crypto';
import { joinHostPort } from '../addresses.ts';
import { type Endpoint, type ServicePort, servicePortName } from '../model.ts';

export type Table = 'nat' | 'filter';

export const servicesChain = 'KUBE-SERVICES';
export const externalServicesChain = 'KUBE-EXTERNAL-SERVICES';
export const nodePortsChain = 'KUBE-NODEPORTS';
export const postroutingChain = 'KUBE-POSTROUTING';
export const markMasqChain = 'KUBE-MARK-MASQ';
export const forwardChain = 'KUBE-FORWARD';
export const proxyFirewallChain = 'KUBE-PROXY-FIREWALL';
/** Counts what came to node ports on 127.0.0.0/8: its one rule's counter is what is wanted of it. kube-proxy has an nfacct object for it. */
export const localhostNodePortsChain = 'KUBE-LOCALHOST-NODEPORTS';
/** The kubelet's; the proxy writes the same rule there, never another, and leaves it when it goes. */
export const kubeletFirewallChain = 'KUBE-FIREWALL';
export const canaryChain = 'KUBE-PROXY-CANARY';
export const kubeletCanaryChain = 'KUBE-KUBELET-CANARY';

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

// The first 16 characters of a base32 SHA-256, as kube-proxy has it: a chain's name may have 28.
function shortHash(text: string): string {
  const digest = hash('sha256', text, 'buffer');
  let [out, bits, count] = ['', 0, 0];
  for (let at = 0; out.length < 16; at++) {
    bits = (bits << 8) | digest[at]!;
    for (count += 8; count >= 5 && out.length < 16; count -= 5) out += alphabet[(bits >>> (count - 5)) & 31];
    bits &= (1 << count) - 1;
  }
  return out;
}

export interface ServiceChains {
  /** Endpoints under policy Cluster. */
  readonly cluster: string;
  /** Endpoints under policy Local. */
  readonly local: string;
  /** Traffic from outside: node port, external IPs, load balancer VIPs. */
  readonly external: string;
  /** Source ranges of load balancer VIPs. */
  readonly firewall: string;
}

export function serviceChains(port: ServicePort): ServiceChains {
  const name = shortHash(servicePortName(port) + port.protocol.toLowerCase());
  return {
    cluster: `KUBE-SVC-${name}`,
    local: `KUBE-SVL-${name}`,
    external: `KUBE-EXT-${name}`,
    firewall: `KUBE-FW-${name}`,
  };
}

export const endpointChain = (port: ServicePort, endpoint: Pick<Endpoint, 'ip' | 'port'>): string =>
  `KUBE-SEP-${shortHash(servicePortName(port) + port.protocol.toLowerCase() + joinHostPort(endpoint.ip, endpoint.port))}`;

/** Chains that only kube-proxy's IPVS mode has, in either table. */
export const ipvsChains: ReadonlySet<string> = new Set([
  'KUBE-NODE-PORT',
  'KUBE-LOAD-BALANCER',
  'KUBE-SOURCE-RANGES-FIREWALL',
  'KUBE-IPVS-FILTER',
  'KUBE-IPVS-OUT-FILTER',
]);

/** A chain that belongs to one service port, ours or kube-proxy's. */
export const isServiceChain = (chain: string): boolean => /^KUBE-(SVC|SVL|EXT|FW|SEP)-/.test(chain);

/** Chains that hold rules of all service ports, by table. */
export const sharedChains: Readonly<Record<Table, readonly string[]>> = {
  nat: [servicesChain, nodePortsChain],
  filter: [servicesChain, externalServicesChain, nodePortsChain, proxyFirewallChain],
};

/** Chains that are there whatever the Services, by table. */
export const fixedChains: Readonly<Record<Table, readonly string[]>> = {
  nat: [postroutingChain, markMasqChain, localhostNodePortsChain],
  filter: [forwardChain],
};
