// The node's server, :10250: what the API server, metrics-server and operators reach. This file puts its parts together.
import { CancelledError } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { ClientCa } from '../tls/client-ca.ts';
import type { ServingCertificate } from '../tls/serving.ts';
import { type TlsSettings, tlsSettings } from '../tls/settings.ts';
import { createAuthorization } from './authorization.ts';
import { containerLogsRoute } from './container-logs.ts';
import type { PodDirectory } from './directory.ts';
import { createIdentity } from './identity.ts';
import { createListener } from './listener.ts';
import { type HealthCheck, pageRoutes } from './pages.ts';
import type { Route } from './routes.ts';
import { streamRoutes } from './streams.ts';

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
  configz(): unknown;
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
}

export interface NodeServer {
  /** Rejects where the address cannot be bound, EADDRINUSE for one. */
  listen(): Promise<{ port: number }>;
  close(): Promise<void>;
}

export function createNodeServer(deps: NodeServerDeps, options: NodeServerOptions): NodeServer {
  const { log, serving, clientCa } = deps;
  const stopping = new AbortController();
  const watching: Promise<void>[] = [];

  const routes: Route[] = [
    ...pageRoutes(deps, { checkpointFolder: `${options.rootFolder}/checkpoints` }),
    containerLogsRoute(deps),
    ...streamRoutes(deps, { idleMs: options.streamIdleMs ?? 4 * 3600_000 }),
  ];
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
