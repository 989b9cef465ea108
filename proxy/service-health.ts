// The servers on Services' health check node ports: load balancers ask there whether this node has endpoints of its own for a Service whose
// external traffic policy is Local.
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { EventRecorder } from '../kube/events.ts';
import type { Log } from '../lib/log.ts';
import { close, listen } from './health.ts';
import type { IpFamily } from './addresses.ts';

export interface ServiceHealthDeps {
  readonly log: Log;
  readonly events: EventRecorder;
  readonly nodeName: string;
  readonly family: IpFamily;
  /** Addresses to listen on; asked when a server starts. */
  addresses(): readonly string[];
  /** Whether the proxy itself is healthy. */
  healthy(): boolean;
  /** Local ready addresses of the Service (`namespace/name`). */
  localReady(serviceKey: string): number;
}

export interface ServiceHealth {
  /** Opens and closes servers so that just these Services (`namespace/name`) have one, on these ports. */
  sync(wanted: ReadonlyMap<string, number>): Promise<void>;
  stop(): Promise<void>;
}

interface Running {
  readonly port: number;
  readonly servers: readonly Server[];
}

/** As kube-proxy writes it, tabs and all. */
export function serviceHealthBody(serviceKey: string, count: number, healthy: boolean): string {
  const [namespace, name] = serviceKey.split('/');
  return `{
\t"service": {
\t\t"namespace": ${JSON.stringify(namespace)},
\t\t"name": ${JSON.stringify(name)}
\t},
\t"localEndpoints": ${count},
\t"serviceProxyHealthy": ${healthy}
}`;
}

export function createServiceHealth(deps: ServiceHealthDeps): ServiceHealth {
  const { log, events } = deps;
  const running = new Map<string, Running>();
  // Ports that could not be opened, so that it is said once.
  const failed = new Map<string, number>();

  const answer = (serviceKey: string, response: ServerResponse): void => {
    const count = deps.localReady(serviceKey);
    const healthy = deps.healthy();
    response.writeHead(count > 0 && healthy ? 200 : 503, {
      'Content-Type': 'application/json',
      'X-Content-Type-Options': 'nosniff',
      'X-Load-Balancing-Endpoint-Weight': String(count),
    });
    response.end(serviceHealthBody(serviceKey, count, healthy));
  };

  const open = async (serviceKey: string, port: number): Promise<void> => {
    const servers: Server[] = [];
    try {
      for (const address of deps.addresses()) {
        const server = createServer((_request, response) => answer(serviceKey, response));
        await listen(server, address, port);
        servers.push(server);
      }
      running.set(serviceKey, { port, servers });
      failed.delete(serviceKey);
    } catch (error) {
      await Promise.all(servers.map(close));
      if (failed.get(serviceKey) === port) return;
      failed.set(serviceKey, port);
      const [namespace = '', name = ''] = serviceKey.split('/');
      const message = `node ${deps.nodeName} failed to start healthcheck "${serviceKey}" on port ${port}: ${String((error as Error).message)}`;
      log.warn('could not serve the health check of a Service; tried again with the next change', {
        service: serviceKey,
        port,
        error,
      });
      events.record(
        { apiVersion: 'v1', kind: 'Service', namespace, name },
        'Warning',
        'FailedToStartServiceHealthcheck',
        message,
      );
    }
  };

  return {
    async sync(wanted) {
      for (const [serviceKey, { port, servers }] of running)
        if (wanted.get(serviceKey) !== port) {
          running.delete(serviceKey);
          await Promise.all(servers.map(close));
        }
      for (const serviceKey of failed.keys()) if (!wanted.has(serviceKey)) failed.delete(serviceKey);
      for (const [serviceKey, port] of wanted) if (!running.has(serviceKey)) await open(serviceKey, port);
    },
    async stop() {
      const servers = [...running.values()].flatMap((entry) => entry.servers);
      running.clear();
      await Promise.all(servers.map(close));
    },
  };
}
