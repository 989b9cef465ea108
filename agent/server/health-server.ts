// 127.0.0.1:10248/healthz: for the host's own watchdogs, without TLS or identity, as the kubelet has it.
import { createServer } from 'node:http';
import { type HealthCheck, healthz } from './pages.ts';
import { parseTarget, sendText } from './routes.ts';
import { listenOn } from './listen.ts';

export interface HealthServerDeps {
  readonly health: readonly HealthCheck[];
}

export interface HealthServerOptions {
  /** `healthzBindAddress`. Default 127.0.0.1. */
  readonly address?: string;
  /** `healthzPort`. Default 10248. */
  readonly port?: number;
}

export interface HealthServer {
  /** Rejects where the port is taken. */
  listen(): Promise<{ port: number }>;
  close(): Promise<void>;
}

export function createHealthServer(deps: HealthServerDeps, options: HealthServerOptions = {}): HealthServer {
  const server = createServer(
    { headersTimeout: 5_000, requestTimeout: 10_000, maxHeaderSize: 16 * 1024 },
    (request, response) => {
      request.resume();
      const at = parseTarget(request.url);
      if (request.method !== 'GET' && request.method !== 'HEAD') sendText(response, 405, '405: Method Not Allowed');
      else if (at?.segments[0] !== 'healthz') sendText(response, 404, '404: Page Not Found');
      else {
        const { status, text } = healthz(deps.health, at.segments.slice(1).join('/'), at.query);
        sendText(response, status, text);
      }
    },
  );
  server.maxConnections = 256;
  return {
    listen: () =>
      listenOn(server, { port: options.port ?? 10_248, host: options.address ?? '127.0.0.1' }, () => undefined),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
