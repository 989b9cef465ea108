// The node's server, :10250: what the API server, metrics-server and operators reach. This file puts its parts together.
import { CancelledError } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { MetricsRegistry } from '../../lib/metrics.ts';
import type { NodeStats } from '../stats/node-stats.ts';
import type { ClientCa } from '../tls/client-ca.ts';
import type { ServingCertificate } from '../tls/serving.ts';
import { type TlsSettings, tlsSettings } from '../tls/settings.ts';
import { createAuthorization } from './authorization.ts';
import { containerLogsRoute } from './container-logs.ts';
import type { PodDirectory } from './directory.ts';
import { createIdentity } from './identity.ts';
import { createListener, type ListenerDeps } from './listener.ts';
import type { KubeletMetrics } from './kubelet-metrics.ts';
import { metricsRoutes } from './metrics-pages.ts';
import { nodeLogsRoute } from './node-logs.ts';
import { type HealthCheck, healthRoute, pageRoutes, podsRoute } from './pages.ts';
import { profileRoutes } from './profiles.ts';
import { HttpError, type Route } from './routes.ts';
import { streamRoutes } from './streams.ts';
import { zRoutes } from './z-pages.ts';

export interface NodeServerDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly pods: PodDirectory;
  readonly runtime: Runtime;
  /** For TokenReview and SubjectAccessReview; absent on a node without an API server. */
  readonly client?: KubeClient | undefined;
  readonly serving: ServingCertificate;
  readonly clientCa?: ClientCa | undefined;
  readonly health: readonly HealthCheck[];
  /** What /metrics and its children and /stats/summary show; absent, the pages are. */
  readonly figures?:
    | {
        readonly metrics: MetricsRegistry;
        /** The probes' have a page of their own. */
        readonly probeMetrics: MetricsRegistry;
        readonly stats: NodeStats;
      }
    | undefined;
  /** What the server itself counts. */
  readonly counts?:
    | Pick<KubeletMetrics, 'httpRequests' | 'httpDuration' | 'httpInflight' | 'webSocketStreams'>
    | undefined;
  /** The configuration in force, a KubeletConfiguration. */
  configz(): unknown;
  /** The flags in force, by name, for /flagz. */
  flags?(): Readonly<Record<string, string>>;
}

export interface NodeServerOptions {
  readonly nodeName: string;
  readonly address: string;
  /** 0: any. */
  readonly port: number;
  readonly anonymous: boolean;
  readonly tokenWebhook: boolean;
  readonly tokenTtlMs?: number;
  readonly authorizationMode: 'AlwaysAllow' | 'Webhook';
  readonly allowedTtlMs?: number;
  readonly deniedTtlMs?: number;
  readonly tls?: TlsSettings;
  /** `streamingConnectionIdleTimeout`. Default 4 hours. */
  readonly streamIdleMs?: number;
  /** The agent's root folder: `/var/lib/kubelet`. */
  readonly rootFolder: string;
  /** What /logs/ shows. Default `/var/log`. */
  readonly hostLogFolder?: string;
  /** `enableDebuggingHandlers`: exec, attach, logs and the like. Default true. */
  readonly debuggingHandlers?: boolean;
  /** `enableSystemLogHandler`, default true; `enableSystemLogQuery`, default false. */
  readonly systemLogs?: boolean;
  readonly systemLogQuery?: boolean;
  /** `enableProfilingHandler`. Default true. */
  readonly profiling?: boolean;
  /** As the node's status shows it, for /statusz. */
  readonly version?: string;
}

export interface NodeServer {
  /** Rejects where the address cannot be bound, EADDRINUSE for one. */
  listen(): Promise<{ port: number }>;
  close(): Promise<void>;
}

const debugPaths = ['run', 'exec', 'attach', 'portForward', 'containerLogs', 'runningpods', 'debug', 'logs'];

function routesOf(deps: NodeServerDeps, options: NodeServerOptions): Route[] {
  const always = [
    healthRoute(deps.health),
    podsRoute(deps.pods),
    ...(deps.figures ? metricsRoutes({ ...deps, ...deps.figures }) : []),
  ];
  if (options.debuggingHandlers === false) return [...always, ...debugPaths.map(disabled)];
  const debugging = [
    ...pageRoutes(deps, { checkpointFolder: `${options.rootFolder}/checkpoints` }),
    containerLogsRoute(deps),
    ...streamRoutes(deps, { idleMs: options.streamIdleMs ?? 4 * 3600_000 }),
    nodeLogsRoute({
      folder: options.hostLogFolder ?? '/var/log',
      enabled: options.systemLogs ?? true,
      query: options.systemLogQuery ?? false,
    }),
    ...profileRoutes(deps.clock, { enabled: options.profiling ?? true }),
  ];
  const routes = [...always, ...debugging];
  const patterns = routes.map((route) => route.pattern);
  return [
    ...routes,
    ...zRoutes({ clock: deps.clock, flags: () => deps.flags?.() ?? {} }, { version: options.version ?? '' }, patterns),
  ];
}

const disabled = (path: string): Route => ({
  kind: 'page',
  methods: ['GET', 'POST'],
  pattern: `/${path}/{rest*}`,
  serve: () => {
    throw new HttpError(405, 'Debug endpoints are disabled.\n');
  },
});

function countsOf(counts: NodeServerDeps['counts']): Pick<ListenerDeps, 'onServed' | 'onInflight'> {
  if (!counts) return {};
  const labels = (method: string, path: string, long: boolean) => ({
    long_running: String(long),
    method: knownMethods.has(method) ? method : 'other',
    path,
    server_type: 'readwrite',
  });
  return {
    onServed: (method, path, _status, durationMs, long) => {
      counts.httpRequests.inc(labels(method, path, long));
      counts.httpDuration.observe(labels(method, path, long), durationMs / 1000);
    },
    onInflight: (method, path, change, long) => counts.httpInflight.inc(labels(method, path, long), change),
  };
}

const knownMethods = new Set(['OPTIONS', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'TRACE', 'CONNECT']);

export function createNodeServer(deps: NodeServerDeps, options: NodeServerOptions): NodeServer {
  const { log, serving, clientCa } = deps;
  const stopping = new AbortController();
  const watching: Promise<void>[] = [];

  const routes = routesOf(deps, options);
  const listener = createListener(
    {
      log,
      identity: createIdentity(deps, {
        anonymous: options.anonymous,
        webhook: options.tokenWebhook,
        ...(options.tokenTtlMs === undefined ? {} : { tokenTtlMs: options.tokenTtlMs }),
      }),
      authorization: createAuthorization(deps, {
        mode: options.authorizationMode,
        nodeName: options.nodeName,
        ...(options.allowedTtlMs === undefined ? {} : { allowedTtlMs: options.allowedTtlMs }),
        ...(options.deniedTtlMs === undefined ? {} : { deniedTtlMs: options.deniedTtlMs }),
      }),
      routes,
      ...countsOf(deps.counts),
    },
    {
      address: options.address,
      port: options.port,
      tls: options.tls ?? tlsSettings(undefined, undefined),
      pair: serving.current(),
      clientCa: clientCa?.bundle(),
    },
  );

  const reload = async (changes: AsyncIterable<unknown>): Promise<void> => {
    try {
      for await (const _ of changes) listener.setTls(serving.current(), clientCa?.bundle());
    } catch (error) {
      if (!stopping.signal.aborted)
        log.error('watching the certificates failed; a renewed one is used after a restart', { error });
    }
  };

  return {
    async listen() {
      const bound = await listener.listen();
      watching.push(reload(serving.changes(stopping.signal)));
      if (clientCa) watching.push(reload(clientCa.changes(stopping.signal)));
      log.info('node server listens', { address: options.address, port: bound.port });
      return bound;
    },
    async close() {
      stopping.abort(new CancelledError('the node server closes'));
      await listener.close();
      await Promise.all(watching);
    },
  };
}
