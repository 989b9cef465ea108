// What a KubeProxyConfiguration may not say, and what it says that is not honoured here. Pure: positions in files are the reader's business.
import { parseCidr, parseIp } from './addresses.ts';
import type { KubeProxyConfiguration } from './config.ts';

export interface ProxyConfigurationRemark {
  /** The field, from the document's root. */
  readonly path: readonly (string | number)[];
  readonly message: string;
}

const when = (wrong: boolean, path: readonly (string | number)[], message: string): ProxyConfigurationRemark[] =>
  wrong ? [{ path, message }] : [];

function wrongHostPort(address: string): boolean {
  const match = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(address);
  const port = Number(match?.[3]);
  return !match || !parseIp(match[1] ?? match[2] ?? '') || !(port >= 1 && port <= 65_535);
}

/** The networks of `clusterCIDR`. */
export const clusterCidrsOf = (config: KubeProxyConfiguration): string[] =>
  config.clusterCIDR
    .split(',')
    .map((cidr) => cidr.trim())
    .filter((cidr) => cidr !== '');

export function refuseKubeProxyConfiguration(c: KubeProxyConfiguration): ProxyConfigurationRemark[] {
  const cidrs = clusterCidrsOf(c);
  const families = cidrs.map((cidr) => parseCidr(cidr)?.family);
  return [
    ...when(wrongHostPort(c.healthzBindAddress), ['healthzBindAddress'], `"${c.healthzBindAddress}" is not IP:port`),
    ...when(wrongHostPort(c.metricsBindAddress), ['metricsBindAddress'], `"${c.metricsBindAddress}" is not IP:port`),
    ...when(!parseIp(c.bindAddress), ['bindAddress'], `"${c.bindAddress}" is not an IP address`),
    ...when(families.includes(undefined), ['clusterCIDR'], `"${c.clusterCIDR}" is not a CIDR, or one of each family`),
    ...when(
      cidrs.length > 2 || (cidrs.length === 2 && families[0] === families[1]),
      ['clusterCIDR'],
      'takes one CIDR, or one of each family',
    ),
    ...when(
      c.detectLocalMode === 'BridgeInterface' && c.detectLocal.bridgeInterface === '',
      ['detectLocal', 'bridgeInterface'],
      'is needed where detectLocalMode is BridgeInterface',
    ),
    ...when(
      c.detectLocalMode === 'InterfaceNamePrefix' && c.detectLocal.interfaceNamePrefix === '',
      ['detectLocal', 'interfaceNamePrefix'],
      'is needed where detectLocalMode is InterfaceNamePrefix',
    ),
    ...c.nodePortAddresses.flatMap((cidr, at) =>
      cidr === 'primary'
        ? when(c.nodePortAddresses.length > 1, ['nodePortAddresses', at], '"primary" stands alone')
        : when(!parseCidr(cidr), ['nodePortAddresses', at], `"${cidr}" is neither a CIDR nor "primary"`),
    ),
    ...when(
      c.featureGates.AllowServiceExternalIPs === false,
      ['featureGates'],
      'AllowServiceExternalIPs cannot be switched off',
    ),
  ];
}

export function remarkKubeProxyConfiguration(c: KubeProxyConfiguration): ProxyConfigurationRemark[] {
  return [
    ...when(c.mode === 'ipvs', ['mode'], 'ipvs is deprecated in Kubernetes and not implemented here: nftables is used'),
    ...when(c.enableProfiling, ['enableProfiling'], 'is not honoured: profiles are served by the node server'),
    ...when(c.oomScoreAdj !== -999, ['oomScoreAdj'], 'is not honoured: the daemon has one score for both halves'),
    ...when(c.portRange !== '', ['portRange'], 'has no effect since the userspace proxy went'),
    ...when(
      c.showHiddenMetricsForVersion !== '',
      ['showHiddenMetricsForVersion'],
      'is not honoured: there are no hidden metrics',
    ),
    ...when(
      Object.keys(c.winkernel).some((key) => c.winkernel[key]),
      ['winkernel'],
      'has no effect on Linux',
    ),
    ...when(c.windowsRunAsService, ['windowsRunAsService'], 'has no effect on Linux'),
  ];
}
