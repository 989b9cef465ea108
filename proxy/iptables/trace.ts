// Walks a packet over kube-proxy's chains, as iptables-save prints them or as they are given to iptables-restore: the rules this backend
// writes, and no others. Pure.
import { cidrContains, parseIp } from '../addresses.ts';
import type { Trace, TracedEndpoint, TracedPacket, TraceStep } from '../trace.ts';

export interface IptablesRuleset {
  /** Rules by table and chain: `nat KUBE-SERVICES`. */
  readonly chains: ReadonlyMap<string, readonly string[]>;
}

export function parseIptables(text: string): IptablesRuleset {
  const chains = new Map<string, string[]>();
  let table = '';
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1).trim();
    // Each insertion comes before those that are there.
    const [, verb, chain, rule] = /^-([AI]) (\S+)(?: 1)? (.*)$/.exec(line) ?? [];
    if (verb === undefined || chain === undefined || rule === undefined) continue;
    const key = `${table} ${chain}`;
    const rules = chains.get(key) ?? [];
    if (verb === 'I') rules.unshift(rule);
    else rules.push(rule);
    chains.set(key, rules);
  }
  return { chains };
}

interface Walk {
  marked: boolean;
  readonly endpoints: TracedEndpoint[];
  fate: 'rejected' | 'dropped' | undefined;
  decidedBy: TraceStep | undefined;
  readonly steps: TraceStep[];
}

const addressIn = (range: string, ip: string): boolean =>
  range.includes('/') ? cidrContains(range, ip) : (parseIp(range)?.text ?? range) === ip;

const words = (rule: string): string[] => rule.match(/"[^"]*"|\S+/g) ?? [];

/** Whether the rule's matches hold; `random`: it is one of several that are drawn from. */
function matches(rule: readonly string[], packet: TracedPacket, marked: boolean): { holds: boolean; random: boolean } {
  let not = false;
  let random = false;
  for (let at = 0; at < rule.length && rule[at] !== '-j' && rule[at] !== '-g'; at++) {
    const word = rule[at]!;
    if (word === '!') {
      not = true;
      continue;
    }
    const value = rule[at + 1] ?? '';
    const holds = word === '--mark' ? marked : matchOne(word, value, packet);
    if (word === '--mode') random = true;
    if (holds !== undefined && holds === not) return { holds: false, random };
    // What follows a `!` is one match.
    if (word.startsWith('-')) {
      not = word === '-m' ? not : false;
      at++;
    }
  }
  return { holds: true, random };
}

function matchOne(word: string, value: string, packet: TracedPacket): boolean | undefined {
  switch (word) {
    case '-s':
      return addressIn(value, packet.source);
    case '-d':
      return addressIn(value, packet.destination);
    case '-i':
      return value.endsWith('+') ? packet.inInterface.startsWith(value.slice(0, -1)) : packet.inInterface === value;
    case '-p':
      return value === packet.protocol;
    case '--dport':
      return Number(value) === packet.port;
    case '--src-type':
      return packet.sourceIsLocal;
    case '--dst-type':
      return packet.destinationIsLocal;
    case '--ctstate':
      return value.split(',').includes('NEW');
    // A client noted before goes where it went; a trace is of a new one.
    case '--rcheck':
      return false;
    default:
      return undefined;
  }
}

export function tracePacketIptables(ruleset: IptablesRuleset, given: TracedPacket): Trace {
  const packet = {
    ...given,
    source: parseIp(given.source)?.text ?? given.source,
    destination: parseIp(given.destination)?.text ?? given.destination,
  };
  const walk: Walk = { marked: false, endpoints: [], fate: undefined, decidedBy: undefined, steps: [] };

  const dnat = (step: TraceStep, to: string): void => {
    const at = to.lastIndexOf(':');
    const address = to.slice(0, at).replace(/^\[|\]$/g, '');
    walk.endpoints.push({ address, port: Number(to.slice(at + 1)), masqueraded: walk.marked });
    walk.decidedBy = step;
  };

  // True where nothing comes after it for this packet.
  const run = (table: string, chain: string): boolean => {
    for (const text of ruleset.chains.get(`${table} ${chain}`) ?? []) {
      const rule = words(text);
      const { holds, random } = matches(rule, packet, walk.marked);
      if (!holds) continue;
      const jump = rule.findIndex((word) => word === '-j' || word === '-g');
      const target = rule[jump + 1];
      if (jump < 0 || target === undefined) continue;
      const step: TraceStep = { chain, rule: text };
      walk.steps.push(step);
      if (target === 'DROP' || target === 'REJECT') {
        walk.fate = target === 'DROP' ? 'dropped' : 'rejected';
        walk.decidedBy = step;
        return true;
      }
      if (target === 'DNAT') {
        dnat(step, rule[rule.indexOf('--to-destination') + 1] ?? '');
        return true;
      }
      if (target === 'ACCEPT') return true;
      if (target === 'RETURN') return false;
      if (target === 'KUBE-MARK-MASQ') {
        walk.marked = true;
        continue;
      }
      if (!target.startsWith('KUBE-')) continue;
      const marked = walk.marked;
      const ended = run(table, target);
      // Another one may be drawn as well: as if this one had not been.
      if (random && ended) walk.marked = marked;
      else if (ended) return true;
    }
    return false;
  };

  run('nat', packet.sourceIsLocal ? 'OUTPUT' : 'PREROUTING');
  if (walk.endpoints.length > 0)
    return { steps: walk.steps, fate: { kind: 'endpoints', endpoints: walk.endpoints }, decidedBy: walk.decidedBy };
  run('filter', packet.sourceIsLocal ? 'OUTPUT' : packet.destinationIsLocal ? 'INPUT' : 'FORWARD');
  return {
    steps: walk.steps,
    fate: walk.fate ? { kind: walk.fate } : { kind: 'untouched' },
    decidedBy: walk.decidedBy,
  };
}
