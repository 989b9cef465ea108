// The kube-proxy half: watches Services, EndpointSlices and its Node, and keeps the kernel's rules equal to them in both IP families.
//
//   reflectors ─▶ state (dirty service ports) ─▶ sync, one per family ─▶ backend ─▶ conntrack, health, metrics
//
// Phases:  waiting for the API ─▶ standing by (a kube-proxy runs on this host) ⇄ serving
import { readFile } from 'node:fs/promises';
import { availableParallelism, networkInterfaces } from 'node:os';
import { CancelledError } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';
import { describeError, type Log } from '../lib/log.ts';
import type { MetricsRegistry } from '../lib/metrics.ts';
import type { KubeClient } from '../kube/client.ts';
import type { EventRecorder } from '../kube/events.ts';
import { createReflector } from '../kube/reflector.ts';
import { resources } from '../kube/resources.ts';
import { ipFamilies, type IpFamily } from './addresses.ts';
import type { RulesDescription } from './backend.ts';
import { type BackendContext, type BackendKind, chooseKind, createBackendContext, openBackend } from './backends.ts';
import { cleanupOtherMode } from './cleanup.ts';
import type { KubeProxyConfiguration } from './config.ts';
import { nodeFactsOf } from './facts.ts';
import { createFamily, type ProxyFamily } from './family.ts';
import { healthHandler, metricsHandler, serveOn } from './health.ts';
import { createKubeProxyDetector, type DetectKubeProxy } from './kube-proxy-detector.ts';
import { createProxyMetrics } from './metrics.ts';
import { missingAccess } from './missing-access.ts';
import { whyNotNftables } from './nftables/supported.ts';
import { createProxyHealth } from './proxy-health.ts';
import { proxiedLabelSelector } from './services.ts';
import { createProxyState } from './state.ts';
import { createSysctls, planSysctls } from './sysctls.ts';

export interface ProxyDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: MetricsRegistry;
  readonly events: EventRecorder;
  readonly nodeName: string;
  /** Nothing is written, served or set: `render` says what would be. Default false. */
  readonly dryRun?: boolean;
  /** Default: the tools of this host. */
  readonly context?: BackendContext;
  /** Where rules that stay after a stop are remembered, so that the next start need not list them; a folder that a reboot empties. */
  readonly stateDir?: string | undefined;
  /** Default: looks through /proc. */
  readonly detectKubeProxy?: DetectKubeProxy;
  /** Addresses of this host's interfaces; default asks the kernel. */
  hostAddresses?(): readonly string[];
}

export type ProxyPhase = 'waiting' | 'standing-by' | 'serving';

export interface ProxyStatus {
  readonly phase: ProxyPhase;
  readonly mode: BackendKind | undefined;
  /** True once all rules were written for the first time. */
  readonly synced: boolean;
  /** One sentence for a node condition; undefined where all is well. */
  readonly trouble: string | undefined;
  /** Service ports the kernel refuses, by family and key, and what it said. */
  readonly refused: readonly { readonly family: IpFamily; readonly key: string; readonly error: string }[];
  readonly servicePorts: number;
  readonly endpoints: number;
}

export interface ServiceProxy {
  /** Runs until the signal aborts. The rules stay in the kernel. */
  run(signal: AbortSignal): Promise<void>;
  status(): ProxyStatus;
  /** Resolves once all rules were written for the first time; rejects with the signal's reason. */
  waitForFirstSync(signal: AbortSignal): Promise<void>;
  /** What is programmed for a Service (`namespace/name`), port by port; of all Services where none is named. */
  describe(serviceKey: string | undefined, signal: AbortSignal): Promise<readonly RulesDescription[]>;
  /** What would be written, as the tool reads it. Needs the first sync of the watches. */
  render(): Promise<string>;
}

const detectEveryMs = 10_000;
const toolsEveryMs = 5_000;

const interfaceAddresses = (): string[] =>
  Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));

async function ipv6IsOn(): Promise<boolean> {
  const text = async (path: string): Promise<string | undefined> => readFile(path, 'utf8').catch(() => undefined);
  if ((await text('/proc/net/if_inet6')) === undefined) return false;
  return (await text('/proc/sys/net/ipv6/conf/all/disable_ipv6'))?.trim() !== '1';
}

export function createProxy(deps: ProxyDeps, config: KubeProxyConfiguration): ServiceProxy {
  const { client, clock, events, nodeName } = deps;
  const log = deps.log.with({ part: 'proxy' });
  const metrics = createProxyMetrics(deps.registry);
  const context = deps.context ?? createBackendContext(clock, log, { stateDir: deps.stateDir });
  const detect = deps.detectKubeProxy ?? createKubeProxyDetector();
  const hostAddresses = deps.hostAddresses ?? interfaceAddresses;
  const sysctls = createSysctls({ log });
  const families: ProxyFamily[] = [];
  const firstSync = Promise.withResolvers<void>();
  let mode: BackendKind | undefined;
  let phase: ProxyPhase = 'waiting';
  let trouble: string | undefined;
  let apiTrouble: string | undefined;
  let synced = false;
  let beLiberal = false;

  const state = createProxyState({
    nodeName,
    startedAtMs: clock.now(),
    onDirty(family) {
      for (const one of families) if (one.family === family) one.wake();
    },
  });

  const onFailure = (error: unknown): void => {
    const access = missingAccess(error, nodeName);
    // Once everything was read, an API server that goes away for a while takes nothing from those who are served.
    if (access) apiTrouble = access.summary;
    else if (phase === 'waiting') apiTrouble = `the API server cannot be watched: ${describeError(error)}`;
    if (access) log.error(access.message);
  };
  const onSync = (): void => {
    apiTrouble = undefined;
  };
  const common = { client, clock, log };
  const selection = { labelSelector: proxiedLabelSelector };
  const services = createReflector(common, {
    resource: resources.services,
    selection,
    onFailure,
    onSync,
    onChange(change) {
      onSync();
      metrics.serviceChanges.inc();
      metrics.serviceChangesPending.inc();
      state.services.change(change);
    },
  });
  const slices = createReflector(common, {
    resource: resources.endpointSlices,
    selection,
    onFailure,
    onSync,
    onChange(change) {
      onSync();
      metrics.endpointChanges.inc();
      metrics.endpointChangesPending.inc();
      state.endpoints.change(change);
    },
  });
  const nodes = createReflector(common, {
    resource: resources.nodes,
    selection: { fieldSelector: `metadata.name=${nodeName}` },
    onFailure,
    onSync,
    onChange: () => configure(),
  });
  const reflectors = [services, slices, nodes];
  const node = () => nodes.store.get(nodeName);
  const health = createProxyHealth({ clock, node, timeoutMs: 2 * config.iptables.syncPeriod });

  const configure = (): void => {
    state.setZone(node()?.metadata.labels?.['topology.kubernetes.io/zone']);
    const host = { addresses: hostAddresses(), conntrackBeLiberal: beLiberal };
    for (const one of families) one.configure(nodeFactsOf(config, node(), host, one.backend));
  };

  const waitForApi = async (signal: AbortSignal): Promise<void> => {
    await Promise.all(reflectors.map((reflector) => reflector.waitForSync(signal)));
  };

  const standBy = async (signal: AbortSignal): Promise<void> => {
    for (let found = await detect(); found !== undefined; found = await detect()) {
      if (phase !== 'standing-by')
        log.warn('a kube-proxy runs on this host: the proxy stands by and programs nothing until it ends', { found });
      phase = 'standing-by';
      metrics.standingBy.set(1);
      trouble = `a kube-proxy runs on this host (${found}); this proxy stands by`;
      await clock.sleep(detectEveryMs, signal);
    }
    if (phase === 'standing-by') log.info('the kube-proxy on this host has ended: the proxy goes on');
    metrics.standingBy.set(0);
    trouble = undefined;
  };

  // Ends when a kube-proxy appears.
  const untilKubeProxy = async (signal: AbortSignal): Promise<void> => {
    while ((await detect()) === undefined) {
      await clock.sleep(detectEveryMs, signal);
      configure();
    }
  };

  // Without tools nothing is served: said once, and looked for again.
  const openWhenPossible = async (signal: AbortSignal): Promise<void> => {
    for (let said = false; ; said = true)
      try {
        await openFamilies();
        trouble = undefined;
        return;
      } catch (error) {
        trouble = `no rules can be written: ${describeError(error)}`;
        if (!said)
          log.error(
            'no Service is served: the tools to write rules cannot be used; they are looked for every few seconds',
            {
              mode,
              error,
              mend: `install ${mode === 'nftables' ? 'nftables' : 'iptables'}, or set mode in KubeProxyConfiguration`,
            },
          );
        await clock.sleep(toolsEveryMs, signal);
      }
  };

  const openFamilies = async (): Promise<void> => {
    mode ??= await chooseKind(config.mode, async () => (await whyNotNftables(context.exec)) === undefined);
    const minSyncPeriodMs = (mode === 'iptables' ? config.iptables : config.nftables).minSyncPeriod;
    for (const family of ipFamilies) {
      if (families.some((one) => one.family === family)) continue;
      if (family === 'IPv6' && !(await ipv6IsOn())) continue;
      try {
        const backend = await openBackend(mode, family, context);
        const { exec } = context;
        families.push(
          createFamily(
            { backend, state, clock, log, exec, events, metrics, health, nodeName, hostAddresses },
            { minSyncPeriodMs },
          ),
        );
      } catch (error) {
        if (family === 'IPv4') throw error;
        log.info('IPv6 is not served: this host has no tool for it', { error });
      }
    }
  };

  const noteSynced = (): void => {
    if (synced || !families.every((one) => one.sync.synced)) return;
    synced = true;
    log.info('all rules are written for the first time', {
      mode,
      servicePorts: ipFamilies.reduce((sum, family) => sum + state.services.count(family), 0),
    });
    firstSync.resolve();
  };

  const serve = async (signal: AbortSignal): Promise<void> => {
    phase = 'serving';
    const ending = new AbortController();
    const end = (): void => ending.abort(new CancelledError('the proxy stops'));
    signal.addEventListener('abort', end, { once: true });
    try {
      const watchSync = async (): Promise<void> => {
        for (; !synced && !ending.signal.aborted; noteSynced())
          await clock.sleep(10, ending.signal).catch(() => undefined);
        if (ending.signal.aborted || mode === undefined) return;
        // The new rules are in place: those of another mode may go.
        const left = await cleanupOtherMode({ exec: context.exec, clock, log }, mode, ending.signal);
        if (left.length > 0 && !ending.signal.aborted)
          log.warn('rules of another proxy mode could not be removed', { failures: left });
      };
      await Promise.all([
        ...families.map((one) => one.run(ending.signal)),
        watchSync(),
        untilKubeProxy(ending.signal)
          .catch((error: unknown) => {
            if (!ending.signal.aborted) throw error;
          })
          .finally(end),
      ]);
    } finally {
      signal.removeEventListener('abort', end);
      end();
    }
  };

  const main = async (signal: AbortSignal): Promise<void> => {
    await waitForApi(signal);
    if (deps.dryRun) {
      await openWhenPossible(signal);
      configure();
      synced = true;
      firstSync.resolve();
      return;
    }
    await standBy(signal);
    const localhost = config.iptables.localhostNodePorts && (config.mode === '' || config.mode === 'iptables');
    await sysctls.apply(planSysctls(config, availableParallelism(), localhost));
    beLiberal = (await sysctls.read('net/netfilter/nf_conntrack_tcp_be_liberal')) === 1;
    for (;;) {
      await openWhenPossible(signal);
      configure();
      await serve(signal);
      signal.throwIfAborted();
      await standBy(signal);
    }
  };

  return {
    async run(signal) {
      const pages = { registry: deps.registry, mode: () => mode ?? 'iptables', config };
      const http = { clock, log, hardFail: config.bindAddressHardFail };
      const servers = deps.dryRun
        ? []
        : [
            serveOn(http, 'the health server', config.healthzBindAddress, healthHandler(health, metrics), signal),
            serveOn(http, 'the metrics server', config.metricsBindAddress, metricsHandler(pages, log), signal),
          ];
      const ending = main(signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
      await Promise.all([
        ...reflectors.map((reflector) => reflector.run(signal)),
        ...servers,
        ...(deps.dryRun ? [] : [context.monitor.run(signal)]),
        ending,
      ]);
    },
    status() {
      const troubles = [trouble, apiTrouble, ...families.map((one) => one.sync.trouble)].filter(
        (text) => text !== undefined,
      );
      const refused = families.flatMap((one) =>
        [...one.sync.refused()].map(([key, error]) => ({ family: one.family, key, error })),
      );
      return {
        phase,
        mode,
        synced,
        trouble: troubles[0],
        refused,
        servicePorts: ipFamilies.reduce((sum, family) => sum + state.services.count(family), 0),
        endpoints: ipFamilies.reduce((sum, family) => sum + state.endpoints.count(family), 0),
      };
    },
    async waitForFirstSync(signal) {
      if (synced) return;
      signal.throwIfAborted();
      const aborted = Promise.withResolvers<never>();
      const onAbort = (): void => aborted.reject(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        await Promise.race([firstSync.promise, aborted.promise]);
      } finally {
        signal.removeEventListener('abort', onAbort);
      }
    },
    async describe(serviceKey, signal) {
      const found: RulesDescription[] = [];
      for (const { family, backend } of families) {
        const desired = state.desired(family);
        const keys = serviceKey === undefined ? desired.keys() : state.services.keysOf(family, serviceKey);
        for (const key of keys) {
          const wanted = desired.get(key);
          if (wanted) found.push(await backend.describe(wanted, signal));
        }
      }
      return found;
    },
    async render() {
      const parts: string[] = [];
      for (const { family, backend } of families)
        parts.push(`# ${family}\n${await backend.render(state.desired(family))}`);
      return parts.join('\n');
    },
  };
}
