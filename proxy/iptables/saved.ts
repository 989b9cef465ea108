// Reads what iptables-save prints, as far as it is ours: chains named KUBE-*, and jumps to them. Pure, but gives way now and then: at ten
// thousand Services the text has tens of megabytes.
import type { Slices } from '../../lib/slices.ts';
import type { RuleText } from './rule-text.ts';

export interface SavedTable {
  /** Rules of our chains (and the kubelet's and kube-proxy's), in their order. */
  readonly chains: Map<string, readonly RuleText[]>;
  /** By built-in or foreign chain: its rules that jump to a chain of ours. */
  readonly jumps: Map<string, RuleText[]>;
}

const isOurs = (chain: string): boolean => chain.startsWith('KUBE-');

/** The one table that the text is of; an empty one where the text holds none. */
export async function parseSaved(text: string, slices: Slices): Promise<SavedTable> {
  const table: SavedTable = { chains: new Map(), jumps: new Map() };
  const chains = table.chains as Map<string, RuleText[]>;
  for (let at = 0; at < text.length; ) {
    const newline = text.indexOf('\n', at);
    const end = newline === -1 ? text.length : newline;
    const line = text.slice(at, end);
    at = end + 1;
    const space = line.indexOf(' ', 3);
    if (line.startsWith(':')) {
      const name = line.slice(1, line.indexOf(' '));
      if (isOurs(name)) chains.set(name, []);
    } else if (line.startsWith('-A ') && space > 0) {
      const name = line.slice(3, space);
      const rule = line.slice(space + 1);
      if (isOurs(name)) {
        const rules = chains.get(name);
        if (rules) rules.push(rule);
        else chains.set(name, [rule]);
      } else if (/ -j KUBE-|^-j KUBE-/.test(rule)) {
        const jumps = table.jumps.get(name);
        if (jumps) jumps.push(rule);
        else table.jumps.set(name, [rule]);
      }
    }
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  return table;
}

/** A rule as `-S -v` prints it, with its counters taken out. */
export function parseCounted(line: string): { rule: RuleText; packets: number; bytes: number } {
  const counters = /(?:^| )-c (\d+) (\d+)/.exec(line);
  return {
    rule: counters ? line.replace(counters[0], '').trimStart() : line,
    packets: Number(counters?.[1] ?? 0),
    bytes: Number(counters?.[2] ?? 0),
  };
}
