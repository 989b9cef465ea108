// The proxy's metrics: kube-proxy's names, labels and buckets, and a few of our own.
import { counter, gauge, histogram, type MetricsRegistry } from '../lib/metrics.ts';

const doubling = Array.from({ length: 15 }, (_, at) => 0.001 * 2 ** at);
const row = (start: number, step: number, count: number): number[] =>
  Array.from({ length: count }, (_, at) => start + at * step);
const programming = [...row(0.25, 0.25, 2), ...row(1, 1, 59), ...row(60, 5, 12), ...row(120, 30, 7)];

export type ProxyMetrics = ReturnType<typeof createProxyMetrics>;

export function createProxyMetrics(registry: MetricsRegistry) {
  const family = ['ip_family'] as const;
  const durations = (name: string, help: string) =>
    histogram(registry, { name: `kubeproxy_${name}`, help, labels: family, buckets: doubling });
  const count = <Label extends string = never>(name: string, help: string, labels: readonly Label[] = []) =>
    counter<Label>(registry, { name: `kubeproxy_${name}`, help, labels });
  const level = <Label extends string = never>(name: string, help: string, labels: readonly Label[] = []) =>
    gauge<Label>(registry, { name: `kubeproxy_${name}`, help, labels });
  return {
    sync: durations('sync_proxy_rules_duration_seconds', 'SyncProxyRules latency in seconds'),
    fullSync: durations('sync_full_proxy_rules_duration_seconds', 'SyncProxyRules latency in seconds for full resyncs'),
    partialSync: durations(
      'sync_partial_proxy_rules_duration_seconds',
      'SyncProxyRules latency in seconds for partial resyncs',
    ),
    lastSync: level(
      'sync_proxy_rules_last_timestamp_seconds',
      'The last time proxy rules were successfully synced',
      family,
    ),
    lastQueued: level(
      'sync_proxy_rules_last_queued_timestamp_seconds',
      'The last time a sync of proxy rules was queued',
      family,
    ),
    programming: histogram(registry, {
      name: 'kubeproxy_network_programming_duration_seconds',
      help: 'In Cluster Network Programming Latency in seconds',
      labels: family,
      buckets: programming,
    }),
    endpointChangesPending: level('sync_proxy_rules_endpoint_changes_pending', 'Pending proxy rules Endpoint changes'),
    endpointChanges: count('sync_proxy_rules_endpoint_changes_total', 'Cumulative proxy rules Endpoint changes'),
    serviceChangesPending: level('sync_proxy_rules_service_changes_pending', 'Pending proxy rules Service changes'),
    serviceChanges: count('sync_proxy_rules_service_changes_total', 'Cumulative proxy rules Service changes'),
    healthz: count('proxy_healthz_total', 'Cumulative proxy healthz HTTP status', ['code']),
    livez: count('proxy_livez_total', 'Cumulative proxy livez HTTP status', ['code']),
    noLocalEndpoints: level(
      'sync_proxy_rules_no_local_endpoints_total',
      'Number of services with a Local traffic policy and no endpoints',
      ['traffic_policy', 'ip_family'],
    ),
    conntrackDuration: durations(
      'conntrack_reconciler_sync_duration_seconds',
      'ReconcileConntrackFlowsLatency latency in seconds',
    ),
    conntrackDeleted: count(
      'conntrack_reconciler_deleted_entries_total',
      'Cumulative conntrack flows deleted by conntrack reconciler',
      family,
    ),
    /** Of the iptables mode only, on the page from the first call on, as kube-proxy has them by mode. */
    iptables: () => ({
      restoreFailures: count(
        'sync_proxy_rules_iptables_restore_failures_total',
        'Cumulative proxy iptables restore failures',
        family,
      ),
      partialRestoreFailures: count(
        'sync_proxy_rules_iptables_partial_restore_failures_total',
        'Cumulative proxy iptables partial restore failures',
        family,
      ),
      rules: level('sync_proxy_rules_iptables_total', 'Total number of iptables rules owned by kube-proxy', [
        'table',
        'ip_family',
      ]),
      rulesLastSync: level(
        'sync_proxy_rules_iptables_last',
        'Number of iptables rules written by kube-proxy in last sync',
        ['table', 'ip_family'],
      ),
    }),
    /** Of the nftables mode only. */
    nftables: () => ({
      failures: count(
        'sync_proxy_rules_nftables_sync_failures_total',
        'Cumulative proxy nftables sync failures',
        family,
      ),
      cleanupFailures: count(
        'sync_proxy_rules_nftables_cleanup_failures_total',
        'Cumulative proxy nftables cleanup failures',
        family,
      ),
    }),
    refused: gauge(registry, {
      name: 'stevedore_proxy_refused_service_ports',
      help: 'Service ports whose rules the kernel or its tool refuses; all others are served',
      labels: family,
    }),
    foreignChanges: counter(registry, {
      name: 'stevedore_proxy_foreign_changes_total',
      help: 'Times that others changed our rules and all was compared',
      labels: family,
    }),
    standingBy: gauge(registry, {
      name: 'stevedore_proxy_standing_by',
      help: '1 while a kube-proxy runs on this host and nothing is programmed',
    }),
  };
}
