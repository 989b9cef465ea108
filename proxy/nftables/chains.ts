// The chains that send a packet to one of N endpoints: one chain for each kind, protocol and N in use, whatever the number of service
// ports. Rules are written as nft takes them; `printed` says how nft lists them. Pure.
import type { NodeFacts } from '../backend.ts';
import type { IpFamily } from '../model.ts';
import {
  affinityMap,
  affinityPortMap,
  type FrontSuffix,
  type ProtocolName,
  recordChain,
  stickyChain,
  tableFamily,
} from './names.ts';

/**
 * cip: a cluster IP; masquerades what does not come from a pod. ext: from outside under policy Cluster; masquerades. loc: from outside
 * under policy Local; keeps the source. lb: for what pods and the node send under policy Local.
 */
export type ChainKind = 'cip' | 'ext' | 'loc' | 'lb';

export interface ChainSpec {
  readonly kind: ChainKind;
  readonly proto: ProtocolName;
  /** How many endpoints it draws from. */
  readonly count: number;
  /** For node ports. */
  readonly node?: boolean;
  /** With session affinity. */
  readonly sticky: boolean;
}

export const chainName = ({ kind, proto, count, node, sticky }: ChainSpec): string =>
  `${kind}${node ? '-node' : ''}-${proto}-${count}${sticky ? '-sticky' : ''}`;

const namePattern = /^(cip|ext|loc|lb)(-node)?-(tcp|udp|sctp)-(\d+)(-sticky)?$/;

/** Undefined where the name is not of such a chain. */
export function parseChainName(name: string): ChainSpec | undefined {
  const [, kind, node, proto, count, sticky] = namePattern.exec(name) ?? [];
  if (kind === undefined) return undefined;
  return {
    kind: kind as ChainKind,
    proto: proto as ProtocolName,
    count: Number(count),
    node: node !== undefined,
    sticky: sticky !== undefined,
  };
}

export interface RuleEnv extends NodeFacts {
  readonly family: IpFamily;
}

/** How nft lists a rule that was written so. */
export const printed = (rule: string): string =>
  rule
    .replace(/\bdnat (ip6?) addr \. port to\b/, 'dnat $1 to')
    .replace(/\bdnat ip6? to (\S+ \S+ map \S+) : /, 'dnat to $1:');

const hex = (value: number): string => `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
export const markOf = (facts: Pick<NodeFacts, 'masqueradeBit'>): string => hex(2 ** facts.masqueradeBit);
export const setMark = (facts: Pick<NodeFacts, 'masqueradeBit'>): string =>
  `meta mark set meta mark | ${markOf(facts)}`;

/** Matches what comes from pods (of this node, as the detector knows them), or what does not; undefined where nothing tells. */
export function localMatch(env: RuleEnv, not: boolean): string | undefined {
  const detector = env.localDetector;
  const sign = not ? '!= ' : '';
  switch (detector.kind) {
    case 'none':
      return undefined;
    case 'cidr':
      return `${tableFamily(env.family)} saddr ${sign}${detector.cidr}`;
    case 'bridge-interface':
      return `iifname ${sign}"${detector.name}"`;
    case 'interface-prefix':
      return `iifname ${sign}"${detector.prefix}*"`;
  }
}

/** The key of the verdict maps. */
export const frontKey = (family: IpFamily, suffix: FrontSuffix): string =>
  `${suffix === '' ? `${tableFamily(family)} daddr . ` : ''}meta l4proto . th dport`;

/** The rules of the chain of this name. */
export function chainRules(spec: ChainSpec, env: RuleEnv): string[] {
  const ip = tableFamily(env.family);
  const suffix: FrontSuffix = spec.node ? '-node' : '';
  const rules: string[] = [];
  if (spec.kind === 'cip') {
    const match = localMatch(env, true);
    if (env.masqueradeAll) rules.push(setMark(env));
    else if (match !== undefined) rules.push(`${match} ${setMark(env)}`);
  }
  if (spec.kind === 'ext') rules.push(setMark(env));
  if (spec.kind === 'loc') rules.push(`jump shortcuts${suffix}`);
  if (spec.count === 0) return [...rules, 'drop'];
  if (spec.sticky) rules.push(`${frontKey(env.family, suffix)} vmap @sticky${suffix}`);
  const front = spec.node ? `${spec.proto} dport` : `${ip} daddr . ${spec.proto} dport`;
  const map = `${spec.kind === 'loc' ? 'loc' : 'eps'}${suffix}-${spec.proto}`;
  const dnat = `dnat ${ip} addr . port to ${front} . numgen random mod ${spec.count} map @${map}`;
  // Twice: a lookup can miss what a commit is just replacing (Linux before 6.17).
  return [...rules, dnat, dnat];
}

/** Seconds as nft lists them. */
export function printedSeconds(seconds: number): string {
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'm'],
    [seconds % 60, 's'],
  ] as const;
  return parts.map(([count, unit]) => (count > 0 ? `${count}${unit}` : '')).join('') || '0s';
}

export interface AffinityRules {
  /** Bodies of the maps, by name. */
  readonly maps: ReadonlyMap<string, readonly string[]>;
  readonly chains: ReadonlyMap<string, readonly string[]>;
}

/** What a service port with session affinity has for itself: maps from client to endpoint, a chain to look it up, one to note it. */
export function affinityRules(id: string, proto: ProtocolName, seconds: number, family: IpFamily): AffinityRules {
  const ip = tableFamily(family);
  const [map, portMap] = [affinityMap(id), affinityPortMap(id)];
  const address = family === 'IPv4' ? 'ipv4_addr' : 'ipv6_addr';
  // Dynamic maps hold 65,535 by default, and one that is full takes no new client.
  const options = ['size 1048576', 'flags dynamic,timeout'];
  const key = `ct original ${ip} saddr timeout ${printedSeconds(seconds)}`;
  return {
    // nft 1.0.6 takes neither keys nor values of more than four registers here: hence maps of its own for each service port, and two.
    maps: new Map([
      [map, [`type ${address} : ${address}`, ...options]],
      [portMap, [`type ${address} : inet_service`, ...options]],
    ]),
    chains: new Map([
      [stickyChain(id), [`meta l4proto ${proto} dnat ${ip} to ${ip} saddr map @${map} : ${ip} saddr map @${portMap}`]],
      [
        recordChain(id),
        [
          `meta l4proto ${proto} update @${map} { ${key} : ${ip} daddr } update @${portMap} { ${key} : ${proto} dport }`,
        ],
      ],
    ]),
  };
}
