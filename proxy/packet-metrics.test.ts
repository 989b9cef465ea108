// Packets that rules count, from what the tool prints to the metrics page.
import { expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import { createRegistry } from '../lib/metrics.ts';
import type { PacketCounts } from './backend.ts';
import { createFakeBackend } from './fake-backend.ts';
import { readPacketCounts } from './iptables/packet-counts.ts';
import type { IptablesTool } from './iptables/tool.ts';
import { createPacketMetrics } from './packet-metrics.ts';

const toolOf = (family: IptablesTool['family'], chains: Readonly<Record<string, readonly string[]>>): IptablesTool => ({
  family,
  variant: 'nft',
  version: '1.8.9',
  randomFully: true,
  save: () => Promise.resolve(''),
  restore: () => Promise.resolve(),
  begin: () => undefined,
  rest: () => undefined,
  list: (table, chain) => Promise.resolve(chains[`${table} ${chain}`]),
});

const signal = new AbortController().signal;

it('are the counters of our own two rules, as both kinds of iptables print them', async () => {
  const chains = {
    'nat KUBE-LOCALHOST-NODEPORTS': ['-c 12 720 -j RETURN'],
    'filter KUBE-FORWARD': [
      '-m conntrack --ctstate INVALID -c 5 300 -j DROP',
      '-m mark --mark 0x1/0x1 -c 99 1 -j ACCEPT',
    ],
  };
  expect(await readPacketCounts(toolOf('IPv4', chains), signal)).toEqual({ localhostNodePorts: 12, invalidDropped: 5 });
  expect(await readPacketCounts(toolOf('IPv6', chains), signal)).toEqual({ localhostNodePorts: 0, invalidDropped: 5 });
  expect(await readPacketCounts(toolOf('IPv4', {}), signal)).toEqual({ localhostNodePorts: 0, invalidDropped: 0 });
});

it('both families are added up, read once for a page, and kept where the tool fails', async () => {
  const registry = createRegistry();
  const clock = createFakeClock();
  let asked = 0;
  let answer: () => Promise<PacketCounts> = () => Promise.resolve({ localhostNodePorts: 3, invalidDropped: 4 });
  const backends = (['IPv4', 'IPv6'] as const).map((family) => ({
    ...createFakeBackend(family),
    packetCounts() {
      asked++;
      return answer();
    },
  }));
  createPacketMetrics({ registry, clock, log: silentLog, backends: () => backends });
  const page = async (): Promise<string[]> =>
    (await registry.metrics()).split('\n').filter((line) => line.startsWith('kubeproxy_'));
  const lines = [
    'kubeproxy_iptables_localhost_nodeports_accepted_packets_total 6',
    'kubeproxy_iptables_ct_state_invalid_dropped_packets_total 8',
  ];
  expect(await page()).toEqual(lines);
  expect(asked).toBe(2);
  answer = () => Promise.reject(new Error('busy'));
  await clock.advance(1_000);
  expect(await page()).toEqual(lines);
  expect(asked).toBe(4);
});
