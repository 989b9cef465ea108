// What is programmed for one service port: its rules in the kernel, with counters, beside those that are wanted.
import type { RuleLine, RulesDescription } from '../backend.ts';
import type { ServicePortState } from '../model.ts';
import { serviceChains, type Table } from './names.ts';
import type { RuleEnv, RuleText } from './rule-text.ts';
import { serviceRules } from './rules.ts';
import { parseCounted } from './saved.ts';
import type { IptablesTool } from './tool.ts';

const owned = /-j (KUBE-(?:SVC|SVL|EXT|FW|SEP)-[A-Z2-7]{16})/;

export async function describeService(
  tool: IptablesTool,
  state: ServicePortState,
  env: RuleEnv,
  signal: AbortSignal,
): Promise<RulesDescription> {
  const wanted = serviceRules(state, env);
  const desired: RuleLine[] = [];
  const add = (table: Table, chain: string, rules: readonly RuleText[]): void => {
    for (const rule of rules) desired.push({ table, chain, rule });
  };
  for (const table of ['nat', 'filter'] as const)
    for (const [chain, rules] of wanted.shared[table]) add(table, chain, rules);
  for (const [chain, rules] of wanted.chains) add('nat', chain, rules);

  const kernel: RuleLine[] = [];
  const list = async (table: Table, chain: string, keep: (rule: RuleText) => boolean): Promise<RuleText[]> => {
    const lines = (await tool.list(table, chain, signal)) ?? [];
    const kept = lines.map(parseCounted).filter(({ rule }) => keep(rule));
    for (const { rule, packets, bytes } of kept) kernel.push({ table, chain, rule, packets, bytes });
    return kept.map(({ rule }) => rule);
  };
  for (const table of ['nat', 'filter'] as const)
    for (const [chain, rules] of wanted.shared[table]) await list(table, chain, (rule) => rules.includes(rule));
  // Follows jumps in the kernel, so that endpoints are seen that are there and not wanted.
  const chains = new Set<string>([...Object.values(serviceChains(state.port)), ...wanted.chains.keys()]);
  for (const chain of chains)
    for (const rule of await list('nat', chain, () => true)) {
      const next = owned.exec(rule)?.[1];
      if (next) chains.add(next);
    }

  const idOf = ({ table, chain, rule }: RuleLine): string => `${table} ${chain} ${rule}`;
  const [there, want] = [new Set(kernel.map(idOf)), new Set(desired.map(idOf))];
  return {
    family: tool.family,
    key: state.port.key,
    desired,
    kernel,
    missing: desired.filter((line) => !there.has(idOf(line))),
    surplus: kernel.filter((line) => !want.has(idOf(line))),
  };
}
