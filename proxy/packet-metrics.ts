// Packets that two rules of the iptables mode count, as metrics: read when the page is asked for.
import { counter, type MetricsRegistry } from '../lib/metrics.ts';
import type { Log } from '../lib/log.ts';
import type { PacketCounts, RulesBackend } from './backend.ts';

const waitMs = 5_000;
/** Two counters of one page, and pages asked for side by side, share a reading. */
const freshMs = 1_000;

export interface PacketMetricsDeps {
  readonly registry: MetricsRegistry;
  readonly clock: { monotonicMs(): number };
  readonly log: Log;
  backends(): readonly RulesBackend[];
}

/** A family that cannot be read leaves the numbers as they were: a page is not to fail for it. */
export function createPacketMetrics({ registry, clock, log, backends }: PacketMetricsDeps): void {
  let last: { readonly atMs: number; readonly counts: Promise<PacketCounts | undefined> } | undefined;
  const read = async (): Promise<PacketCounts | undefined> => {
    try {
      const signal = AbortSignal.timeout(waitMs);
      const all = await Promise.all(backends().map(async (backend) => backend.packetCounts?.(signal)));
      return all.reduce<PacketCounts>(
        (sum, one) => ({
          localhostNodePorts: sum.localhostNodePorts + (one?.localhostNodePorts ?? 0),
          invalidDropped: sum.invalidDropped + (one?.invalidDropped ?? 0),
        }),
        { localhostNodePorts: 0, invalidDropped: 0 },
      );
    } catch (error) {
      log.debug('the packet counters of rules could not be read; the metrics keep their numbers', { error });
      return undefined;
    }
  };
  const counts = (): Promise<PacketCounts | undefined> => {
    const atMs = clock.monotonicMs();
    if (!last || atMs - last.atMs >= freshMs) last = { atMs, counts: read() };
    return last.counts;
  };
  const of = (name: string, help: string, field: keyof PacketCounts): void =>
    void counter(registry, { name, help, value: async () => (await counts())?.[field] });
  of(
    'kubeproxy_iptables_localhost_nodeports_accepted_packets_total',
    'Number of packets accepted on nodeports of loopback interface',
    'localhostNodePorts',
  );
  of(
    'kubeproxy_iptables_ct_state_invalid_dropped_packets_total',
    'packets dropped by iptables to work around conntrack problems',
    'invalidDropped',
  );
}
