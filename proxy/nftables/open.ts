// Opens the nftables backend with this host's tool.
import { join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import type { RulesBackend } from '../backend.ts';
import type { IpFamily } from '../model.ts';
import type { NftMonitor } from '../nft-monitor.ts';
import { createForeignWatch } from './foreign.ts';
import { createNftablesBackend } from './nftables-backend.ts';
import type { Converse } from '../staying-tool.ts';
import { createNftTool, type Exec } from './tool.ts';

export interface OpenNftablesDeps {
  readonly exec: Exec;
  readonly converse?: Converse | undefined;
  readonly clock: Clock;
  readonly monitor: NftMonitor;
  /** A folder where a backend that stops leaves what it knows for the next one. */
  readonly stateDir?: string | undefined;
}

export function openNftables(
  family: IpFamily,
  { exec, converse, clock, monitor, stateDir }: OpenNftablesDeps,
): RulesBackend {
  const tool = createNftTool({ exec, converse });
  return createNftablesBackend({
    tool,
    family,
    clock,
    memoryFile: stateDir === undefined ? undefined : join(stateDir, `nftables-${family.toLowerCase()}.state`),
    watchForeign: createForeignWatch({ tool, family, clock, monitor }),
  });
}
