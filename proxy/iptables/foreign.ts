// Notices that others took our iptables rules away: through nft monitor where iptables writes to nf_tables, else by looking for canaries.
import type { Clock, Timer } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { ForeignChange } from '../backend.ts';
import type { NftMonitor } from '../nft-monitor.ts';
import { jumps } from './fixed.ts';
import { canaryChain, postroutingChain, servicesChain } from './names.ts';
import { parseCounted } from './saved.ts';
import type { IptablesTool } from './tool.ts';

export interface ForeignWatchDeps {
  readonly tool: IptablesTool;
  readonly clock: Clock;
  readonly log: Log;
  readonly monitor: NftMonitor;
}

/**
 * What an event of nft monitor means for our rules of one family: only what takes something away. Of the chains where others have rules too,
 * CNI plugins' for each pod among them, an event does not say whose rule went: see `builtInOf`.
 */
export function interestOf(family: 'ip' | 'ip6'): (line: string) => string | undefined {
  const ours = new RegExp(`^delete (?:rule|chain) ${family} (?:nat|filter) (?:KUBE-(?!KUBELET|FIREWALL)|INPUT|OUTPUT)`);
  const table = new RegExp(
    `^delete (?:table ${family} (?:nat|filter)|chain ${family} (?:nat|filter) (?:PREROUTING|POSTROUTING|FORWARD))\\b`,
  );
  return (line) =>
    line.startsWith('delete ') && !builtInOf(family)(line) && (ours.test(line) || table.test(line)) ? line : undefined;
}

/** Somebody's rule went out of a built-in chain that only holds jumps to ours: whether it was one of them is quickly looked up. */
export function builtInOf(family: 'ip' | 'ip6'): (line: string) => string | undefined {
  const rule = new RegExp(`^delete rule ${family} (?:nat (?:PREROUTING|POSTROUTING|OUTPUT)|filter FORWARD)\\b`);
  return (line) => (rule.test(line) ? line : undefined);
}

/** The built-in chain whose jumps to ours are not all there; undefined where they are. */
async function missingJump(
  tool: IptablesTool,
  chains: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<string | undefined> {
  for (const name of chains) {
    const [table = '', chain = ''] = name.split(' ');
    const rules = (await tool.list(table, chain, signal))?.map((line) => parseCounted(line).rule) ?? [];
    for (const jump of jumps)
      if (jump.table === table && jump.from === chain && !rules.includes(jump.rule))
        return `the jump from ${chain} of ${table} to ${jump.to} is gone`;
  }
  return undefined;
}

// Events come in droves.
const lookAfterMs = 50;

const pollMs = 5_000;
const canaries = [
  ['mangle', canaryChain],
  ['nat', canaryChain],
  ['filter', canaryChain],
  // Emptied chains keep their name: these must hold rules.
  ['nat', postroutingChain],
] as const;

async function missingCanary(tool: IptablesTool, signal: AbortSignal): Promise<string | undefined> {
  for (const [table, chain] of canaries) {
    const rules = await tool.list(table, chain, signal);
    if (!rules || (chain === postroutingChain && rules.length === 0))
      return `chain ${chain} of ${table} is gone or empty`;
  }
  const jumps = await tool.list('nat', 'OUTPUT', signal);
  return jumps?.some((rule) => rule.endsWith(`-j ${servicesChain}`)) ? undefined : 'the jumps to our chains are gone';
}

/** Puts an empty chain into the mangle table; that it is there says that nobody flushed everything. */
export const putCanary = (tool: IptablesTool, signal: AbortSignal): Promise<void> =>
  tool.restore(`*mangle\n:${canaryChain} - [0:0]\nCOMMIT\n`, signal);

export function createForeignWatch(
  deps: ForeignWatchDeps,
): (onChange: (change: ForeignChange) => void, signal: AbortSignal) => Promise<void> {
  const { tool, clock, log, monitor } = deps;
  const interest = interestOf(tool.family === 'IPv4' ? 'ip' : 'ip6');
  const watchMonitor = (onChange: (change: ForeignChange) => void, signal: AbortSignal): (() => void) => {
    const chains = new Set<string>();
    let timer: Timer | undefined;
    const look = async (): Promise<void> => {
      timer = undefined;
      const taken = new Set(chains);
      chains.clear();
      try {
        const what = await missingJump(tool, taken, signal);
        if (what !== undefined) onChange({ what });
      } catch (error) {
        if (!signal.aborted) onChange({ what: `rules of ${[...taken].join(', ')} went: ${String(error)}` });
      }
    };
    const unwatchOurs = monitor.watch(interest, onChange);
    const unwatchBuiltIn = monitor.watch(builtInOf(tool.family === 'IPv4' ? 'ip' : 'ip6'), ({ what }) => {
      const [, , , table, chain] = what.split(' ');
      // What may have been missed is told to the other watch too.
      if (!what.startsWith('delete rule ') || signal.aborted) return;
      chains.add(`${table} ${chain}`);
      timer ??= clock.setTimer(lookAfterMs, () => void look());
    });
    return () => {
      unwatchOurs();
      unwatchBuiltIn();
      timer?.cancel();
    };
  };
  return async (onChange, signal) => {
    const unwatch = tool.variant === 'nft' ? watchMonitor(onChange, signal) : () => undefined;
    try {
      while (!signal.aborted) {
        await clock.sleep(pollMs, signal).catch(() => undefined);
        if (signal.aborted || (tool.variant === 'nft' && monitor.running)) continue;
        try {
          const what = await missingCanary(tool, signal);
          if (what !== undefined) onChange({ what });
        } catch (error) {
          if (!signal.aborted) log.debug('could not look for our chains; tried again', { family: tool.family, error });
        }
      }
    } finally {
      unwatch();
    }
  };
}
