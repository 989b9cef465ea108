// What the counters of two of our own rules say. kube-proxy has nfacct objects for them; a rule's own counter needs no tool for those.
import type { PacketCounts } from '../backend.ts';
import { invalidRule } from './fixed.ts';
import { forwardChain, localhostNodePortsChain, type Table } from './names.ts';
import { parseCounted } from './saved.ts';
import type { IptablesTool } from './tool.ts';

/** Zero where the rule is not there. Rejects with a NetfilterError. */
export async function readPacketCounts(tool: IptablesTool, signal: AbortSignal): Promise<PacketCounts> {
  const packets = async (table: Table, chain: string, of: (rule: string) => boolean): Promise<number> => {
    const rules = ((await tool.list(table, chain, signal)) ?? []).map(parseCounted);
    return rules.filter(({ rule }) => of(rule)).reduce((sum, counted) => sum + counted.packets, 0);
  };
  const [localhostNodePorts, invalidDropped] = await Promise.all([
    tool.family === 'IPv4' ? packets('nat', localhostNodePortsChain, () => true) : 0,
    packets('filter', forwardChain, (rule) => rule === invalidRule),
  ]);
  return { localhostNodePorts, invalidDropped };
}
