// The proxy's two servers, for health and for metrics; where a failure to listen is to be the end, the node is told first.
import type { Clock } from '../lib/clock.ts';
import { describeError, type Log } from '../lib/log.ts';
import type { MetricsRegistry } from '../lib/metrics.ts';
import type { EventRecorder, EventTarget } from '../kube/events.ts';
import { createZPages, type ZPages } from '../kube/z-pages.ts';
import type { RulesBackend } from './backend.ts';
import { type KubeProxyConfiguration, kubeProxyConfigurationOnWire } from './config.ts';
import { healthHandler, metricsHandler, metricsPaths, serveOn } from './health.ts';
import type { ProxyMetrics } from './metrics.ts';
import type { ProxyHealth } from './proxy-health.ts';
import type { Switch } from './switch.ts';

export interface ServersDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
  readonly registry: MetricsRegistry;
  /** The Node events are about. */
  readonly self: EventTarget;
  readonly health: ProxyHealth;
  readonly metrics: ProxyMetrics;
  /** While it is off the ports are left to others. */
  readonly serving: Switch;
  /** What this process is and how it was told to, for /statusz and /flagz. */
  readonly program: ProgramFacts;
  /** The mode in force. */
  kind(): RulesBackend['kind'];
}

export interface ProgramFacts {
  readonly version: string;
  /** The flags in force, by name. */
  readonly flags: Readonly<Record<string, string>>;
}

function zPagesOf({ clock, program }: ServersDeps, { featureGates }: KubeProxyConfiguration): Partial<ZPages> {
  const { ComponentStatusz = true, ComponentFlagz = true } = featureGates;
  const startedMs = clock.now() - process.uptime() * 1000;
  const paths = [...metricsPaths, ...(ComponentFlagz ? ['/flagz'] : [])];
  const all = createZPages(
    { clock, flags: () => program.flags },
    { component: 'kube-proxy', version: program.version, startedMs, paths },
  );
  return { ...(ComponentStatusz ? { statusz: all.statusz } : {}), ...(ComponentFlagz ? { flagz: all.flagz } : {}) };
}

/** Runs until the signal aborts; rejects only under `bindAddressHardFail`. */
export async function runServers(
  deps: ServersDeps,
  config: KubeProxyConfiguration,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log, events, registry, self, health, metrics, serving, kind } = deps;
  const http = { clock, log, hardFail: config.bindAddressHardFail, serving };
  const zPages = zPagesOf(deps, config);
  const pages = { registry, mode: kind, config: () => kubeProxyConfigurationOnWire(config, kind()), zPages };
  const telling = (reason: string) => (error: unknown) => {
    events.record(self, 'Warning', reason, describeError(error));
    throw error;
  };
  await Promise.all([
    serveOn(http, 'the health server', config.healthzBindAddress, healthHandler(health, metrics), signal).catch(
      telling('FailedToStartProxierHealthcheck'),
    ),
    serveOn(http, 'the metrics server', config.metricsBindAddress, metricsHandler(pages, log), signal).catch(
      telling('FailedToStartMetricServer'),
    ),
  ]);
}
