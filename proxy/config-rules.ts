// What a KubeProxyConfiguration may not say, and what it says that is not honoured here. Pure: positions in files are the reader's business.
import { formatGoDuration } from '../lib/go-duration.ts';
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

/** kube-proxy looks at the periods of the mode it runs in and at no others. */
const sectionHolds = ({ mode }: KubeProxyConfiguration, section: 'iptables' | 'nftables' | 'ipvs'): boolean =>
  mode === section || (mode === '' && section === 'iptables') || (mode === 'auto' && section !== 'ipvs');

export function refuseKubeProxyConfiguration(c: KubeProxyConfiguration): ProxyConfigurationRemark[] {
  // Where pods are told by something else, kube-proxy does not look at it.
  const cidrs = c.detectLocalMode === '' || c.detectLocalMode === 'ClusterCIDR' ? clusterCidrsOf(c) : [];
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
    ...(['iptables', 'nftables', 'ipvs'] as const).flatMap((mode) =>
      when(
        sectionHolds(c, mode) && c[mode].minSyncPeriod > c[mode].syncPeriod,
        [mode, 'minSyncPeriod'],
        `must not be longer than syncPeriod, which is ${formatGoDuration(c[mode].syncPeriod)}`,
      ),
    ),
  ];
}

/** Switches of kube-proxy that are heard either way. */
const gatesHeard: readonly string[] = ['AllowServiceExternalIPs', 'ComponentFlagz', 'ComponentStatusz'];
/** Those that are as it is here. */
const gatesAsHere: Readonly<Record<string, boolean>> = {
  MultiCIDRServiceAllocator: true,
  PreferSameTrafficDistribution: true,
};

const remarkGates = (gates: KubeProxyConfiguration['featureGates']): ProxyConfigurationRemark[] =>
  Object.keys(gates)
    .filter((gate) => !gatesHeard.includes(gate) && gates[gate] !== gatesAsHere[gate])
    .map((gate) => ({ path: ['featureGates', gate], message: 'is not honoured: this proxy has no such switch' }));

const defaultConfigSyncMs = 15 * 60_000;

export function remarkKubeProxyConfiguration(c: KubeProxyConfiguration): ProxyConfigurationRemark[] {
  const { qps = 0, burst = 0, contentType, acceptContentTypes } = c.clientConnection;
  const spoken = (type: string): boolean =>
    type === '' || type.split(',').some((one) => /^application\/json\b/.test(one.trim()));
  return [
    ...when(
      c.hostnameOverride !== '',
      ['hostnameOverride'],
      'is not honoured: both halves have the name of the node, hostnameOverride of StevedoreConfiguration',
    ),
    ...when(
      qps !== 0 || burst !== 0,
      ['clientConnection', qps === 0 ? 'burst' : 'qps'],
      'is not honoured: the few calls of the proxy are not held back',
    ),
    ...when(!spoken(contentType), ['clientConnection', 'contentType'], 'is not honoured: JSON is spoken'),
    ...when(!spoken(acceptContentTypes), ['clientConnection', 'acceptContentTypes'], 'is not honoured: JSON is spoken'),
    ...when(
      c.configSyncPeriod !== defaultConfigSyncMs,
      ['configSyncPeriod'],
      'has no effect: the watches tell of every change',
    ),
    ...when(
      c.logging.verbosity > 0 || (c.logging.format !== '' && c.logging.format !== 'text'),
      ['logging'],
      'is not honoured: the daemon logs as log of StevedoreConfiguration says',
    ),
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
    ...remarkGates(c.featureGates),
    ...when(c.windowsRunAsService, ['windowsRunAsService'], 'has no effect on Linux'),
  ];
}
