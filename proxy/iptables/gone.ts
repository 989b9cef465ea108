// Finds, in what was read from the kernel, addresses and ports that no Service has any more. Pure.
import type { Front } from '../backend.ts';
import type { Protocol, ServicePortState } from '../model.ts';
import { parseIp } from '../addresses.ts';
import { sharedChains } from './names.ts';
import type { RuleText } from './rule-text.ts';
import type { SavedTables } from './saved.ts';

const idOf = ({ protocol, ip, port }: Front): string => `${protocol} ${ip ?? '*'} ${port}`;

/** Undefined where the rule is of neither UDP nor SCTP, or of no port. */
function frontOf(rule: RuleText): Front | undefined {
  const protocol = /(?:^| )-p (udp|sctp) /.exec(rule)?.[1];
  const port = / --dport (\d+)/.exec(rule)?.[1];
  if (protocol === undefined || port === undefined) return undefined;
  const ip = /(?:^| )-d (\S+)\/(?:32|128) /.exec(rule)?.[1];
  return {
    protocol: protocol.toUpperCase() as Protocol,
    ip: ip === undefined ? undefined : (parseIp(ip)?.text ?? ip),
    port: Number(port),
  };
}

export function goneFronts(kernel: SavedTables, states: readonly ServicePortState[]): Front[] {
  const found = new Map<string, Front>();
  for (const table of ['nat', 'filter'] as const)
    for (const chain of sharedChains[table])
      for (const rule of kernel[table].chains.get(chain) ?? []) {
        const front = rule.includes('-p tcp') ? undefined : frontOf(rule);
        if (front) found.set(idOf(front), front);
      }
  if (found.size === 0) return [];
  for (const { port } of states) {
    if (port.protocol === 'TCP') continue;
    for (const ip of [port.clusterIP, ...port.externalIPs, ...port.loadBalancerVIPs])
      found.delete(idOf({ protocol: port.protocol, ip, port: port.port }));
    found.delete(idOf({ protocol: port.protocol, ip: undefined, port: port.nodePort }));
  }
  return [...found.values()];
}
