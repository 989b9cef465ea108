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

export type SavedTables = Readonly<Record<'nat' | 'filter' | 'mangle', SavedTable>>;

export const emptyTables = (): SavedTables => {
  const table = (): SavedTable => ({ chains: new Map(), jumps: new Map() });
  return { nat: table(), filter: table(), mangle: table() };
};

/** Tables that the text does not hold are empty. */
export async function parseSaved(text: string, slices: Slices): Promise<SavedTables> {
  const tables = emptyTables();
  let table: SavedTable | undefined;
  let known: { name: string; rules: RuleText[] } | undefined;
  for (let at = 0; at < text.length; ) {
    const newline = text.indexOf('\n', at);
    const end = newline === -1 ? text.length : newline;
    const kind = text[at];
    if (kind === '*') {
      table = tables[text.slice(at + 1, end) as keyof SavedTables];
      known = undefined;
    } else if (table && kind === ':') {
      const name = text.slice(at + 1, text.indexOf(' ', at));
      if (isOurs(name)) table.chains.set(name, []);
    } else if (table && kind === '-') {
      const space = text.indexOf(' ', at + 3);
      // Rules of one chain follow one another.
      if (known && space - at - 3 === known.name.length && text.startsWith(known.name, at + 3))
        known.rules.push(text.slice(space + 1, end));
      else known = addRule(table, text.slice(at + 3, space), text.slice(space + 1, end));
    }
    at = end + 1;
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  return tables;
}

/** The chain, where it is ours. */
function addRule(table: SavedTable, name: string, rule: RuleText): { name: string; rules: RuleText[] } | undefined {
  if (isOurs(name)) {
    const chains = table.chains as Map<string, RuleText[]>;
    const rules = chains.get(name) ?? [];
    if (rules.push(rule) === 1) chains.set(name, rules);
    return { name, rules };
  }
  if (!/(?:^| )-j KUBE-/.test(rule)) return undefined;
  const jumps = table.jumps.get(name);
  if (jumps) jumps.push(rule);
  else table.jumps.set(name, [rule]);
  return undefined;
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
