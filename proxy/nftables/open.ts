// Opens the nftables backend with this host's tool.
import type { Clock } from '../../lib/clock.ts';
import type { RulesBackend } from '../backend.ts';
import type { IpFamily } from '../model.ts';
import type { NftMonitor } from '../nft-monitor.ts';
import { createForeignWatch } from './foreign.ts';
import { createNftablesBackend } from './nftables-backend.ts';
import { type Converse, createNftTool, type Exec } from './tool.ts';

export interface OpenNftablesDeps {
  readonly exec: Exec;
  readonly converse?: Converse | undefined;
  readonly clock: Clock;
  readonly monitor: NftMonitor;
}

export function openNftables(family: IpFamily, { exec, converse, clock, monitor }: OpenNftablesDeps): RulesBackend {
  const tool = createNftTool({ exec, converse });
  return createNftablesBackend({
    tool,
    family,
    clock,
    watchForeign: createForeignWatch({ tool, family, clock, monitor }),
  });
}
