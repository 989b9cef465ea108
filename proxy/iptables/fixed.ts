// The rules that are there whatever the Services, and the jumps that lead to ours. Pure.
import { cidrContains } from '../addresses.ts';
import {
  externalServicesChain,
  forwardChain,
  kubeletFirewallChain,
  localhostNodePortsChain,
  markMasqChain,
  nodePortsChain,
  postroutingChain,
  proxyFirewallChain,
  servicesChain,
  type Table,
} from './names.ts';
import { addrtype, comment, countsLocalhost, markOf, only, rule, type RuleEnv, type RuleText } from './rule-text.ts';

const nodePortsComment = comment('kubernetes service nodeports; NOTE: this must be the last rule in this chain');

/** The last rules of KUBE-SERVICES in nat: what is for this host goes on to the node ports. */
export function nodePortTail(env: RuleEnv): RuleText[] {
  const loopback = env.family === 'IPv6' ? '::1/128' : env.localhostNodePorts ? undefined : '127.0.0.0/8';
  if (env.nodePortAddresses === 'all')
    return [
      rule({
        ...(loopback === undefined ? {} : { destination: `! ${loopback}` }),
        matches: [nodePortsComment, addrtype('dst')],
        jump: nodePortsChain,
      }),
    ];
  return env.nodePortAddresses
    .filter((ip) => loopback === undefined || !cidrContains(loopback, ip))
    .map((ip) => rule({ destination: only(ip), matches: [nodePortsComment], jump: nodePortsChain }));
}

/** Drops what conntrack calls INVALID; its counter is a metric. */
export const invalidRule: RuleText = rule({ matches: ['-m conntrack --ctstate INVALID'], jump: 'DROP' });

/** The chains that are there whatever the Services, by table; none of them is shared with service ports. */
export function fixedRules(env: RuleEnv): Record<Table, Map<string, RuleText[]>> {
  const mark = markOf(env);
  const filter = new Map<string, RuleText[]>([
    [
      forwardChain,
      [
        // Packets that conntrack calls INVALID would reach the client with an address it does not know, and be reset.
        ...(env.conntrackBeLiberal ? [] : [invalidRule]),
        rule({ matches: [comment('kubernetes forwarding rules'), `-m mark --mark ${mark}/${mark}`], jump: 'ACCEPT' }),
        rule({
          matches: [comment('kubernetes forwarding conntrack rule'), '-m conntrack --ctstate RELATED,ESTABLISHED'],
          jump: 'ACCEPT',
        }),
      ],
    ],
  ]);
  if (env.family === 'IPv4' && env.localhostNodePorts)
    filter.set(kubeletFirewallChain, [
      // route_localnet would let neighbours reach what listens on 127.0.0.1 (kubernetes issue 90259).
      rule({
        source: '! 127.0.0.0/8',
        destination: '127.0.0.0/8',
        matches: [comment('block incoming localnet connections'), '-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT'],
        jump: 'DROP',
      }),
    ]);
  const nat = new Map<string, RuleText[]>([
    [
      postroutingChain,
      [
        rule({ matches: [`-m mark ! --mark ${mark}/${mark}`], jump: 'RETURN' }),
        // A packet that goes through the stack again is not masqueraded again.
        rule({ jump: `MARK --set-xmark ${mark}/0x0` }),
        rule({
          matches: [comment('kubernetes service traffic requiring SNAT')],
          jump: `MASQUERADE${env.randomFully ? ' --random-fully' : ''}`,
        }),
      ],
    ],
    [markMasqChain, [rule({ jump: `MARK --set-xmark ${mark}/${mark}` })]],
  ]);
  if (countsLocalhost(env)) nat.set(localhostNodePortsChain, [rule({ jump: 'RETURN' })]);
  return { nat, filter };
}

export interface Jump {
  readonly table: Table;
  readonly from: string;
  readonly rule: RuleText;
  readonly to: string;
}

const jump = (table: Table, from: string, to: string, said: string, isNew: boolean): Jump => ({
  table,
  from,
  to,
  rule: rule({ matches: [...(isNew ? ['-m conntrack --ctstate NEW'] : []), comment(said)], jump: to }),
});

const portals = 'kubernetes service portals';
const visible = 'kubernetes externally-visible service portals';
const balancer = 'kubernetes load balancer firewall';

/** The jumps from the built-in chains. Each is put first in its chain, so the last of these comes first. */
export const jumps: readonly Jump[] = [
  jump('filter', 'INPUT', externalServicesChain, visible, true),
  jump('filter', 'FORWARD', externalServicesChain, visible, true),
  jump('filter', 'INPUT', nodePortsChain, 'kubernetes health check service ports', false),
  jump('filter', 'FORWARD', servicesChain, portals, true),
  jump('filter', 'OUTPUT', servicesChain, portals, true),
  jump('filter', 'FORWARD', forwardChain, 'kubernetes forwarding rules', false),
  jump('filter', 'INPUT', proxyFirewallChain, balancer, true),
  jump('filter', 'OUTPUT', proxyFirewallChain, balancer, true),
  jump('filter', 'FORWARD', proxyFirewallChain, balancer, true),
  jump('nat', 'OUTPUT', servicesChain, portals, false),
  jump('nat', 'PREROUTING', servicesChain, portals, false),
  jump('nat', 'POSTROUTING', postroutingChain, 'kubernetes postrouting rules', false),
];

/** The kubelet makes these too. */
export const kubeletJumps: readonly Jump[] = ['INPUT', 'OUTPUT'].map((from) => ({
  table: 'filter',
  from,
  to: kubeletFirewallChain,
  rule: rule({ jump: kubeletFirewallChain }),
}));
