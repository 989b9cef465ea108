// The rules of one service port. Their order is kube-proxy's. Pure.
import { cidrContains, joinHostPort } from '../addresses.ts';
import {
  type Endpoint,
  externallyAccessible,
  type IpFamily,
  type ServicePort,
  type ServicePortState,
  servicePortName,
  type Verdict,
} from '../model.ts';
import {
  endpointChain,
  externalServicesChain,
  localhostNodePortsChain,
  markMasqChain,
  nodePortsChain,
  proxyFirewallChain,
  serviceChains,
  servicesChain,
  type Table,
} from './names.ts';
import {
  addrtype,
  comment,
  countsLocalhost,
  dport,
  localMatch,
  only,
  rule,
  type RuleEnv,
  type RuleText,
} from './rule-text.ts';

// The kernel keeps 31 bits of a probability and iptables-save prints those with 11 digits; kube-proxy gives 10.
const probabilities: string[] = [];
const probability = (n: number): string => {
  probabilities[n] ??= (Math.round(2 ** 31 * Number((1 / n).toFixed(10))) / 2 ** 31).toFixed(11);
  return probabilities[n];
};

export interface ServiceRules {
  /** Chains of the nat table that belong to this service port alone. */
  readonly chains: ReadonlyMap<string, readonly RuleText[]>;
  /** Its rules in chains it shares with others; their order among those of other service ports does not matter. */
  readonly shared: Readonly<Record<Table, ReadonlyMap<string, readonly RuleText[]>>>;
}

const recentMask = (family: IpFamily): string =>
  family === 'IPv4' ? '255.255.255.255' : 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff';

function endpointRules(state: ServicePortState, endpoint: Endpoint, chain: string, env: RuleEnv): RuleText[] {
  const { port } = state;
  const protocol = port.protocol.toLowerCase();
  const said = env.comments ? [comment(servicePortName(port))] : [];
  const affinity =
    port.affinitySeconds > 0 ? [`-m recent --set --name ${chain} --mask ${recentMask(env.family)} --rsource`] : [];
  return [
    // Traffic that loops back to where it came from.
    rule({ source: only(endpoint.ip), matches: said, jump: markMasqChain }),
    rule({
      protocol,
      matches: [...said, ...affinity, `-m ${protocol}`],
      jump: `DNAT --to-destination ${joinHostPort(endpoint.ip, endpoint.port)}`,
    }),
  ];
}

function balance(
  state: ServicePortState,
  endpoints: readonly Endpoint[],
  chainOf: (endpoint: Endpoint) => string,
  env: RuleEnv,
): RuleText[] {
  const { port } = state;
  const name = servicePortName(port);
  const said = (endpoint: Endpoint): string[] =>
    env.comments ? [comment(`${name} -> ${joinHostPort(endpoint.ip, endpoint.port)}`)] : [];
  const sticky =
    port.affinitySeconds === 0
      ? []
      : endpoints.map((endpoint) => {
          const chain = chainOf(endpoint);
          const recent = `-m recent --rcheck --seconds ${port.affinitySeconds} --reap --name ${chain} --mask ${recentMask(env.family)} --rsource`;
          return rule({ matches: [...said(endpoint), recent], jump: chain });
        });
  const spread = endpoints.map((endpoint, at) => {
    const left = endpoints.length - at;
    const statistic = left > 1 ? [`-m statistic --mode random --probability ${probability(left)}`] : [];
    return rule({ matches: [...said(endpoint), ...statistic], jump: chainOf(endpoint) });
  });
  return [...sticky, ...spread];
}

function externalRules(state: ServicePortState, env: RuleEnv): RuleText[] {
  const { port } = state;
  const name = servicePortName(port);
  const chains = serviceChains(port);
  const rules: RuleText[] = [];
  if (port.nodePort !== 0 && countsLocalhost(env))
    rules.push(rule({ destination: '127.0.0.0/8', jump: localhostNodePortsChain }));
  if (!port.externalPolicyLocal) {
    rules.push(
      rule({ matches: [comment(`masquerade traffic for ${name} external destinations`)], jump: markMasqChain }),
    );
  } else {
    // Pods and the node itself reach every endpoint, as if they had gone out to a load balancer and come back.
    const local = localMatch(env, false);
    if (local)
      rules.push(
        rule({ ...local, matches: [comment(`pod traffic for ${name} external destinations`)], jump: chains.cluster }),
      );
    const masquerade = comment(`masquerade LOCAL traffic for ${name} external destinations`);
    const route = comment(`route LOCAL traffic for ${name} external destinations`);
    rules.push(
      rule({ matches: [masquerade, addrtype('src')], jump: markMasqChain }),
      rule({ matches: [route, addrtype('src')], jump: chains.cluster }),
    );
  }
  if (state.external === 'serve')
    rules.push(rule({ matches: [], jump: port.externalPolicyLocal ? chains.local : chains.cluster }));
  return rules;
}

function firewallRules(port: ServicePort, env: RuleEnv): RuleText[] {
  const name = servicePortName(port);
  const { external } = serviceChains(port);
  const said = comment(`${name} loadbalancer IP`);
  const fromNode = port.sourceRanges.some((range) => env.nodeIP !== undefined && cidrContains(range, env.nodeIP));
  // Where the VIP is an address of this host, its own packets to it have it as their source.
  const sources = [...port.sourceRanges, ...(fromNode ? port.loadBalancerVIPs.map(only) : [])];
  return [
    ...sources.map((source) => rule({ source, matches: [said], jump: external })),
    comment(`other traffic to ${name} will be dropped by KUBE-PROXY-FIREWALL`),
  ];
}

const refusal = (verdict: Verdict, family: IpFamily): string =>
  verdict === 'drop'
    ? 'DROP'
    : `REJECT --reject-with ${family === 'IPv4' ? 'icmp-port-unreachable' : 'icmp6-port-unreachable'}`;

const refusalComment = (verdict: Verdict, name: string): string =>
  comment(`${name} has no ${verdict === 'drop' ? 'local ' : ''}endpoints`);

function sharedRules(state: ServicePortState, env: RuleEnv): ServiceRules['shared'] {
  const { port, choice, internal, external } = state;
  const protocol = port.protocol.toLowerCase();
  const name = servicePortName(port);
  const chains = serviceChains(port);
  const shared = { nat: new Map<string, RuleText[]>(), filter: new Map<string, RuleText[]>() };
  const add = (table: Table, chain: string, text: RuleText): void => {
    const rules = shared[table].get(chain);
    if (rules) rules.push(text);
    else shared[table].set(chain, [text]);
  };
  const at = (ip: string, said: string, jump: string): RuleText =>
    rule({ destination: only(ip), protocol, matches: [said, dport(port, port.port)], jump });

  if (internal === 'serve')
    add(
      'nat',
      servicesChain,
      at(port.clusterIP, comment(`${name} cluster IP`), port.internalPolicyLocal ? chains.local : chains.cluster),
    );
  else add('filter', servicesChain, at(port.clusterIP, refusalComment(internal, name), refusal(internal, env.family)));

  const filtered = port.loadBalancerVIPs.length > 0 && port.sourceRanges.length > 0 && choice.hasAny;
  const outside = [
    ...port.externalIPs.map((ip) => ({ ip, said: 'external IP', jump: chains.external })),
    ...port.loadBalancerVIPs.map((ip) => ({
      ip,
      said: 'loadbalancer IP',
      jump: filtered ? chains.firewall : chains.external,
    })),
  ];
  for (const { ip, said, jump } of outside) {
    if (choice.hasAny) add('nat', servicesChain, at(ip, comment(`${name} ${said}`), jump));
    if (external !== 'serve')
      add('filter', externalServicesChain, at(ip, refusalComment(external, name), refusal(external, env.family)));
  }
  if (filtered)
    for (const ip of port.loadBalancerVIPs)
      add('filter', proxyFirewallChain, at(ip, comment(`${name} traffic not accepted by ${chains.firewall}`), 'DROP'));

  if (port.nodePort !== 0) {
    const node = dport(port, port.nodePort);
    if (choice.hasAny)
      add('nat', nodePortsChain, rule({ protocol, matches: [comment(name), node], jump: chains.external }));
    if (external !== 'serve')
      add(
        'filter',
        externalServicesChain,
        rule({
          protocol,
          matches: [refusalComment(external, name), addrtype('dst'), node],
          jump: refusal(external, env.family),
        }),
      );
  }
  if (port.healthCheckNodePort !== 0)
    add(
      'filter',
      nodePortsChain,
      rule({
        protocol: 'tcp',
        matches: [comment(`${name} health check node port`), `-m tcp --dport ${port.healthCheckNodePort}`],
        jump: 'ACCEPT',
      }),
    );
  return shared;
}

/** Everything that is in the kernel for one service port. */
export function serviceRules(state: ServicePortState, env: RuleEnv): ServiceRules {
  const { port, choice, internal } = state;
  const chains = new Map<string, RuleText[]>();
  const names = serviceChains(port);
  const endpointChains = new Map(choice.reachable.map((endpoint) => [endpoint, endpointChain(port, endpoint)]));
  const chainOf = (endpoint: Endpoint): string => endpointChains.get(endpoint)!;

  const masquerade: RuleText[] = [];
  const notLocal = env.masqueradeAll ? {} : localMatch(env, true);
  if (internal === 'serve' && notLocal)
    masquerade.push(
      rule({
        ...notLocal,
        destination: only(port.clusterIP),
        protocol: port.protocol.toLowerCase(),
        matches: [comment(`${servicePortName(port)} cluster IP`), dport(port, port.port)],
        jump: markMasqChain,
      }),
    );
  const policyChain = (name: string, endpoints: readonly Endpoint[], isInternal: boolean): void => {
    if (endpoints.length === 0) return;
    chains.set(name, [...(isInternal ? masquerade : []), ...balance(state, endpoints, chainOf, env)]);
  };
  if (choice.hasAny && externallyAccessible(port)) {
    chains.set(names.external, externalRules(state, env));
    if (port.loadBalancerVIPs.length > 0 && port.sourceRanges.length > 0)
      chains.set(names.firewall, firewallRules(port, env));
  }
  policyChain(names.cluster, choice.cluster, !port.internalPolicyLocal);
  policyChain(names.local, choice.local, port.internalPolicyLocal);
  for (const [endpoint, chain] of endpointChains) chains.set(chain, endpointRules(state, endpoint, chain, env));
  return { chains, shared: sharedRules(state, env) };
}
