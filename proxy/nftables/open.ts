// Opens the nftables backend with this host's tool.
import type { Clock } from '../../lib/clock.ts';
import type { RulesBackend } from '../backend.ts';
import type { IpFamily } from '../model.ts';
import type { NftMonitor } from '../nft-monitor.ts';
import { createForeignWatch } from './foreign.ts';
import { createNftablesBackend } from './nftables-backend.ts';
import { createNftTool, type Exec } from './tool.ts';

export interface OpenNftablesDeps {
  readonly exec: Exec;
  readonly clock: Clock;
  readonly monitor: NftMonitor;
}

export function openNftables(family: IpFamily, { exec, clock, monitor }: OpenNftablesDeps): RulesBackend {
  const tool = createNftTool(exec);
  return createNftablesBackend({
    tool,
    family,
    clock,
    watchForeign: createForeignWatch({ tool, family, clock, monitor }),
  });
}
