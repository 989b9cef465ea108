// Plans the script that makes the kernel equal to what is wanted, starting from what was read from it. Pure, in slices.
import type { Slices } from '../../lib/slices.ts';
import type { ServicePortState } from '../model.ts';
import { countRules, diffShared, sameRules } from './diff.ts';
import { canaryChain, isServiceChain, kubeletFirewallChain, servicesChain, sharedChains, type Table } from './names.ts';
import { fixedRules, jumps, kubeletJumps, nodePortTail } from './fixed.ts';
import type { RuleEnv, RuleText } from './rule-text.ts';
import { serviceRules } from './rules.ts';
import type { SavedTables } from './saved.ts';
import { createScript, type Script } from './script.ts';

export interface FullPlan {
  readonly script: Script;
  /** Our rules once the script has run. */
  readonly totals: Record<Table, number>;
}

/** All rules that are wanted. To make their text takes as long as to compare it: it may be made while the kernel is read. */
export interface Wanted {
  readonly states: readonly ServicePortState[];
  readonly env: RuleEnv;
  readonly chains: ReadonlyMap<string, readonly RuleText[]>;
  readonly shared: Readonly<Record<Table, ReadonlyMap<string, readonly RuleText[]>>>;
  readonly totals: Readonly<Record<Table, number>>;
}

const tables: readonly Table[] = ['nat', 'filter'];

export async function renderWanted(states: readonly ServicePortState[], env: RuleEnv, slices: Slices): Promise<Wanted> {
  const chains = new Map<string, readonly RuleText[]>();
  const totals: Record<Table, number> = { nat: 0, filter: 0 };
  const shared: Record<Table, Map<string, RuleText[]>> = {
    nat: new Map(sharedChains.nat.map((chain) => [chain, []])),
    filter: new Map(sharedChains.filter.map((chain) => [chain, []])),
  };
  for (const state of states) {
    const rules = serviceRules(state, env);
    for (const [chain, list] of rules.chains) chains.set(chain, list);
    for (const table of tables)
      for (const [chain, list] of rules.shared[table]) shared[table].get(chain)!.push(...list);
    const counts = countRules(rules);
    totals.nat += counts.nat;
    totals.filter += counts.filter;
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  return { states, env, chains, shared, totals };
}

export async function planFull(kernel: SavedTables, wanted: Wanted, slices: Slices): Promise<FullPlan> {
  const { env } = wanted;
  const script = createScript();
  const totals: Record<Table, number> = { ...wanted.totals };
  const setIfOther = (table: Table, chain: string, rules: readonly RuleText[]): void => {
    const there = kernel[table].chains.get(chain);
    if (!there || !sameRules(there, rules)) script.setChain(table, chain, rules);
  };

  for (const table of tables)
    for (const [chain, rules] of fixedRules(env)[table]) {
      setIfOther(table, chain, rules);
      totals[table] += rules.length;
    }
  for (const [chain, rules] of wanted.chains) {
    setIfOther('nat', chain, rules);
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  for (const table of tables)
    for (const [chain, rules] of wanted.shared[table]) {
      const tail = table === 'nat' && chain === servicesChain ? nodePortTail(env) : [];
      diffShared(script, table, chain, kernel[table].chains.get(chain), rules, tail);
      totals[table] += tail.length;
    }
  for (const table of tables) if (!kernel[table].chains.has(canaryChain)) script.setChain(table, canaryChain, []);
  for (const chain of kernel.nat.chains.keys()) {
    if (isServiceChain(chain) && !wanted.chains.has(chain)) script.deleteChain('nat', chain);
    const pause = slices.giveWay();
    if (pause) await pause;
  }

  const wantsKubeletChain = fixedRules(env).filter.has(kubeletFirewallChain);
  for (const { table, from, rule } of [...jumps, ...(wantsKubeletChain ? kubeletJumps : [])]) {
    if (!kernel[table].jumps.get(from)?.includes(rule)) script.insert(table, from, rule);
    totals[table]++;
  }
  return { script, totals };
}
