// What is in the table whatever the Services: maps, sets, and the chains that lead to them. Pure.
import type { IpFamily } from '../model.ts';
import { frontKey, localMatch, markOf, type RuleEnv, setMark } from './chains.ts';
import {
  clusterIpsSet,
  epochSet,
  filteredMap,
  type FrontSuffix,
  hairpinSet,
  protocolNames,
  rangesSet,
  suffixes,
  tableFamily,
  unallocatedChain,
} from './names.ts';

export interface Declaration {
  readonly kind: 'map' | 'set';
  /** The body as nft takes and lists it, in lines. */
  readonly lines: readonly string[];
}

/** Maps and sets by name. Without a size: the kernel would allot buckets for all of it, and walk them in every listing. */
export function declarations(family: IpFamily): Map<string, Declaration> {
  const ip = tableFamily(family);
  const address = family === 'IPv4' ? 'ipv4_addr' : 'ipv6_addr';
  const all = new Map<string, Declaration>();
  const front: Record<FrontSuffix, string> = {
    '': `${address} . inet_proto . inet_service`,
    '-node': 'inet_proto . inet_service',
  };
  for (const suffix of suffixes) {
    for (const name of ['svc', 'clu', 'sticky', 'record', 'guard'])
      all.set(`${name}${suffix}`, {
        kind: 'map',
        lines: [`type ${front[suffix]} : verdict`],
      });
    for (const proto of protocolNames)
      for (const name of ['eps', 'loc']) {
        const key = `${suffix === '' ? `${ip} daddr . ` : ''}${proto} dport . numgen random mod 65536`;
        all.set(`${name}${suffix}-${proto}`, {
          kind: 'map',
          lines: [`typeof ${key} : ${ip} daddr . ${proto} dport`, 'counter'],
        });
      }
  }
  all.set(filteredMap, { kind: 'map', lines: [`type ${front['']} : verdict`] });
  all.set(rangesSet, {
    kind: 'set',
    lines: [`type ${front['']} . ${address}`, 'flags interval'],
  });
  all.set(hairpinSet, { kind: 'set', lines: [`type ${address} . ${address}`] });
  all.set(clusterIpsSet, { kind: 'set', lines: [`type ${address}`] });
  all.set(epochSet, { kind: 'set', lines: ['type mark'] });
  return all;
}

export interface BaseChain {
  readonly name: string;
  /** As nft takes it. */
  readonly hook: string;
  readonly rules: readonly string[];
}

/** What narrows packets to those for a node port; one rule for each. */
function nodePortMatches(env: RuleEnv): string[] {
  const ip = tableFamily(env.family);
  const loopback = env.family === 'IPv4' ? '127.0.0.0/8' : '::1';
  if (env.nodePortAddresses === 'all') return [`fib daddr type local ${ip} daddr != ${loopback}`];
  return env.nodePortAddresses
    .filter((address) => address.includes(':') === (env.family === 'IPv6'))
    .filter((address) => !address.startsWith('127.') && address !== '::1')
    .map((address) => `${ip} daddr ${address}`);
}

/** As nft lists a network of one address. */
const withoutFullPrefix = (cidr: string): string => cidr.replace(cidr.includes(':') ? /\/128$/ : /\/32$/, '');

/** Chains without a hook, by name. */
export function fixedChains(env: RuleEnv): Map<string, readonly string[]> {
  const { family } = env;
  const ip = tableFamily(family);
  const key = frontKey(family, '');
  const nodeKey = frontKey(family, '-node');
  const pods = localMatch(env, false);
  const chains = new Map<string, readonly string[]>();
  // Each lookup is there twice: one can miss what a commit is just replacing (Linux before 6.17).
  const dispatch = [`${key} vmap @svc`, ...nodePortMatches(env).map((match) => `${match} ${nodeKey} vmap @svc-node`)];
  chains.set('services', [...dispatch, ...dispatch]);
  chains.set('fw', [`${key} . ${ip} saddr @${rangesSet} ${key} vmap @${filteredMap}`, 'drop']);
  for (const suffix of suffixes) {
    const lookup = `${frontKey(family, suffix)} vmap @clu${suffix}`;
    chains.set(`from-node${suffix}`, [setMark(env), lookup]);
    chains.set(`shortcuts${suffix}`, [
      ...(pods === undefined ? [] : [`${pods} ${lookup}`]),
      `fib saddr type local goto from-node${suffix}`,
    ]);
  }
  chains.set('refuse', ['reject']);
  chains.set(unallocatedChain, [
    `${ip} daddr @${clusterIpsSet} goto refuse`,
    ...env.serviceCidrs.map((cidr) => `${ip} daddr ${withoutFullPrefix(cidr)} drop`),
  ]);
  chains.set('guard', [
    'ct status dnat return',
    `${key} vmap @guard`,
    ...nodePortMatches(env).map((match) => `${match} ${nodeKey} vmap @guard-node`),
  ]);
  const original = `ct original ${ip} daddr . meta l4proto . ct original proto-dst`;
  chains.set(
    'record',
    protocolNames.flatMap((proto) => [
      `meta l4proto ${proto} ${original} vmap @record`,
      `meta l4proto ${proto} meta l4proto . ct original proto-dst vmap @record-node`,
    ]),
  );
  return chains;
}

/** Chains with a hook, in the order they are attached. */
export function baseChains(env: RuleEnv): BaseChain[] {
  const ip = tableFamily(env.family);
  const mark = markOf(env);
  const guard = 'ct state new jump guard';
  // After the guard. Not on input: some hosts have cluster IPs of their own, and what listens there is theirs.
  const unallocated = `ct state new jump ${unallocatedChain}`;
  return [
    {
      name: 'nat-postrouting',
      hook: 'type nat hook postrouting priority 100',
      rules: [
        'ct status dnat jump record',
        `ct status dnat ${ip} saddr . ${ip} daddr @${hairpinSet} masquerade fully-random`,
        // A packet that goes through the stack again is not masqueraded again.
        `meta mark & ${mark} == ${mark} meta mark set meta mark ^ ${mark} masquerade fully-random`,
      ],
    },
    { name: 'nat-prerouting', hook: 'type nat hook prerouting priority -100', rules: ['jump services'] },
    { name: 'nat-output', hook: 'type nat hook output priority -100', rules: ['jump services'] },
    { name: 'filter-input', hook: 'type filter hook input priority 0', rules: [guard] },
    {
      name: 'filter-forward',
      hook: 'type filter hook forward priority 0',
      // Packets that conntrack calls INVALID would reach the client with an address it does not know, and be reset.
      rules: [...(env.conntrackBeLiberal ? [] : ['ct state invalid drop']), guard, unallocated],
    },
    { name: 'filter-output', hook: 'type filter hook output priority 0', rules: [guard, unallocated] },
  ];
}
