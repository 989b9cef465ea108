// Walks a packet over our nftables table, as nft lists it or as it is given to nft: the rules this backend writes, and no others. Pure.
import { cidrContains, parseIp } from '../addresses.ts';
import type { Fate, Trace, TracedPacket, TraceStep, TracedEndpoint } from '../trace.ts';
import type { ElementMap } from './element-map.ts';
import { elementId, hairpinSet, rangesSet, tableFamily, unallocatedChain } from './names.ts';

export interface Ruleset {
  readonly chains: ReadonlyMap<string, readonly string[]>;
  /** Elements by id; the value of a set's element is empty. */
  readonly elements: Pick<ElementMap<string>, 'get' | 'has' | 'keys'>;
}

/** Reads a script as `render` gives it. */
export function parseScript(script: string): Ruleset {
  const chains = new Map<string, string[]>();
  const elements = new Map<string, string>();
  for (const line of script.split('\n')) {
    const rule = /^add rule ip6? \S+ (\S+) (.*)$/.exec(line);
    const element = /^add element ip6? \S+ (\S+) \{ (.*) \}$/.exec(line);
    if (rule) chains.set(rule[1]!, [...(chains.get(rule[1]!) ?? []), rule[2]!]);
    else if (element)
      for (const item of element[2]!.split(', ')) {
        const at = item.indexOf(' : ');
        elements.set(elementId(element[1]!, at < 0 ? item : item.slice(0, at)), at < 0 ? '' : item.slice(at + 3));
      }
  }
  return { chains, elements };
}

const term = '(?:ip6? [sd]addr|meta l4proto|th dport|(?:tcp|udp|sctp) dport)';
const concatenation = `${term}(?: \\. ${term})*`;
const lookup = new RegExp(`^(${concatenation}) (vmap )?@(\\S+)`);
const balance = new RegExp(
  `^dnat ip6?(?: addr \\. port)? to (${concatenation}) \\. numgen random mod (\\d+) map @(\\S+)`,
);
const address = /^ip6? ([sd])addr (!= )?([0-9a-f:./]+)(?= |$)/;
const inInterface = /^iifname (!= )?"([^"]*)"/;
const plain: readonly (readonly [RegExp, (packet: TracedPacket) => boolean])[] = [
  [/^fib daddr type local/, (packet) => packet.destinationIsLocal],
  [/^fib saddr type local/, (packet) => packet.sourceIsLocal],
  [/^ct state new/, () => true],
  [/^ct state invalid/, () => false],
  // Walked before NAT: what was NATed is not walked through the guard.
  [/^ct status dnat/, () => false],
];

interface Walk {
  marked: boolean;
  endpoints: { address: string; port: number }[] | undefined;
  fate: 'rejected' | 'dropped' | undefined;
  decidedBy: TraceStep | undefined;
  readonly steps: TraceStep[];
}

const inRange = (range: string, ip: string): boolean => (range.includes('/') ? cidrContains(range, ip) : range === ip);

export function tracePacket(ruleset: Ruleset, given: TracedPacket): Trace {
  const packet = {
    ...given,
    source: parseIp(given.source)?.text ?? given.source,
    destination: parseIp(given.destination)?.text ?? given.destination,
  };
  const ip = tableFamily(packet.family);
  const walk: Walk = { marked: false, endpoints: undefined, fate: undefined, decidedBy: undefined, steps: [] };
  const decided = (): boolean => walk.endpoints !== undefined || walk.fate !== undefined;

  const fieldValue = (name: string): string => {
    if (name.endsWith('saddr')) return packet.source;
    if (name.endsWith('daddr')) return packet.destination;
    return name === 'meta l4proto' ? packet.protocol : String(packet.port);
  };
  const keyFor = (names: string): string => names.split(' . ').map(fieldValue).join(' . ');

  const holds = (set: string, names: string): boolean => {
    const key = keyFor(names);
    if (set !== rangesSet) return ruleset.elements.has(elementId(set, key));
    const start = `${rangesSet} ${key.slice(0, key.lastIndexOf(' . '))} . `;
    for (const id of ruleset.elements.keys())
      if (id.startsWith(start) && inRange(id.slice(start.length), packet.source)) return true;
    return false;
  };

  const compare = (text: string): { length: number; matches: boolean } | undefined => {
    const byAddress = address.exec(text);
    if (byAddress) {
      const [all, side, not, range] = byAddress;
      const matches = inRange(range!, side === 's' ? packet.source : packet.destination) !== (not !== undefined);
      return { length: all.length, matches };
    }
    const byInterface = inInterface.exec(text);
    if (byInterface) {
      const [all, not, name] = byInterface as unknown as [string, string | undefined, string];
      const same = name.endsWith('*') ? packet.inInterface.startsWith(name.slice(0, -1)) : packet.inInterface === name;
      return { length: all.length, matches: same !== (not !== undefined) };
    }
    const protocol = /^meta l4proto (tcp|udp|sctp)(?= |$)/.exec(text);
    if (protocol) return { length: protocol[0].length, matches: protocol[1] === packet.protocol };
    for (const [pattern, matches] of plain) {
      const found = pattern.exec(text);
      if (found) return { length: found[0].length, matches: matches(packet) };
    }
    return undefined;
  };

  // What follows is read from the left: matches, then at most one statement that decides.
  const runRule = (chain: string, rule: string): 'next' | 'return' | 'leave' => {
    const step: TraceStep = { chain, rule };
    for (let text = rule; text !== ''; ) {
      const found = lookup.exec(text);
      if (found) {
        const [all, names, isVerdict, set] = found as unknown as [string, string, string | undefined, string];
        if (isVerdict !== undefined) {
          const verdict = ruleset.elements.get(elementId(set, keyFor(names)));
          if (verdict === undefined) return 'next';
          walk.steps.push({ chain, rule: `${rule} → ${keyFor(names)} : ${verdict}` });
          return act(verdict, step);
        }
        if (!holds(set, names)) return 'next';
        text = text.slice(all.length).trimStart();
        continue;
      }
      const compared = compare(text);
      if (compared) {
        if (!compared.matches) return 'next';
        text = text.slice(compared.length).trimStart();
        continue;
      }
      if (text.startsWith('meta mark set')) {
        walk.marked = true;
        walk.steps.push(step);
        return 'next';
      }
      const drawn = balance.exec(text);
      if (drawn) return draw(step, drawn[1]!, Number(drawn[2]), drawn[3]!);
      // A client noted before goes where it went; a trace is of a new one.
      if (text.startsWith('dnat') || text.startsWith('update')) return 'next';
      if (/^(?:jump|goto) /.test(text) || /^(?:drop|reject|return|accept)\b/.test(text)) {
        walk.steps.push(step);
        return act(text, step);
      }
      return 'next';
    }
    return 'next';
  };

  const draw = (step: TraceStep, names: string, count: number, map: string): 'next' | 'leave' => {
    const drawnFrom = Array.from({ length: count }, (_, at) =>
      ruleset.elements.get(elementId(map, `${keyFor(names)} . ${at}`)),
    ).filter((value) => value !== undefined);
    if (drawnFrom.length === 0) return 'next';
    walk.steps.push(step);
    walk.decidedBy = step;
    walk.endpoints = drawnFrom.map((value) => {
      const [to = '', port = '0'] = value.split(' . ');
      return { address: to, port: Number(port) };
    });
    return 'leave';
  };

  const act = (verdict: string, step: TraceStep): 'next' | 'return' | 'leave' => {
    const [word, target] = verdict.split(' ');
    switch (word) {
      case 'drop':
        walk.fate = 'dropped';
        walk.decidedBy = step;
        return 'leave';
      case 'reject':
        walk.fate = 'rejected';
        walk.decidedBy = step;
        return 'leave';
      case 'jump':
        runChain(target ?? '');
        return decided() ? 'leave' : 'next';
      case 'goto':
        runChain(target ?? '');
        return decided() ? 'leave' : 'return';
      default:
        return 'return';
    }
  };

  const runChain = (name: string): void => {
    for (const rule of ruleset.chains.get(name) ?? []) {
      if (runRule(name, rule) !== 'next') return;
      if (decided()) return;
    }
  };

  const finish = (fate: Fate): Trace => ({
    steps: walk.steps,
    fate,
    decidedBy: walk.decidedBy,
    ...(walk.decidedBy?.chain === unallocatedChain ? { because: 'a cluster IP that no Service has' } : {}),
  });
  runChain(packet.sourceIsLocal ? 'nat-output' : 'nat-prerouting');
  if (!decided())
    runChain(packet.destinationIsLocal ? 'filter-input' : packet.sourceIsLocal ? 'filter-output' : 'filter-forward');
  if (walk.fate) return finish({ kind: walk.fate });
  if (!walk.endpoints) return finish({ kind: 'untouched' });
  const hairpinRule = `${ip} saddr . ${ip} daddr @${hairpinSet}`;
  const endpoints = walk.endpoints.map((endpoint): TracedEndpoint => {
    const loops =
      endpoint.address === packet.source &&
      ruleset.elements.has(elementId(hairpinSet, `${endpoint.address} . ${endpoint.address}`));
    if (loops) walk.steps.push({ chain: 'nat-postrouting', rule: `${hairpinRule} masquerade` });
    return { ...endpoint, masqueraded: walk.marked || loops };
  });
  return finish({ kind: 'endpoints', endpoints });
}
