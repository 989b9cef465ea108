// Plans the script that makes the kernel equal to what is wanted, starting from what was read from it. Pure, in slices.
import type { Slices } from '../../lib/slices.ts';
import type { ServicePortState } from '../model.ts';
import { countRules, diffShared, sameRules } from './diff.ts';
import type { Kernel } from './iptables-backend.ts';
import { canaryChain, isServiceChain, kubeletFirewallChain, servicesChain, sharedChains, type Table } from './names.ts';
import { fixedRules, jumps, kubeletJumps, nodePortTail } from './fixed.ts';
import type { RuleEnv, RuleText } from './rule-text.ts';
import { serviceRules } from './rules.ts';
import { createScript, type Script } from './script.ts';

export interface FullPlan {
  readonly script: Script;
  /** Our rules once the script has run. */
  readonly totals: Record<Table, number>;
}

const tables: readonly Table[] = ['nat', 'filter'];

export async function planFull(
  kernel: Kernel,
  states: readonly ServicePortState[],
  env: RuleEnv,
  slices: Slices,
): Promise<FullPlan> {
  const script = createScript();
  const totals: Record<Table, number> = { nat: 0, filter: 0 };
  const stale = new Set<string>();
  for (const chain of kernel.nat.chains.keys()) {
    if (isServiceChain(chain)) stale.add(chain);
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  const shared: Record<Table, Map<string, RuleText[]>> = {
    nat: new Map(sharedChains.nat.map((chain) => [chain, []])),
    filter: new Map(sharedChains.filter.map((chain) => [chain, []])),
  };
  const setIfOther = (table: Table, chain: string, rules: readonly RuleText[]): void => {
    const there = kernel[table].chains.get(chain);
    if (!there || !sameRules(there, rules)) script.setChain(table, chain, rules);
  };

  for (const table of tables)
    for (const [chain, rules] of fixedRules(env)[table]) {
      setIfOther(table, chain, rules);
      totals[table] += rules.length;
    }
  for (const state of states) {
    const rules = serviceRules(state, env);
    for (const [chain, list] of rules.chains) {
      setIfOther('nat', chain, list);
      stale.delete(chain);
    }
    for (const table of tables)
      for (const [chain, list] of rules.shared[table]) shared[table].get(chain)!.push(...list);
    const counts = countRules(rules);
    totals.nat += counts.nat;
    totals.filter += counts.filter;
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  for (const table of tables)
    for (const [chain, rules] of shared[table]) {
      const tail = table === 'nat' && chain === servicesChain ? nodePortTail(env) : [];
      diffShared(script, table, chain, kernel[table].chains.get(chain), rules, tail);
      totals[table] += tail.length;
    }
  for (const table of tables) if (!kernel[table].chains.has(canaryChain)) script.setChain(table, canaryChain, []);
  for (const chain of stale) {
    script.deleteChain('nat', chain);
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
