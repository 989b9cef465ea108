// Which chains and maps must be made, written anew or taken away, so that elements can lead to them. Pure.
import { affinityRules, chainRules, parseChainName, printed, type RuleEnv } from './chains.ts';
import type { ServicePort, ServicePortKey } from '../model.ts';
import { affinityIdsOf, type Programmed } from './elements.ts';
import type { Listing } from './listing.ts';
import {
  affinityId,
  affinityMap,
  affinityPools,
  affinityPortMap,
  protocolName,
  recordChain,
  stickyChain,
  tableFamily,
  tableName,
} from './names.ts';
import { baseChains, declarations, fixedChains } from './skeleton.ts';

/** What of our chains and maps is in the kernel: rules as nft lists them, one string a chain. */
export interface Structure {
  readonly chains: Map<string, string>;
  readonly maps: Set<string>;
  hasTable: boolean;
}

export const emptyStructure = (): Structure => ({ chains: new Map(), maps: new Set(), hasTable: false });

const textOf = (rules: readonly string[]): string => rules.map(printed).join('\n');
const tableOf = (env: RuleEnv): string => `${tableFamily(env.family)} ${tableName}`;

export const structureOf = (listing: Listing | undefined): Structure =>
  listing
    ? {
        chains: new Map([...listing.chains].map(([name, rules]) => [name, textOf(rules)])),
        maps: new Set(listing.declarations.keys()),
        hasTable: true,
      }
    : emptyStructure();

/** A table made by another version, whose maps are other ones: it cannot be taken over. */
export function isForeign(listing: Listing, env: RuleEnv): boolean {
  for (const [name, { lines }] of declarations(env.family)) {
    const there = listing.declarations.get(name);
    if (there && there.join('\n') !== lines.join('\n')) return true;
  }
  return baseChains(env).some(({ name, hook }) => {
    const there = listing.hooks.get(name);
    const kind = hook.slice(0, hook.indexOf(' priority'));
    return listing.chains.has(name) && !there?.startsWith(kind);
  });
}

/** Lines and what they make of the structure. */
export interface StructurePlan {
  readonly lines: string[];
  readonly chains: Map<string, string | undefined>;
  readonly maps: Map<string, boolean>;
}

export const noStructure = (): StructurePlan => ({ lines: [], chains: new Map(), maps: new Map() });

export function commitStructure(structure: Structure, plan: StructurePlan): void {
  structure.hasTable = true;
  for (const [name, text] of plan.chains)
    if (text === undefined) structure.chains.delete(name);
    else structure.chains.set(name, text);
  for (const [name, there] of plan.maps)
    if (there) structure.maps.add(name);
    else structure.maps.delete(name);
}

function ensureChain(
  plan: StructurePlan,
  structure: Structure,
  env: RuleEnv,
  name: string,
  rules: readonly string[],
  hook?: string,
): void {
  const table = tableOf(env);
  const text = textOf(rules);
  const known = plan.chains.has(name) ? plan.chains.get(name) : structure.chains.get(name);
  if (known === text) return;
  plan.lines.push(`add chain ${table} ${name}${hook === undefined ? '' : ` { ${hook}; }`}`);
  if (known !== undefined && known !== '') plan.lines.push(`flush chain ${table} ${name}`);
  for (const rule of rules) plan.lines.push(`add rule ${table} ${name} ${rule}`);
  plan.chains.set(name, text);
}

const mapLine = (kind: 'map' | 'set', table: string, name: string, lines: readonly string[]): string =>
  `add ${kind} ${table} ${name} { ${lines.join('; ')}; }`;

/** The table, its maps and the chains without a hook. */
export function ensureFixed(plan: StructurePlan, structure: Structure, env: RuleEnv): void {
  const table = tableOf(env);
  if (!structure.hasTable) plan.lines.push(`add table ${table}`);
  for (const [name, { kind, lines }] of declarations(env.family)) {
    if (structure.maps.has(name)) continue;
    plan.lines.push(mapLine(kind, table, name, lines));
    plan.maps.set(name, true);
  }
  const fixed = fixedChains(env);
  // Chains lead to one another: all are made before the first rule.
  for (const name of fixed.keys()) if (!structure.chains.has(name)) plan.lines.push(`add chain ${table} ${name}`);
  for (const [name, rules] of fixed) ensureChain(plan, structure, env, name, rules);
}

export function ensureBase(plan: StructurePlan, structure: Structure, env: RuleEnv): void {
  for (const { name, hook, rules } of baseChains(env)) ensureChain(plan, structure, env, name, rules, hook);
}

const target = /^(?:goto|jump) (\S+)$/;

/** Chains that verdicts lead to. */
export function ensureTargets(
  plan: StructurePlan,
  structure: Structure,
  env: RuleEnv,
  verdicts: Iterable<string | undefined>,
): void {
  for (const verdict of new Set(verdicts)) {
    const spec = parseChainName(target.exec(verdict ?? '')?.[1] ?? '');
    if (spec) ensureChain(plan, structure, env, target.exec(verdict!)![1]!, chainRules(spec, env));
  }
}

/** Map and chains of session affinity, where the service port has it. */
export function ensureAffinity(plan: StructurePlan, structure: Structure, env: RuleEnv, programmed: Programmed): void {
  const { port } = programmed.state;
  for (const id of affinityIdsOf(port)) {
    const rules = affinityRules(id, protocolName(port.protocol), port.affinitySeconds, env.family);
    for (const [name, lines] of rules.maps) {
      if (structure.maps.has(name)) continue;
      plan.lines.push(mapLine('map', tableOf(env), name, lines));
      plan.maps.set(name, true);
    }
    for (const [name, text] of rules.chains) ensureChain(plan, structure, env, name, text);
  }
}

/** Takes away what a service port no longer has of it; to be run after the elements that lead to it are gone. */
export function dropOldAffinity(
  plan: StructurePlan,
  structure: Structure,
  env: RuleEnv,
  key: ServicePortKey,
  port: ServicePort | undefined,
): void {
  const keep = new Set(port ? affinityIdsOf(port) : []);
  for (const pool of affinityPools) {
    const id = affinityId(key, pool);
    if (!keep.has(id)) dropAffinity(plan, structure, env, id);
  }
}

function dropAffinity(plan: StructurePlan, structure: Structure, env: RuleEnv, id: string): void {
  const table = tableOf(env);
  for (const name of [stickyChain(id), recordChain(id)]) {
    if (!structure.chains.has(name)) continue;
    plan.lines.push(`flush chain ${table} ${name}`, `delete chain ${table} ${name}`);
    plan.chains.set(name, undefined);
  }
  for (const map of [affinityMap(id), affinityPortMap(id)]) {
    if (!structure.maps.has(map)) continue;
    plan.lines.push(`delete map ${table} ${map}`);
    plan.maps.set(map, false);
  }
}

/** Chains and affinity that nothing leads to any more. */
export function dropSurplus(
  plan: StructurePlan,
  structure: Structure,
  env: RuleEnv,
  used: ReadonlySet<string>,
  affinity: ReadonlySet<string>,
): void {
  const table = tableOf(env);
  for (const name of structure.chains.keys())
    if (parseChainName(name) && !used.has(name)) {
      plan.lines.push(`flush chain ${table} ${name}`, `delete chain ${table} ${name}`);
      plan.chains.set(name, undefined);
    }
  const ids = new Set(
    [...structure.chains.keys(), ...structure.maps].flatMap(
      (name) => /^(?:sticky|record|aff|afp)-([0-9a-f]{16})$/.exec(name)?.[1] ?? [],
    ),
  );
  for (const id of ids) if (!affinity.has(id)) dropAffinity(plan, structure, env, id);
}

export const targetOf = (verdict: string): string | undefined => target.exec(verdict)?.[1];
