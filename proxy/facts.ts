// What a rules backend must know of its node, from the configuration, the Node object and the host's addresses. Pure.
import type { Node } from '../kube/types/core.ts';
import { cidrContains, type IpFamily, parseCidr, parseIp } from './addresses.ts';
import type { LocalDetector, NodeFacts, RulesBackend } from './backend.ts';
import { type KubeProxyConfiguration, masqueradingOf } from './config.ts';
import { clusterCidrsOf } from './config-rules.ts';

export interface HostFacts {
  /** Addresses of all interfaces, loopback too. */
  readonly addresses: readonly string[];
  /** nf_conntrack_tcp_be_liberal is set. */
  readonly conntrackBeLiberal: boolean;
}

/** Networks of one family, each once, in their usual form and in order; what is no CIDR is left out. */
const cidrsOf = (texts: readonly string[], family: IpFamily): string[] =>
  [...new Set(texts.map(parseCidr).flatMap((cidr) => (cidr?.family === family ? [cidr.text] : [])))].sort();

/** The node's first internal, else external address of the family; an explicit bindAddress wins. */
export function nodeIpOf(config: KubeProxyConfiguration, node: Node | undefined, family: IpFamily): string | undefined {
  const bind = parseIp(config.bindAddress);
  if (bind && bind.family === family && bind.text !== '0.0.0.0' && bind.text !== '::') return bind.text;
  const addresses = node?.status?.addresses ?? [];
  for (const type of ['InternalIP', 'ExternalIP'])
    for (const address of addresses) {
      const ip = address.type === type ? parseIp(address.address) : undefined;
      if (ip?.family === family) return ip.text;
    }
  return undefined;
}

const firstOf = (cidrs: readonly string[], family: IpFamily): LocalDetector => {
  const cidr = cidrs.map(parseCidr).find((parsed) => parsed?.family === family);
  return cidr ? { kind: 'cidr', cidr: cidr.text } : { kind: 'none' };
};

export function localDetectorOf(
  config: KubeProxyConfiguration,
  node: Node | undefined,
  family: IpFamily,
): LocalDetector {
  const { detectLocal } = config;
  switch (config.detectLocalMode) {
    case '':
    case 'ClusterCIDR':
      return firstOf(clusterCidrsOf(config), family);
    case 'NodeCIDR':
      return firstOf(node?.spec.podCIDRs ?? (node?.spec.podCIDR ? [node.spec.podCIDR] : []), family);
    case 'BridgeInterface':
      return { kind: 'bridge-interface', name: detectLocal.bridgeInterface };
    case 'InterfaceNamePrefix':
      return { kind: 'interface-prefix', prefix: detectLocal.interfaceNamePrefix };
  }
}

function nodePortAddressesOf(
  config: KubeProxyConfiguration,
  kind: RulesBackend['kind'],
  nodeIP: string | undefined,
  host: HostFacts,
  family: IpFamily,
): 'all' | readonly string[] {
  const wanted = config.nodePortAddresses;
  // nftables mode opens node ports on the node's own address only, unless told otherwise; kube-proxy too. Who wrote `ipvs` expects all.
  const primary = wanted[0] === 'primary' || (wanted.length === 0 && kind === 'nftables' && config.mode !== 'ipvs');
  if (primary)
    return nodeIP === undefined || cidrContains('127.0.0.0/8', nodeIP) || nodeIP === '::1' ? 'all' : [nodeIP];
  const cidrs = wanted.map(parseCidr).filter((cidr) => cidr?.family === family);
  if (cidrs.length === 0 || cidrs.some((cidr) => cidr!.prefix === 0)) return 'all';
  const chosen = host.addresses.filter((ip) => cidrs.some((cidr) => cidrContains(cidr!.text, ip)));
  return [...new Set(chosen)].sort();
}

const loopbackAmong = (config: KubeProxyConfiguration): boolean => {
  const cidrs = config.nodePortAddresses.map(parseCidr).filter((cidr) => cidr?.family === 'IPv4');
  if (config.nodePortAddresses[0] === 'primary') return false;
  return (
    cidrs.length === 0 || cidrs.some((cidr) => cidrContains(cidr!.text, '127.0.0.0') || cidr!.text.startsWith('127.'))
  );
};

/** Whether node ports answer on 127.0.0.0/8, which needs route_localnet. */
export const servesLocalhostNodePorts = (config: KubeProxyConfiguration, kind: RulesBackend['kind']): boolean =>
  kind === 'iptables' && config.iptables.localhostNodePorts && loopbackAmong(config);

export function nodeFactsOf(
  config: KubeProxyConfiguration,
  node: Node | undefined,
  host: HostFacts,
  { kind, family }: Pick<RulesBackend, 'kind' | 'family'>,
  serviceCidrs: readonly string[] = [],
): NodeFacts {
  const { masqueradeAll, masqueradeBit } = masqueradingOf(config, kind);
  const nodeIP = nodeIpOf(config, node, family);
  return {
    localDetector: localDetectorOf(config, node, family),
    nodeIP,
    nodePortAddresses: nodePortAddressesOf(config, kind, nodeIP, host, family),
    masqueradeAll,
    masqueradeBit,
    localhostNodePorts: family === 'IPv4' && servesLocalhostNodePorts(config, kind),
    conntrackBeLiberal: host.conntrackBeLiberal,
    serviceCidrs: kind === 'nftables' ? cidrsOf(serviceCidrs, family) : [],
  };
}
