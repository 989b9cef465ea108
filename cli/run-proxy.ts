// The proxy half of `stevedore run`: its identity, and what the node's status shows of it.
import { dirname } from 'node:path';
import type { NodeAgent } from '../agent/node/node-agent.ts';
import { kubeletVersion } from '../agent/node/version.ts';
import type { RestCall } from '../agent/server/rest-metrics.ts';
import type { KubeClient } from '../kube/client.ts';
import { createEventRecorder } from '../kube/event-recorder.ts';
import { createKubeClient } from '../kube/http-client.ts';
import { loadKubeconfig } from '../kube/kubeconfig.ts';
import { withTimeout } from '../lib/abort.ts';
import { systemClock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { MetricsRegistry } from '../lib/metrics.ts';
import { createProxy, type ProxyStatus, type ServiceProxy } from '../proxy/proxy.ts';
import type { Configuration } from './config/load.ts';
import { version } from './version.ts';

export interface ProxyStart {
  readonly configuration: Configuration;
  /** The node's own identity, used where the proxy has none of its own. */
  readonly client: KubeClient;
  readonly registry: MetricsRegistry;
  /** Told of each call of the API server, for metrics. */
  readonly observe: (call: RestCall) => void;
  readonly log: Log;
  readonly nodeName: string;
  /** The command line's flags as they hold, by name, for /flagz. */
  readonly flags: Readonly<Record<string, string>>;
  /** Nothing is written and nothing is served; the rules are only computed. */
  readonly dryRun: boolean;
}

export interface ProxyHalf {
  run(signal: AbortSignal): Promise<void>;
  /** The node waits for the first sync before it is Ready, 30 s at most; later trouble has a condition of its own. */
  attach(node: NodeAgent): void;
  status(): ProxyStatus;
  /** What the agent knows of its pods before the API does. */
  readonly hint: ServiceProxy['hint'];
  describe(service: string | undefined): Promise<unknown>;
  /** Waits for the watches and prints what would be written. */
  dryRun(signal: AbortSignal): Promise<string>;
}

const readyWaitMs = 30_000;

export async function openProxy(start: ProxyStart): Promise<ProxyHalf> {
  const { configuration, registry, log, nodeName } = start;
  const clock = systemClock;
  const own = configuration.proxy.clientConnection.kubeconfig;
  const client = own
    ? createKubeClient(
        { log, clock, observe: start.observe },
        { ...(await loadKubeconfig(own)), userAgent: `stevedore-proxy/${version}` },
      )
    : start.client;
  const events = createEventRecorder({ client, clock, log }, { component: 'kube-proxy', host: nodeName });
  const proxy = createProxy(
    {
      client,
      clock,
      log,
      registry,
      events,
      nodeName,
      program: { version: kubeletVersion(version), flags: start.flags },
      dryRun: start.dryRun,
      stateDir: dirname(configuration.stevedore.socketPath),
    },
    configuration.proxy,
  );
  const startedAtMs = clock.monotonicMs();

  return {
    async run(signal) {
      try {
        await proxy.run(signal);
      } finally {
        await events.stop();
        if (own) await client.close();
      }
    },
    attach(node) {
      const waits = (): boolean => !proxy.status().synced && clock.monotonicMs() - startedAtMs < readyWaitMs;
      node.addStartSource(() => (waits() ? 'Services are not programmed yet' : undefined));
      node.addCondition(() => {
        const { synced, trouble } = proxy.status();
        const bad = trouble ?? (synced ? undefined : 'Services are not programmed yet');
        return bad === undefined
          ? {
              type: 'ServiceProxyReady',
              status: 'True',
              reason: 'ServicesProgrammed',
              message: 'all Services are programmed',
            }
          : { type: 'ServiceProxyReady', status: 'False', reason: 'ServicesNotProgrammed', message: bad };
      });
      const ending = new AbortController();
      proxy.waitForFirstSync(ending.signal).then(
        () => node.refresh(),
        () => undefined,
      );
      clock.setTimer(readyWaitMs, () => node.refresh());
    },
    status: () => proxy.status(),
    hint: proxy.hint,
    describe: (service) =>
      withTimeout(clock, 'reading the rules', 10_000, undefined, (signal) => proxy.describe(service, signal)),
    async dryRun(signal) {
      await proxy.waitForFirstSync(signal);
      return proxy.render();
    },
  };
}
