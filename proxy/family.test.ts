// The metrics of one IP family: kube-proxy's families by mode, fed by what happens.
import { describe, expect, it } from 'vitest';
import type { Service } from '../kube/types/core.ts';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import { createRegistry } from '../lib/metrics.ts';
import { createFakeBackend } from './fake-backend.ts';
import { createFamily } from './family.ts';
import { createProxyMetrics } from './metrics.ts';
import { createProxyHealth } from './proxy-health.ts';
import { createProxyState } from './state.ts';

/** As pkg/proxy/metrics of Kubernetes 1.36 registers them, without the two that count packets; see packet-metrics.test.ts. */
const always = [
  'kubeproxy_sync_proxy_rules_duration_seconds',
  'kubeproxy_sync_full_proxy_rules_duration_seconds',
  'kubeproxy_sync_partial_proxy_rules_duration_seconds',
  'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds',
  'kubeproxy_sync_proxy_rules_last_timestamp_seconds',
  'kubeproxy_sync_proxy_rules_endpoint_changes_pending',
  'kubeproxy_sync_proxy_rules_endpoint_changes_total',
  'kubeproxy_sync_proxy_rules_service_changes_pending',
  'kubeproxy_sync_proxy_rules_service_changes_total',
  'kubeproxy_sync_proxy_rules_no_local_endpoints_total',
  'kubeproxy_network_programming_duration_seconds',
  'kubeproxy_proxy_healthz_total',
  'kubeproxy_proxy_livez_total',
  'kubeproxy_conntrack_reconciler_sync_duration_seconds',
  'kubeproxy_conntrack_reconciler_deleted_entries_total',
];
const byMode = {
  iptables: [
    'kubeproxy_sync_proxy_rules_iptables_restore_failures_total',
    'kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total',
    'kubeproxy_sync_proxy_rules_iptables_total',
    'kubeproxy_sync_proxy_rules_iptables_last',
  ],
  nftables: [
    'kubeproxy_sync_proxy_rules_nftables_sync_failures_total',
    'kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total',
  ],
};

const service: Service = {
  metadata: { namespace: 'ns', name: 'web' },
  spec: { clusterIP: '10.96.0.1', ports: [{ port: 80 }] },
};
const onPort = (port: number): Service => ({ ...service, spec: { ...service.spec, ports: [{ port }] } });

function setUp(kind: 'iptables' | 'nftables') {
  const clock = createFakeClock();
  const registry = createRegistry();
  const metrics = createProxyMetrics(registry);
  const backend = createFakeBackend('IPv4', kind);
  const state = createProxyState({ nodeName: 'n1', startedAtMs: 0, onDirty: () => family.wake() });
  const health = createProxyHealth({ clock, node: () => undefined, timeoutMs: () => 60_000 });
  const family = createFamily(
    {
      backend,
      state,
      clock,
      log: silentLog,
      exec: () => Promise.resolve({ stdout: '', stderr: '' }),
      events: { record: () => undefined },
      metrics,
      health,
      nodeName: 'n1',
      hostAddresses: () => [],
    },
    { minSyncPeriodMs: 0 },
  );
  const stop = new AbortController();
  const done = family.run(stop.signal);
  const value = async (name: string, labels: Record<string, string> = { ip_family: 'IPv4' }): Promise<number> => {
    const sample = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
    const line = (await registry.metrics())
      .split('\n')
      .find((text) => text.startsWith(`${name}{${sample.join(',')}} `));
    return line === undefined ? 0 : Number(line.slice(line.lastIndexOf(' ') + 1));
  };
  return {
    clock,
    registry,
    backend,
    health,
    metrics,
    value,
    setService: (after: Service | undefined) => state.services.change({ key: 'ns/web', before: undefined, after }),
    async end() {
      stop.abort();
      await clock.advance(1_000);
      await done;
    },
  };
}

describe('metrics', () => {
  it.each(['iptables', 'nftables'] as const)('of the %s mode are those of kube-proxy', async (kind) => {
    const t = setUp(kind);
    const names = t.registry.getMetricsAsArray().map(({ name }) => name);
    expect(names.filter((name) => name.startsWith('kubeproxy_')).sort()).toEqual([...always, ...byMode[kind]].sort());
    await t.end();
  });

  it('count writes that fail, whoever is to blame, and how long they took', async () => {
    const t = setUp('iptables');
    await t.clock.advance(1_000);
    const syncs = () => t.value('kubeproxy_sync_proxy_rules_duration_seconds_count');
    expect(await syncs()).toBe(1);
    t.backend.refused.add('ns/web:/TCP');
    t.setService(service);
    await t.clock.advance(500);
    expect(await t.value('kubeproxy_sync_proxy_rules_iptables_restore_failures_total')).toBe(1);
    expect(await t.value('kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total')).toBe(1);
    expect(await syncs()).toBe(2);
    t.backend.refused.clear();
    t.backend.failNext = 1;
    await t.clock.advance(61_000);
    expect(await t.value('kubeproxy_sync_proxy_rules_iptables_restore_failures_total')).toBe(2);
    expect(await t.value('kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total')).toBe(1);
    expect(await t.value('kubeproxy_sync_full_proxy_rules_duration_seconds_count')).toBeGreaterThan(2);
    await t.end();
  });

  it('tell deletions that failed from what others changed', async () => {
    const t = setUp('nftables');
    await t.clock.advance(1_000);
    t.backend.tell({ what: 'endpoints that went could not be deleted', cleanupFailed: true });
    await t.clock.advance(1_000);
    expect(await t.value('kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total')).toBe(1);
    expect(await t.value('stevedore_proxy_foreign_changes_total')).toBe(0);
    expect(t.backend.applied.at(-1)).toEqual({ keys: [], full: true });
    t.backend.flush();
    await t.clock.advance(1_000);
    expect(await t.value('stevedore_proxy_foreign_changes_total')).toBe(1);
    t.backend.failNext = 1;
    t.setService(service);
    await t.clock.advance(1_000);
    expect(await t.value('kubeproxy_sync_proxy_rules_nftables_sync_failures_total')).toBe(1);
    expect(await t.value('kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total')).toBe(1);
    await t.end();
  });
});

it('changes that a write has taken are not pending any more, those that come meanwhile are', async () => {
  const t = setUp('iptables');
  const pending = async (): Promise<number> => (await t.metrics.serviceChangesPending.get()).values[0]?.value ?? 0;
  await t.clock.advance(1_000);
  t.backend.delay = () => t.clock.sleep(200);
  t.metrics.serviceChangesPending.inc();
  t.setService(onPort(1));
  expect(await pending()).toBe(1);
  await t.clock.advance(100);
  expect(await pending()).toBe(0);
  t.metrics.serviceChangesPending.inc();
  t.setService(onPort(2));
  await t.clock.advance(50);
  expect(await pending()).toBe(1);
  await t.clock.advance(1_000);
  expect(await pending()).toBe(0);
  await t.end();
});

describe('health', () => {
  it('is lost by a proxy that never could write, after its time', async () => {
    const t = setUp('iptables');
    t.backend.failNext = Number.POSITIVE_INFINITY;
    await t.clock.advance(50_000);
    expect(t.health.healthy).toBe(true);
    await t.clock.advance(15_000);
    expect(t.health.healthy).toBe(false);
    t.backend.failNext = 0;
    await t.clock.advance(31_000);
    expect(t.health.healthy).toBe(true);
    await t.end();
  });

  it('is lost where what others took away cannot be written again', async () => {
    const t = setUp('iptables');
    await t.clock.advance(1_000);
    t.backend.failNext = Number.POSITIVE_INFINITY;
    t.backend.flush();
    await t.clock.advance(65_000);
    expect(t.health.healthy).toBe(false);
    await t.end();
  });

  it('is kept under changes without end', async () => {
    const t = setUp('iptables');
    await t.clock.advance(1_000);
    // Something comes while each write runs.
    let port = 1;
    t.backend.delay = async () => {
      await t.clock.sleep(200);
      t.setService(onPort(++port));
    };
    t.setService(onPort(1));
    await t.clock.advance(70_000);
    expect(port).toBeGreaterThan(100);
    expect(t.health.healthy).toBe(true);
    await t.end();
  });
});
