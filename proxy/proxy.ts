// The kube-proxy half: watches Services, EndpointSlices and its Node, and keeps the kernel's rules equal to them in both IP families.
//
//   reflectors ─▶ state (dirty service ports) ─▶ sync, one per family ─▶ backend ─▶ conntrack, health, metrics
//
// Phases:  waiting for the API ─▶ standing by (a kube-proxy runs on this host) ⇄ serving
import { cpus, networkInterfaces } from 'node:os';
import { CancelledError } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { MetricsRegistry } from '../lib/metrics.ts';
import type { KubeClient } from '../kube/client.ts';
import type { EventRecorder, EventTarget } from '../kube/events.ts';
import { ipFamilies, type IpFamily } from './addresses.ts';
import type { RulesDescription } from './backend.ts';
import { type BackendContext, type BackendKind, chooseKind, createBackendContext } from './backends.ts';
import { cleanupOtherMode } from './cleanup.ts';
import { type KubeProxyConfiguration, syncPeriodsOf } from './config.ts';
import { nodeFactsOf, servesLocalhostNodePorts } from './facts.ts';
import { createFamily, type ProxyFamily } from './family.ts';
import { createHints } from './hints.ts';
import { createKubeProxyDetector, type DetectKubeProxy } from './kube-proxy-detector.ts';
import type { Serving } from './merge-slices.ts';
import { createProxyMetrics } from './metrics.ts';
import { whyNotNftables } from './nftables/supported.ts';
import { openWhenPossible } from './open-families.ts';
import { createPacketMetrics } from './packet-metrics.ts';
import { createProxyHealth } from './proxy-health.ts';
import { describeRules, renderRules } from './rules-shown.ts';
import { createServiceCidrs } from './service-cidrs.ts';
import { type ProgramFacts, runServers } from './servers.ts';
import { createSources } from './sources.ts';
import { waitForKubeProxy, waitForNoKubeProxy } from './stand-by.ts';
import { createProxyState } from './state.ts';
import { createSwitch } from './switch.ts';
import { createSysctls, planSysctls } from './sysctls.ts';

export interface ProxyDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: MetricsRegistry;
  readonly events: EventRecorder;
  readonly nodeName: string;
  /** What this process is, for /statusz and /flagz. */
  readonly program?: ProgramFacts;
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

/** A monitor that does not listen by then is not waited for, in milliseconds; where it comes later, everything is read again. */
const listeningMs = 2_000;
/** ServiceCIDRs come with the first write where the API server answers for them within this time, in milliseconds. */
const serviceCidrsMs = 1_000;

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
  /** A pod of this node has stopped being ready, is ready again, or is going: the rules need not wait for its slices. */
  hint(podUid: string, serving: Serving): void;
  /** What is programmed for a Service (`namespace/name`), port by port; of all Services where none is named. */
  describe(serviceKey: string | undefined, signal: AbortSignal): Promise<readonly RulesDescription[]>;
  /** What would be written, as the tool reads it. Needs the first sync of the watches. */
  render(): Promise<string>;
}

const interfaceAddresses = (): string[] =>
  Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));

export function createProxy(deps: ProxyDeps, config: KubeProxyConfiguration): ServiceProxy {
  const { client, clock, events, nodeName } = deps;
  const log = deps.log.with({ part: 'proxy' });
  const metrics = createProxyMetrics(deps.registry);
  const context = deps.context ?? createBackendContext(clock, log, { stateDir: deps.stateDir });
  const detect = deps.detectKubeProxy ?? createKubeProxyDetector();
  const hostAddresses = deps.hostAddresses ?? interfaceAddresses;
  const sysctls = createSysctls({ log });
  const families: ProxyFamily[] = [];
  const serving = createSwitch(true);
  const firstSync = Promise.withResolvers<void>();
  let mode: BackendKind | undefined;
  let phase: ProxyPhase = 'waiting';
  let trouble: string | undefined;
  let synced = false;
  let beLiberal = false;

  const state = createProxyState({
    nodeName,
    startedAtMs: clock.now(),
    externalIPs: config.featureGates.AllowServiceExternalIPs ?? true,
    onDirty(family) {
      for (const one of families) if (one.family === family) one.wake();
    },
  });

  const sources = createSources({ client, clock, log, metrics, state, nodeName, onNode: () => configure() });
  const { node } = sources;
  const serviceCidrs = createServiceCidrs({ client, clock, log, onChange: () => configure() });
  const hints = createHints({ clock, endpoints: state.endpoints });
  const health = createProxyHealth({
    clock,
    node,
    timeoutMs: () => 2 * syncPeriodsOf(config, mode ?? 'iptables').syncPeriod,
  });
  const self: EventTarget = { apiVersion: 'v1', kind: 'Node', name: nodeName, uid: nodeName };

  const configure = (): void => {
    state.setZone(node()?.metadata.labels?.['topology.kubernetes.io/zone']);
    const host = { addresses: hostAddresses(), conntrackBeLiberal: beLiberal };
    const networks = serviceCidrs.networks();
    for (const one of families) one.configure(nodeFactsOf(config, node(), host, one.backend, networks));
  };

  const standBy = (signal: AbortSignal): Promise<void> =>
    waitForNoKubeProxy(
      {
        clock,
        log,
        detect,
        onFound(found) {
          if (found !== undefined) phase = 'standing-by';
          metrics.standingBy.set(found === undefined ? 0 : 1);
          // It answers for the node, on the same ports.
          serving.set(found === undefined);
          trouble = found === undefined ? undefined : `a kube-proxy runs on this host (${found}); this proxy stands by`;
        },
      },
      signal,
    );

  const chosenMode = async (): Promise<BackendKind> => {
    mode ??= await chooseKind(config.mode, async () => (await whyNotNftables(context.exec)) === undefined);
    return mode;
  };

  // Only nftables rules are made of them: on iptables nobody asks the API server.
  const followServiceCidrs = async (signal: AbortSignal): Promise<void> => {
    if ((await chosenMode()) === 'nftables') await serviceCidrs.run(signal);
  };
  const waitForServiceCidrs = async (signal: AbortSignal): Promise<void> => {
    if ((await chosenMode()) === 'nftables') await serviceCidrs.settled(serviceCidrsMs, signal);
  };

  const open = (signal: AbortSignal): Promise<void> =>
    openWhenPossible(
      {
        context,
        mode: chosenMode,
        has: (family) => families.some((one) => one.family === family),
        add(backend) {
          const { minSyncPeriod } = syncPeriodsOf(config, backend.kind);
          const { exec } = context;
          if (backend.kind === 'iptables' && !deps.dryRun)
            createPacketMetrics({ ...deps, log, backends: () => families.map((one) => one.backend) });
          families.push(
            createFamily(
              { backend, state, clock, log, exec, events, metrics, health, nodeName, hostAddresses },
              { minSyncPeriodMs: minSyncPeriod },
            ),
          );
        },
        onTrouble(text) {
          trouble = text;
        },
      },
      signal,
    );

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
    if (signal.aborted) end();
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
        waitForKubeProxy({ clock, detect }, configure, ending.signal)
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
    await sources.waitForSync(signal);
    await waitForServiceCidrs(signal);
    if (deps.dryRun) {
      await open(signal);
      configure();
      synced = true;
      firstSync.resolve();
      return;
    }
    await standBy(signal);
    events.record(self, 'Normal', 'Starting', 'Starting the Service proxy.');
    // All processors of the host, whatever share of them this process may use: conntrack is the host's.
    const localhost = servesLocalhostNodePorts(config, await chosenMode());
    await sysctls.apply(planSysctls(config, Math.max(1, cpus().length), localhost));
    beLiberal = (await sysctls.read('net/netfilter/nf_conntrack_tcp_be_liberal')) === 1;
    for (;;) {
      await open(signal);
      configure();
      // What others change between our reading and its first word would stay unseen.
      await context.monitor.listening(listeningMs, signal);
      await serve(signal);
      signal.throwIfAborted();
      await standBy(signal);
    }
  };

  return {
    async run(signal) {
      const kind = (): BackendKind => mode ?? 'iptables';
      const { registry, program = { version: '', flags: {} } } = deps;
      const servers = { clock, log, events, registry, self, health, metrics, serving, program, kind };
      const ending = main(signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
      await Promise.all([
        sources.run(signal),
        followServiceCidrs(signal),
        ...(deps.dryRun ? [] : [runServers(servers, config, signal), context.monitor.run(signal)]),
        ending,
      ]).finally(hints.stop);
    },
    status() {
      const troubles = [trouble, sources.trouble, ...families.map((one) => one.sync.trouble)].filter(
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
    hint: hints.note,
    describe: (serviceKey, signal) => describeRules({ state, families, synced }, serviceKey, signal),
    render: () => renderRules({ state, families }),
  };
}
