// resolv.conf of a pod: the cluster's DNS, the host's, or the pod's own, within the limits that resolvers have.
import type { Pod } from '../../kube/types/pod.ts';
import { podName } from './config-error.ts';

export interface DnsConfig {
  readonly servers: readonly string[];
  readonly searches: readonly string[];
  /** As in the file, for example `ndots:5`. */
  readonly options: readonly string[];
}

/** An Event to record, about the pod or the node. */
export interface DnsEvent {
  readonly about: 'pod' | 'node';
  readonly reason: 'DNSConfigForming' | 'MissingClusterDNS';
  readonly message: string;
}

export interface DnsFacts {
  /** KubeletConfiguration clusterDNS. */
  readonly clusterDns: readonly string[];
  /** KubeletConfiguration clusterDomain; may be empty. */
  readonly clusterDomain: string;
  /** The content of KubeletConfiguration resolvConf; undefined where that is the empty string: then pods ask the local host. */
  readonly hostResolvConf: string | undefined;
  readonly nodeIps: readonly string[];
}

const maxServers = 3;
const maxSearches = 32;
const maxSearchLength = 253;
const maxSearchLine = 2048;

const unique = (list: readonly string[]): string[] => [...new Set(list)];

/** Reads a resolv.conf. The last `search` line wins; options add up, the last of a name wins. Never throws. */
export function parseResolvConf(text: string): DnsConfig {
  const servers: string[] = [];
  let searches: string[] = [];
  const options = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [keyword, ...fields] = line.trim().split(/\s+/);
    if (keyword === undefined || keyword.startsWith('#')) continue;
    if (keyword === 'nameserver' && fields[0] !== undefined) servers.push(fields[0]);
    if (keyword === 'search')
      searches = fields.filter((domain) => domain !== '.').map((domain) => domain.replace(/\.$/, ''));
    if (keyword === 'options') for (const option of fields) options.set(option.split(':')[0] ?? option, option);
  }
  return { servers, searches, options: [...options.values()] };
}

function base(pod: Pod, facts: DnsFacts, events: DnsEvent[]): DnsConfig {
  const policy = pod.spec.dnsPolicy ?? 'ClusterFirst';
  if (policy === 'None') return { servers: [], searches: [], options: [] };
  const host = parseResolvConf(facts.hostResolvConf ?? '');
  if (policy === 'ClusterFirstWithHostNet' || (policy === 'ClusterFirst' && !pod.spec.hostNetwork)) {
    if (facts.clusterDns.length > 0) {
      const domain = facts.clusterDomain;
      const cluster = domain ? [`${pod.metadata.namespace ?? 'default'}.svc.${domain}`, `svc.${domain}`, domain] : [];
      return {
        servers: facts.clusterDns,
        searches: domain ? unique([...cluster, ...host.searches]) : host.searches,
        options: ['ndots:5'],
      };
    }
    const message =
      'kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. Falling back to "Default" policy.';
    events.push({ about: 'node', reason: 'MissingClusterDNS', message });
    events.push({ about: 'pod', reason: 'MissingClusterDNS', message: `pod: "${podName(pod)}". ${message}` });
  }
  if (facts.hostResolvConf !== undefined) return host;
  const local = facts.nodeIps.map((ip) => (ip.includes(':') ? '::1' : '127.0.0.1'));
  return { servers: local.length > 0 ? local : ['127.0.0.1'], searches: ['.'], options: [] };
}

function mergeOptions(
  existing: readonly string[],
  more: readonly { readonly name: string; readonly value?: string }[],
): string[] {
  const merged = new Map<string, string>();
  for (const option of existing) {
    const colon = option.indexOf(':');
    if (colon < 0) merged.set(option, '');
    else merged.set(option.slice(0, colon), option.slice(colon + 1));
  }
  for (const option of more) merged.set(option.name, option.value ?? '');
  return [...merged].map(([name, value]) => (value === '' ? name : `${name}:${value}`));
}

function limitSearches(searches: readonly string[], events: DnsEvent[]): string[] {
  let kept = searches.slice(0, maxSearches).filter((domain) => domain.length <= maxSearchLength);
  while (kept.join(' ').length > maxSearchLine) kept = kept.slice(0, -1);
  if (kept.length < searches.length)
    events.push({
      about: 'pod',
      reason: 'DNSConfigForming',
      message: `Search Line limits were exceeded, some search paths have been omitted, the applied search line is: ${kept.join(' ')}`,
    });
  return kept;
}

function limitServers(servers: readonly string[], events: DnsEvent[]): string[] {
  const kept = servers.slice(0, maxServers);
  if (kept.length < servers.length)
    events.push({
      about: 'pod',
      reason: 'DNSConfigForming',
      message: `Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: ${kept.join(' ')}`,
    });
  return kept;
}

/** The pod's resolv.conf by its dnsPolicy and dnsConfig, and what its owner should be told. */
export function podDns(pod: Pod, facts: DnsFacts): { readonly dns: DnsConfig; readonly events: readonly DnsEvent[] } {
  const events: DnsEvent[] = [];
  let dns = base(pod, facts, events);
  const own = pod.spec.dnsConfig;
  if (own)
    dns = {
      servers: unique([...dns.servers, ...(own.nameservers ?? [])]),
      searches: unique([...dns.searches, ...(own.searches ?? [])]),
      options: mergeOptions(dns.options, own.options ?? []),
    };
  const servers = limitServers(dns.servers, events);
  return { dns: { servers, searches: limitSearches(dns.searches, events), options: dns.options }, events };
}
