// Collects what one call of iptables-restore --noflush is to do, and writes it down. Pure.
import type { Slices } from '../../lib/slices.ts';
import type { Table } from './names.ts';
import type { RuleText } from './rule-text.ts';

interface Section {
  readonly chains: string[];
  readonly rules: string[];
  readonly deletions: string[];
}

/** The steps run in this order, each a transaction of its own; see `Script`. */
const stepOrder = ['filter', 'nat', 'filter-after'] as const;
export type Step = (typeof stepOrder)[number];

/**
 * Rejections are put up before the nat rules go, and taken down after the nat rules came: a packet that arrives between the two
 * transactions meets one or the other, never neither.
 */
export interface Script {
  /** Creates or empties the chain and fills it with these rules. */
  setChain(step: Step, chain: string, rules: readonly RuleText[]): void;
  /** Empties and removes the chain, after everything else. */
  deleteChain(step: Step, chain: string): void;
  insert(step: Step, chain: string, rule: RuleText): void;
  deleteRule(step: Step, chain: string, rule: RuleText): void;
  /** Lines about rules and chains that went in so far, by table. */
  readonly written: Readonly<Record<Table, number>>;
  readonly deletesChains: boolean;
  readonly isEmpty: boolean;
  /** The input of iptables-restore; without `-X` lines where chains may be referred to by others. */
  text(options?: ScriptOptions): string;
  /** The same, made in slices: bytes where it is long. */
  input(slices: Slices, options?: ScriptOptions): Promise<string | Uint8Array>;
}

export interface ScriptOptions {
  readonly keepChains?: boolean;
}

/** Lines that are put together in one go. */
const linesAtOnce = 1_000;
/** What is longer is turned into bytes, piece by piece; what is shorter can be given to a tool that stays. In characters. */
const longestText = 64 * 1024;

const tableOf = (step: Step): Table => (step === 'nat' ? 'nat' : 'filter');

export function createScript(): Script {
  const newSection = (): Section => ({ chains: [], rules: [], deletions: [] });
  const sections: Record<Step, Section> = { filter: newSection(), nat: newSection(), 'filter-after': newSection() };
  const written = { nat: 0, filter: 0 };
  let deletesChains = false;
  const isUsed = ({ chains, rules, deletions }: Section): boolean =>
    chains.length + rules.length + deletions.length > 0;

  function* parts({ keepChains = false }: ScriptOptions = {}): Generator<readonly string[]> {
    for (const step of stepOrder) {
      const section = sections[step];
      if (!isUsed(section)) continue;
      yield [`*${tableOf(step)}\n`];
      yield section.chains;
      yield section.rules;
      if (!keepChains) yield section.deletions;
      yield ['COMMIT\n'];
    }
  }

  return {
    setChain(step, chain, rules) {
      sections[step].chains.push(`:${chain} - [0:0]\n`);
      for (const rule of rules) sections[step].rules.push(`-A ${chain} ${rule}\n`);
      written[tableOf(step)] += rules.length;
    },
    deleteChain(step, chain) {
      sections[step].chains.push(`:${chain} - [0:0]\n`);
      sections[step].deletions.push(`-X ${chain}\n`);
      written[tableOf(step)]++;
      deletesChains = true;
    },
    insert(step, chain, rule) {
      sections[step].rules.push(`-I ${chain} ${rule}\n`);
      written[tableOf(step)]++;
    },
    deleteRule(step, chain, rule) {
      sections[step].rules.push(`-D ${chain} ${rule}\n`);
      written[tableOf(step)]++;
    },
    written,
    get deletesChains() {
      return deletesChains;
    },
    get isEmpty() {
      return !stepOrder.some((step) => isUsed(sections[step]));
    },
    text: (options) => [...parts(options)].map((lines) => lines.join('')).join(''),
    async input(slices, options) {
      const bytes: Uint8Array[] = [];
      let text = '';
      for (const lines of parts(options))
        for (let at = 0; at < lines.length; at += linesAtOnce) {
          text += lines.slice(at, at + linesAtOnce).join('');
          if (text.length < longestText) continue;
          bytes.push(Buffer.from(text));
          text = '';
          const pause = slices.giveWay();
          if (pause) await pause;
        }
      return bytes.length === 0 ? text : Buffer.concat([...bytes, Buffer.from(text)]);
    },
  };
}
