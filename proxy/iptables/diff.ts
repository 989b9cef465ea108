// What turns the rules that are in the kernel into those that are wanted, for one chain or one service port. Pure.
import type { RuleEnv, RuleText } from './rule-text.ts';
import { serviceRules, type ServiceRules } from './rules.ts';
import { sharedChains, type Table } from './names.ts';
import type { Script, Step } from './script.ts';
import type { ServicePortState } from '../model.ts';

export const noRules: ServiceRules = { chains: new Map(), shared: { nat: new Map(), filter: new Map() } };

export const sameRules = (a: readonly RuleText[], b: readonly RuleText[]): boolean =>
  a.length === b.length && a.every((rule, at) => rule === b[at]);

const without = (rules: readonly RuleText[], gone: readonly RuleText[]): readonly RuleText[] =>
  gone.length === 0 ? rules : rules.filter((rule) => !gone.includes(rule));

/** Rules of a service port with what they were made for, kept to know later what is in the kernel. */
export interface Applied {
  readonly state: ServicePortState;
  readonly comments: boolean;
}

export const renderApplied = (applied: Applied | undefined, env: RuleEnv): ServiceRules =>
  applied ? serviceRules(applied.state, { ...env, comments: applied.comments }) : noRules;

/** Counts rules by table. */
export const countRules = (rules: ServiceRules): Record<Table, number> => {
  const sum = (chains: ReadonlyMap<string, readonly RuleText[]>): number =>
    [...chains.values()].reduce((total, list) => total + list.length, 0);
  return { nat: sum(rules.chains) + sum(rules.shared.nat), filter: sum(rules.shared.filter) };
};

/** Writes the difference between what one service port had and what it is to have. */
export function diffService(script: Script, before: ServiceRules, after: ServiceRules): void {
  for (const [chain, rules] of after.chains) {
    const old = before.chains.get(chain);
    if (!old || !sameRules(old, rules)) script.setChain('nat', chain, rules);
  }
  for (const chain of before.chains.keys()) if (!after.chains.has(chain)) script.deleteChain('nat', chain);
  for (const table of ['nat', 'filter'] as const)
    for (const chain of sharedChains[table]) {
      const old = before.shared[table].get(chain) ?? [];
      const rules = after.shared[table].get(chain) ?? [];
      const [adds, removes]: [Step, Step] = table === 'nat' ? ['nat', 'nat'] : ['filter', 'filter-after'];
      // Put first, so that the jump to the node ports stays last.
      for (const rule of without(rules, old)) script.insert(adds, chain, rule);
      for (const rule of without(old, rules)) script.deleteRule(removes, chain, rule);
    }
}

// Up to so many rules are put in and taken out one by one; beyond, the chain is written anew.
const fewRules = 100;

/**
 * Makes a chain that service ports share hold `rules`, in any order, followed by `tail`. `kernel` is what it holds; undefined where
 * it is not there. Returns whether anything had to be written.
 */
export function diffShared(
  script: Script,
  table: Table,
  chain: string,
  kernel: readonly RuleText[] | undefined,
  rules: readonly RuleText[],
  tail: readonly RuleText[],
): boolean {
  const [adds, removes]: [Step, Step] = table === 'nat' ? ['nat', 'nat'] : ['filter', 'filter-after'];
  const rewrite = (): boolean => {
    script.setChain(adds, chain, [...rules, ...tail]);
    return true;
  };
  if (!kernel) return rewrite();
  const body = kernel.slice(0, kernel.length - tail.length);
  if (!sameRules(kernel.slice(body.length), tail) || kernel.length < tail.length) return rewrite();
  const left = new Map<RuleText, number>();
  for (const rule of body) left.set(rule, (left.get(rule) ?? 0) + 1);
  const missing: RuleText[] = [];
  for (const rule of rules) {
    const count = left.get(rule) ?? 0;
    if (count === 0) missing.push(rule);
    else if (count === 1) left.delete(rule);
    else left.set(rule, count - 1);
  }
  const surplus = [...left].flatMap(([rule, count]) => Array.from({ length: count }, () => rule));
  if (missing.length + surplus.length === 0) return false;
  // A surplus rule that is also part of the tail would take the tail's place.
  if (missing.length + surplus.length > fewRules || surplus.some((rule) => tail.includes(rule))) return rewrite();
  for (const rule of missing) script.insert(adds, chain, rule);
  for (const rule of surplus) script.deleteRule(removes, chain, rule);
  return true;
}
