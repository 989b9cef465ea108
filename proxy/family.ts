// One IP family of the proxy: its backend, the sync loop, stale flows and health check servers, with the metrics they feed.
import { createConntrackCleaner, type ConntrackCleaner } from './conntrack.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { EventRecorder } from '../kube/events.ts';
import type { IpFamily } from './addresses.ts';
import type { NetfilterError, NodeFacts, RulesBackend } from './backend.ts';
import type { Exec } from './iptables/tool.ts';
import type { ProxyMetrics } from './metrics.ts';
import { servicePortName, type ServicePortKey, type ServicePortState } from './model.ts';
import type { ProxyHealth } from './proxy-health.ts';
import { createServiceHealth } from './service-health.ts';
import type { ProxyState } from './state.ts';
import { createSync, type Sync, type SyncOutcome } from './sync.ts';

export interface FamilyDeps {
  readonly backend: RulesBackend;
  readonly state: ProxyState;
  readonly clock: Clock;
  readonly log: Log;
  readonly exec: Exec;
  readonly events: EventRecorder;
  readonly metrics: ProxyMetrics;
  readonly health: ProxyHealth;
  readonly nodeName: string;
  hostAddresses(): readonly string[];
}

export interface FamilyOptions {
  readonly minSyncPeriodMs: number;
}

export interface ProxyFamily {
  readonly family: IpFamily;
  readonly backend: RulesBackend;
  readonly sync: Sync;
  /** Takes over new facts of the node; what they change is written. */
  configure(facts: NodeFacts): void;
  /** Something became dirty. */
  wake(): void;
  run(signal: AbortSignal): Promise<void>;
}

const serviceKeyOf = (key: ServicePortKey): string => key.slice(0, key.indexOf(':'));

export function createFamily(deps: FamilyDeps, options: FamilyOptions): ProxyFamily {
  const { backend, state, clock, log, metrics, health, events } = deps;
  const { family } = backend;
  const label = { ip_family: family };
  const iptables = backend.kind === 'iptables' ? metrics.iptables() : undefined;
  const nftables = backend.kind === 'nftables' ? metrics.nftables() : undefined;
  let facts: NodeFacts | undefined;
  let healthPorts = '';
  let healthDirty: (() => void) | undefined;

  const conntrack: ConntrackCleaner = createConntrackCleaner({
    exec: deps.exec,
    clock,
    log,
    family,
    hostAddresses: deps.hostAddresses,
    onCleaned(deleted, seconds) {
      metrics.conntrackDeleted.inc(label, deleted);
      metrics.conntrackDuration.observe(label, seconds);
    },
  });

  const serviceHealth = createServiceHealth({
    log,
    events,
    nodeName: deps.nodeName,
    family,
    addresses() {
      if (facts && facts.nodePortAddresses !== 'all') return facts.nodePortAddresses;
      return [family === 'IPv4' ? '0.0.0.0' : '::'];
    },
    healthy: () => health.healthy,
    localReady: (serviceKey) => state.endpoints.localReady(family, serviceKey),
  });

  const noLocal = { internal: new Set<ServicePortKey>(), external: new Set<ServicePortKey>() };
  const countNoLocal = (key: ServicePortKey, after: ServicePortState | undefined): void => {
    for (const policy of ['internal', 'external'] as const)
      if (after?.[policy] === 'drop') noLocal[policy].add(key);
      else noLocal[policy].delete(key);
  };

  const observeSync = (full: boolean, durationMs: number): void => {
    metrics.sync.observe(label, durationMs / 1000);
    (full ? metrics.fullSync : metrics.partialSync).observe(label, durationMs / 1000);
  };

  const onWritten = (outcome: SyncOutcome): void => {
    const { full, durationMs, result, written } = outcome;
    observeSync(full, durationMs);
    metrics.lastSync.set(label, clock.now() / 1000);
    for (const [table, counts] of Object.entries(result.byTable)) {
      iptables?.rules.set({ table, ...label }, counts.total);
      iptables?.rulesLastSync.set({ table, ...label }, counts.written);
    }
    for (const { key, after } of written) {
      countNoLocal(key, after);
      for (const time of state.endpoints.takeTriggerTimes(family, serviceKeyOf(key)))
        metrics.programming.observe(label, Math.max(0, clock.now() - time) / 1000);
    }
    metrics.noLocalEndpoints.set({ traffic_policy: 'internal', ...label }, noLocal.internal.size);
    metrics.noLocalEndpoints.set({ traffic_policy: 'external', ...label }, noLocal.external.size);
    metrics.refused.set(label, sync.refused().size);
    // Under changes without end something always waits, but never for long.
    health.updated(family, state.dirtyCount(family) > 0 ? clock.monotonicMs() - durationMs : undefined);
    conntrack.note(written, result.gone);
    healthDirty?.();
  };

  const onRefused = (key: ServicePortKey, wanted: ServicePortState | undefined, error: NetfilterError): void => {
    const [namespace = '', name = ''] = serviceKeyOf(key).split('/');
    const what = wanted ? servicePortName(wanted.port) : key;
    log.error('the kernel refuses the rules of a service port: it keeps those it had, all others are served', {
      servicePort: key,
      family,
      error,
    });
    metrics.refused.set(label, sync.refused().size);
    events.record(
      { apiVersion: 'v1', kind: 'Service', namespace, name },
      'Warning',
      'FailedToProgramService',
      `node ${deps.nodeName} could not program ${what} (${family}): ${error.message}`,
    );
  };

  const sync = createSync(
    {
      backend,
      state,
      clock,
      log,
      onBegin() {
        state.endpoints.beginWrite(family);
        metrics.serviceChangesPending.set(0);
        metrics.endpointChangesPending.set(0);
      },
      onWritten,
      onRefused,
      onFailure(_error, full, durationMs) {
        observeSync(full, durationMs);
        health.queued(family);
        nftables?.failures.inc(label);
        iptables?.restoreFailures.inc(label);
        if (!full) iptables?.partialRestoreFailures.inc(label);
      },
      onForeign(change) {
        if (change.cleanupFailed) nftables?.cleanupFailures.inc(label);
        else metrics.foreignChanges.inc(label);
      },
    },
    { minGapMs: options.minSyncPeriodMs },
  );

  // Servers open and close one after another, so that a port that changes hands is free before it is taken.
  const keepHealthServers = async (signal: AbortSignal): Promise<void> => {
    const onAbort = (): void => healthDirty?.();
    signal.addEventListener('abort', onAbort, { once: true });
    while (!signal.aborted) {
      const checks = state.services.healthChecks();
      const wanted = new Map(
        [...checks].filter(([serviceKey]) => state.services.keysOf(family, serviceKey).length > 0),
      );
      const text = JSON.stringify([...wanted]);
      if (text !== healthPorts || wanted.size > 0) await serviceHealth.sync(wanted);
      healthPorts = text;
      await new Promise<void>((resolve) => {
        healthDirty = resolve;
        if (signal.aborted) resolve();
      });
    }
    signal.removeEventListener('abort', onAbort);
    await serviceHealth.stop();
  };

  const queued = (): void => {
    health.queued(family);
    metrics.lastQueued.set(label, clock.now() / 1000);
  };

  return {
    family,
    backend,
    sync,
    configure(next) {
      facts = next;
      const due = backend.configure(next);
      if (due !== 'none') sync.rewrite(due);
    },
    wake() {
      queued();
      sync.wake();
    },
    async run(signal) {
      // From here on its first write is waited for, as any other: a proxy that cannot write is to be left by load balancers.
      health.updated(family);
      queued();
      await Promise.all([sync.run(signal), conntrack.run(signal), keepHealthServers(signal)]);
    },
  };
}
