// Notices that others took our nftables rules away: through nft monitor, else by looking whether the table is there.
import type { Clock } from '../../lib/clock.ts';
import type { ForeignChange } from '../backend.ts';
import type { IpFamily } from '../model.ts';
import type { NftMonitor } from '../nft-monitor.ts';
import { tableFamily, tableName } from './names.ts';
import type { NftTool } from './tool.ts';

export interface ForeignWatchDeps {
  readonly tool: NftTool;
  readonly family: IpFamily;
  readonly clock: Clock;
  readonly monitor: NftMonitor;
}

/** What an event of nft monitor means for our table: anything but clients that are noted and forgotten. */
export function interestOf(family: IpFamily): (line: string) => string | undefined {
  const ours = new RegExp(`^(?:add|delete) \\S+ ${tableFamily(family)} ${tableName}(?: (?!af[fp]-)|$)`);
  const table = new RegExp(`^(?:add|delete) table ${tableFamily(family)} ${tableName}\\b`);
  return (line) => (ours.test(line) || table.test(line) ? line.slice(0, 200) : undefined);
}

const pollMs = 5_000;

export function createForeignWatch(
  deps: ForeignWatchDeps,
): (onChange: (change: ForeignChange) => void, signal: AbortSignal) => Promise<void> {
  const { tool, family, clock, monitor } = deps;
  return async (onChange, signal) => {
    const unwatch = monitor.watch(interestOf(family), onChange);
    try {
      while (!signal.aborted) {
        await clock.sleep(pollMs, signal).catch(() => undefined);
        if (signal.aborted || monitor.running) continue;
        const there = await tool
          .list(['chain', tableFamily(family), tableName, 'services'], signal)
          .catch(() => undefined);
        if (there === undefined && !signal.aborted) onChange({ what: `table ${tableName} of ${family} is gone` });
      }
    } finally {
      unwatch();
    }
  };
}
