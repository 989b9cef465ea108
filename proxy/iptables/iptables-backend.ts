// The iptables backend: kube-proxy's chains, written by iptables-restore --noflush. It knows what it wrote, so that a change costs only
// the chains it touches; what it did not write itself it reads from the kernel first, and takes over by content.
import type { Clock } from '../../lib/clock.ts';
import { createSlices } from '../../lib/slices.ts';
import type { ApplyResult, Changes, ForeignChange, RulesBackend } from '../backend.ts';
import { isRejected } from '../backend.ts';
import { createHeldFacts } from '../held-facts.ts';
import type { ServicePortKey, ServicePortState } from '../model.ts';
import type { DesiredState } from '../state.ts';
import { cleanupIptables } from './cleanup.ts';
import { describeService } from './describe.ts';
import { type Applied, countRules, diffService, noRules, renderApplied } from './diff.ts';
import { putCanary } from './foreign.ts';
import { planFull, renderWanted, type Wanted } from './full.ts';
import { goneFronts } from './gone.ts';
import { canaryChain, type Table } from './names.ts';
import { readPacketCounts } from './packet-counts.ts';
import type { RuleEnv } from './rule-text.ts';
import { serviceRules, type ServiceRules } from './rules.ts';
import { emptyTables, parseSaved, type SavedTables } from './saved.ts';
import { createScript, type Script } from './script.ts';
import type { IptablesTool } from './tool.ts';

/** Above so many endpoints, rules carry no comments about them, as in kube-proxy. */
const largeClusterEndpoints = 1000;

export interface IptablesBackendDeps {
  readonly tool: IptablesTool;
  readonly clock: Clock;
  /** Tells of foreign changes; see foreign.ts. */
  watchForeign(onChange: (change: ForeignChange) => void, signal: AbortSignal): Promise<void>;
}

export function createIptablesBackend(deps: IptablesBackendDeps): RulesBackend {
  const { tool, clock } = deps;
  const facts = createHeldFacts();
  // What is in the kernel for each service port, by what was written last. Right only while `kernel` is undefined.
  let applied = new Map<ServicePortKey, Applied>();
  // What was read from the kernel and not yet made right by a full apply.
  let kernel: SavedTables | undefined;
  let prepared: Wanted | undefined;
  let totals: Record<Table, number> = { nat: 0, filter: 0 };

  const envFor = (desired: DesiredState | undefined): RuleEnv => {
    return {
      ...facts.now(),
      family: tool.family,
      comments: desired === undefined || desired.endpointCount() <= largeClusterEndpoints,
      randomFully: tool.randomFully,
    };
  };

  const adopt = async (signal: AbortSignal): Promise<void> => {
    kernel = await parseSaved(await tool.save(signal), createSlices(clock));
  };

  const write = async (script: Script, signal: AbortSignal): Promise<void> => {
    if (script.isEmpty) return;
    try {
      await tool.restore(await script.input(createSlices(clock)), signal);
    } catch (error) {
      // A foreign rule may still jump to a chain that is to go: better left behind empty than nothing done.
      if (!isRejected(error) || !script.deletesChains) throw error;
      const gentler = await script.input(createSlices(clock), { keepChains: true });
      await tool.restore(gentler, signal).catch(() => {
        throw error;
      });
    }
  };

  const resultOf = (script: Script): ApplyResult => {
    const { written } = script;
    return {
      written: written.nat + written.filter,
      total: totals.nat + totals.filter,
      byTable: {
        nat: { written: written.nat, total: totals.nat },
        filter: { written: written.filter, total: totals.filter },
      },
    };
  };

  const wantedFor = async (states: readonly ServicePortState[], env: RuleEnv): Promise<Wanted> =>
    prepared?.states === states && JSON.stringify(prepared.env) === JSON.stringify(env)
      ? prepared
      : renderWanted(states, env, createSlices(clock));

  const applyFull = async (changes: Changes, env: RuleEnv, signal: AbortSignal): Promise<ApplyResult> => {
    if (!kernel) await adopt(signal);
    const wanted = await wantedFor(changes.upserts, env);
    prepared = undefined;
    const gone = goneFronts(kernel!, changes.upserts);
    const plan = await planFull(kernel!, wanted, createSlices(clock));
    await write(plan.script, signal);
    if (!kernel!.mangle.chains.has(canaryChain)) await putCanary(tool, signal);
    kernel = undefined;
    totals = plan.totals;
    applied = new Map(changes.upserts.map((state) => [state.port.key, { state, comments: env.comments }]));
    return { ...resultOf(plan.script), gone };
  };

  // While a full apply is still to come, what the kernel has is known by reading, not by memory.
  const fromKernel = (known: SavedTables, after: ServiceRules): ServiceRules => {
    const shared = (table: Table): Map<string, string[]> => {
      const chains = new Map<string, string[]>();
      for (const [chain, rules] of after.shared[table]) {
        const there = new Set(known[table].chains.get(chain));
        chains.set(
          chain,
          rules.filter((rule) => there.has(rule)),
        );
      }
      return chains;
    };
    const chains = new Map(
      [...after.chains.keys()].flatMap((chain) => {
        const rules = known.nat.chains.get(chain);
        return rules ? [[chain, rules] as const] : [];
      }),
    );
    return { chains, shared: { nat: shared('nat'), filter: shared('filter') } };
  };

  const applyPart = async (changes: Changes, env: RuleEnv, signal: AbortSignal): Promise<ApplyResult> => {
    const script = createScript();
    const next = new Map<ServicePortKey, Applied | undefined>();
    const delta = { nat: 0, filter: 0 };
    const slices = createSlices(clock);
    const step = async (key: ServicePortKey, wanted: Applied | undefined): Promise<void> => {
      const after = wanted ? serviceRules(wanted.state, env) : noRules;
      const before = kernel ? fromKernel(kernel, after) : renderApplied(applied.get(key), env);
      diffService(script, before, after);
      const [had, has] = [countRules(before), countRules(after)];
      delta.nat += has.nat - had.nat;
      delta.filter += has.filter - had.filter;
      next.set(key, wanted);
      const pause = slices.giveWay();
      if (pause) await pause;
    };
    for (const state of changes.upserts) await step(state.port.key, { state, comments: env.comments });
    for (const key of changes.removals) if (!kernel) await step(key, undefined);
    await write(script, signal);
    for (const [key, wanted] of next)
      if (wanted) applied.set(key, wanted);
      else applied.delete(key);
    totals = { nat: totals.nat + delta.nat, filter: totals.filter + delta.filter };
    // What was read is no longer what is there: read again before the full apply that is to come.
    if (kernel && !script.isEmpty) await adopt(signal);
    return resultOf(script);
  };

  return {
    kind: 'iptables',
    family: tool.family,
    configure: facts.configure,
    adopt,
    async prepare(states, desired) {
      prepared = await wantedFor(states, envFor(desired));
    },
    apply: (changes, desired, { signal, full }) =>
      full ? applyFull(changes, envFor(desired), signal) : applyPart(changes, envFor(desired), signal),
    async watchForeign(onChange, signal) {
      tool.begin(signal);
      await deps.watchForeign(onChange, signal);
      tool.rest();
    },
    describe: (state, signal) =>
      describeService(
        tool,
        state,
        { ...envFor(undefined), comments: applied.get(state.port.key)?.comments ?? true },
        signal,
      ),
    async render(desired) {
      const states = [...desired.keys()].flatMap((key) => desired.get(key) ?? []);
      const slices = createSlices(clock);
      const { script } = await planFull(emptyTables(), await renderWanted(states, envFor(desired), slices), slices);
      return script.text();
    },
    packetCounts: (signal) => readPacketCounts(tool, signal),
    async cleanup(signal) {
      await cleanupIptables(tool, clock, signal);
      tool.rest();
      applied = new Map();
      kernel = undefined;
      totals = { nat: 0, filter: 0 };
    },
  };
}
