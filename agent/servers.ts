// The node's listeners: :10250 for the API server and metrics, 127.0.0.1:10248/healthz for the host's own watchdogs, and the read-only
// port where the configuration asks for it.
import { hostname } from 'node:os';
import type { Runtime } from '../cri/runtime.ts';
import type { KubeClient } from '../kube/client.ts';
import { aborted } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { KubeletConfiguration } from './config.ts';
import { kubeletConfigurationOnWire } from './config-wire.ts';
import type { NodeAgent } from './node/node-agent.ts';
import { createCertificateMetrics } from './server/certificate-metrics.ts';
import { createHealthServer } from './server/health-server.ts';
import type { PodDirectory } from './server/directory.ts';
import { createNodeServer, type NodeServerDeps } from './server/node-server.ts';
import { createReadOnlyServer } from './server/read-only-server.ts';
import { loadClientCa } from './tls/client-ca.ts';
import { createCertificateStore } from './tls/certificate-store.ts';
import { loadServingCertificate } from './tls/serving.ts';
import { createServingByCsr, type ServingByCsr } from './tls/serving-by-csr.ts';
import { tlsSettings } from './tls/settings.ts';

export interface ServersDeps {
  readonly client: KubeClient;
  readonly runtime: Runtime;
  readonly clock: Clock;
  readonly log: Log;
  readonly pods: PodDirectory;
  readonly node: Pick<NodeAgent, 'node' | 'onNode'>;
  hostIps(): readonly string[];
  readonly figures: NonNullable<NodeServerDeps['figures']>;
  readonly counts: NodeServerDeps['counts'];
}

export interface ServersOptions {
  readonly nodeName: string;
  readonly config: KubeletConfiguration;
  readonly rootDir: string;
  readonly certDir: string;
  readonly kubeletVersion: string;
  readonly flags?: Readonly<Record<string, string>>;
}

/** What could not be bound, with what to do about it. */
function bindFailed(what: string, address: string, port: number, error: unknown): Error {
  const { code, message } = error as NodeJS.ErrnoException;
  const why =
    code === 'EADDRINUSE'
      ? 'another program listens there (a kubelet?); stop it, or choose another port in the configuration'
      : message;
  return new Error(`${what} cannot listen on ${address}:${port}: ${why}`, { cause: error });
}

type Server = { listen(): Promise<unknown>; close(): Promise<void> };

interface Listening {
  readonly what: string;
  readonly server: Server;
  readonly address: string;
  readonly port: number;
}

/** Those of the servers that the configuration asks for. */
export function listenersOf(
  config: Pick<
    KubeletConfiguration,
    'enableServer' | 'address' | 'port' | 'healthzBindAddress' | 'healthzPort' | 'readOnlyPort'
  >,
  servers: { readonly node: Server; readonly health: Server; readonly readOnly: Server },
): Listening[] {
  const { address, port, healthzBindAddress, healthzPort, readOnlyPort } = config;
  return [
    ...(config.enableServer ? [{ what: 'the node’s server', server: servers.node, address, port }] : []),
    ...(healthzPort > 0
      ? [{ what: '/healthz', server: servers.health, address: healthzBindAddress, port: healthzPort }]
      : []),
    ...(readOnlyPort > 0
      ? [{ what: 'the read-only port', server: servers.readOnly, address, port: readOnlyPort }]
      : []),
  ];
}

/** Binds one after the other and resolves with what closes them; where one cannot be bound, none stays. */
export async function listenOnAll(wanted: readonly Listening[]): Promise<() => Promise<void>> {
  const open: Listening[] = [];
  const close = async (): Promise<void> => void (await Promise.all(open.map(({ server }) => server.close())));
  for (const one of wanted) {
    try {
      await one.server.listen();
    } catch (error) {
      await close();
      throw bindFailed(one.what, one.address, one.port, error);
    }
    open.push(one);
  }
  return close;
}

/** Binds all that the configuration asks for; rejects with a message for the operator. `run` ends when its signal aborts, and closes them. */
export async function startServers(
  deps: ServersDeps,
  options: ServersOptions,
): Promise<{ run(signal: AbortSignal): Promise<void> }> {
  const { config, nodeName, rootDir } = options;
  const { clientCAFile } = config.authentication.x509;
  const health = [{ name: 'ping', failing: () => undefined }];
  const [ownServing, clientCa] = await Promise.all([
    loadServingCertificate(deps, {
      ...(config.tlsCertFile ? { certificateFile: config.tlsCertFile, keyFile: config.tlsPrivateKeyFile } : {}),
      certificateFolder: options.certDir,
      hosts: [nodeName, hostname(), ...deps.hostIps()],
    }),
    clientCAFile ? loadClientCa(deps, clientCAFile) : undefined,
  ]);
  let byCsr: ServingByCsr | undefined;
  const counted =
    config.serverTLSBootstrap && !config.tlsCertFile
      ? createCertificateMetrics(deps.figures.metrics, {
          what: 'server',
          nowMs: () => deps.clock.now(),
          expiresAtMs: (): number | undefined => byCsr?.expiresAtMs(),
        })
      : undefined;
  byCsr = counted
    ? await createServingByCsr(
        {
          ...deps,
          counted,
          store: createCertificateStore({ folder: options.certDir, name: 'kubelet-server' }),
          addresses: () => deps.node.node()?.status?.addresses ?? [],
          fallback: ownServing.current(),
        },
        nodeName,
      )
    : undefined;
  const serving = byCsr ?? ownServing;
  const server = createNodeServer(
    {
      ...deps,
      serving,
      clientCa,
      health,
      configz: () => kubeletConfigurationOnWire(config),
      flags: () => options.flags ?? {},
    },
    {
      nodeName,
      address: config.address,
      port: config.port,
      anonymous: config.authentication.anonymous.enabled,
      tokenWebhook: config.authentication.webhook.enabled,
      tokenTtlMs: config.authentication.webhook.cacheTTL,
      authorizationMode: config.authorization.mode,
      allowedTtlMs: config.authorization.webhook.cacheAuthorizedTTL,
      deniedTtlMs: config.authorization.webhook.cacheUnauthorizedTTL,
      tls: tlsSettings(config.tlsMinVersion, config.tlsCipherSuites),
      streamIdleMs: config.streamingConnectionIdleTimeout,
      rootFolder: rootDir,
      debuggingHandlers: config.enableDebuggingHandlers,
      systemLogs: config.enableSystemLogHandler,
      systemLogQuery: config.enableSystemLogQuery,
      profiling: config.enableProfilingHandler,
      version: options.kubeletVersion,
    },
  );
  const healthServer = createHealthServer({ health }, { address: config.healthzBindAddress, port: config.healthzPort });
  const readOnly = createReadOnlyServer(
    { ...deps, ...deps.figures, health },
    { address: config.address, port: config.readOnlyPort },
  );
  const close = await listenOnAll(listenersOf(config, { node: server, health: healthServer, readOnly }));
  return {
    async run(signal) {
      const unsubscribe = byCsr ? deps.node.onNode(byCsr.check) : undefined;
      try {
        if (byCsr) await byCsr.run(signal);
        else await aborted(signal);
      } finally {
        unsubscribe?.();
        await close();
      }
    },
  };
}
