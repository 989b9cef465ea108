// Notices that others took our iptables rules away: through nft monitor where iptables writes to nf_tables, else by looking for canaries.
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { ForeignChange } from '../backend.ts';
import type { NftMonitor } from '../nft-monitor.ts';
import { canaryChain, postroutingChain, servicesChain } from './names.ts';
import type { IptablesTool } from './tool.ts';

export interface ForeignWatchDeps {
  readonly tool: IptablesTool;
  readonly clock: Clock;
  readonly log: Log;
  readonly monitor: NftMonitor;
}

/** What an event of nft monitor means for our rules of one family: only what takes something away. */
export function interestOf(family: 'ip' | 'ip6'): (line: string) => string | undefined {
  const ours = new RegExp(
    `^delete (?:rule|chain) ${family} (?:nat|filter) (?:KUBE-(?!KUBELET|FIREWALL)|PREROUTING|POSTROUTING|INPUT|OUTPUT|FORWARD)`,
  );
  const table = new RegExp(`^delete table ${family} (?:nat|filter)\\b`);
  return (line) => (line.startsWith('delete ') && (ours.test(line) || table.test(line)) ? line : undefined);
}

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
export async function ensureCanary(tool: IptablesTool, signal: AbortSignal): Promise<void> {
  if ((await tool.list('mangle', canaryChain, signal)) === undefined)
    await tool.restore(`*mangle\n:${canaryChain} - [0:0]\nCOMMIT\n`, signal);
}

export function createForeignWatch(
  deps: ForeignWatchDeps,
): (onChange: (change: ForeignChange) => void, signal: AbortSignal) => Promise<void> {
  const { tool, clock, log, monitor } = deps;
  const interest = interestOf(tool.family === 'IPv4' ? 'ip' : 'ip6');
  return async (onChange, signal) => {
    const unwatch = tool.variant === 'nft' ? monitor.watch(interest, onChange) : () => undefined;
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
