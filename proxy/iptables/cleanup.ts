// Removes what the iptables backend put into the kernel, ours or a kube-proxy's, and nothing else.
import type { Clock } from '../../lib/clock.ts';
import { createSlices } from '../../lib/slices.ts';
import {
  canaryChain,
  externalServicesChain,
  fixedChains,
  ipvsChains,
  isServiceChain,
  kubeletCanaryChain,
  kubeletFirewallChain,
  proxyFirewallChain,
  sharedChains,
  type Table,
} from './names.ts';
import { parseSaved, type SavedTable } from './saved.ts';
import type { IptablesTool } from './tool.ts';

const jumpTarget = /-j (KUBE-[A-Z0-9-]+)/;

async function cleanTable(
  tool: IptablesTool,
  table: Table,
  saved: SavedTable,
  mine: (chain: string) => boolean,
  signal: AbortSignal,
): Promise<void> {
  const lines: string[] = [];
  const chains = [...saved.chains.keys()].filter(mine);
  for (const chain of chains) lines.push(`:${chain} - [0:0]`);
  for (const [from, rules] of saved.jumps)
    for (const rule of rules) if (mine(jumpTarget.exec(rule)?.[1] ?? '')) lines.push(`-D ${from} ${rule}`);
  for (const chain of chains) lines.push(`-X ${chain}`);
  if (lines.length > 0) await tool.restore(`*${table}\n${lines.join('\n')}\nCOMMIT\n`, signal);
}

/**
 * The proxy's chains and the jumps to them go; the kubelet's own chain stays where a kubelet left its mark. `only`: these chains and no
 * others.
 */
export async function cleanupIptables(
  tool: IptablesTool,
  clock: Clock,
  signal: AbortSignal,
  only?: ReadonlySet<string>,
): Promise<void> {
  const { nat, filter, mangle } = await parseSaved(await tool.save(signal), createSlices(clock));
  const kubelet = mangle.chains.has(kubeletCanaryChain);
  const always = new Set<string>([
    ...sharedChains.nat,
    ...sharedChains.filter,
    ...fixedChains.nat,
    ...fixedChains.filter,
    externalServicesChain,
    proxyFirewallChain,
    canaryChain,
    ...ipvsChains,
    ...(kubelet ? [] : [kubeletFirewallChain]),
  ]);
  const mine = (chain: string): boolean => (only ? only.has(chain) : always.has(chain) || isServiceChain(chain));
  await cleanTable(tool, 'nat', nat, mine, signal);
  await cleanTable(tool, 'filter', filter, mine, signal);
  if (!only && mangle.chains.has(canaryChain)) await tool.restore(`*mangle\n-X ${canaryChain}\nCOMMIT\n`, signal);
}
