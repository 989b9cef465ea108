// The proxy's HTTP servers: health on :10256, metrics on 127.0.0.1:10249, and one for each Service with a health check node port.
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { ListenOptions } from 'node:net';
import { bindTo } from '../lib/bind.ts';
import type { Clock } from '../lib/clock.ts';
import { createExposition, labelText } from '../lib/exposition.ts';
import type { Log } from '../lib/log.ts';
import type { MetricsRegistry } from '../lib/metrics.ts';
import type { ZPage, ZPages } from '../kube/z-pages.ts';
import type { ProxyMetrics } from './metrics.ts';
import type { ProxyHealth } from './proxy-health.ts';
import { createSwitch, type Switch } from './switch.ts';

export interface HealthServerDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** An address that is taken is an error (`bindAddressHardFail`). Default false. */
  readonly hardFail?: boolean;
  /** While it is off the address is left to others. Default: on. */
  readonly serving?: Switch;
}

const parseAddress = (address: string): { host: string; port: number } => {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(address.slice(at + 1)) };
};

/** Resolves when the server listens; rejects where it cannot. An unspecified address means all of its own family only. */
export const listen = (server: Server, host: string, port: number): Promise<void> =>
  listenAt(server, { host, port, ipv6Only: host.includes(':') });

function listenAt(server: Server, where: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

export function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

const retryMs = 5_000;

/** Serves on the address until the signal aborts; where it is taken, says so once and goes on trying. */
export async function serveOn(
  deps: HealthServerDeps,
  what: string,
  address: string,
  handler: RequestListener,
  signal: AbortSignal,
): Promise<void> {
  const { host, port } = parseAddress(address);
  const { serving = createSwitch(true) } = deps;
  let said = false;
  while (!signal.aborted) {
    if (!serving.on) {
      await serving.changed(signal);
      continue;
    }
    const server = createServer(handler);
    try {
      await listenAt(server, bindTo(host, port));
    } catch (error) {
      if (deps.hardFail) throw new Error(`${what} cannot listen on ${address}`, { cause: error });
      if (!said) deps.log.warn(`${what} cannot listen on ${address}; tried again every ${retryMs / 1000} s`, { error });
      said = true;
      await deps.clock.sleep(retryMs, signal).catch(() => undefined);
      continue;
    }
    said = false;
    while (serving.on && !signal.aborted) await serving.changed(signal);
    await close(server);
  }
}

const send = (response: ServerResponse, status: number, type: string, body: string): void => {
  response.writeHead(status, { 'Content-Type': type, 'X-Content-Type-Options': 'nosniff' });
  response.end(body);
};

const pathOf = (request: IncomingMessage): string => (request.url ?? '/').split('?')[0]!;

export function healthHandler(health: ProxyHealth, metrics: ProxyMetrics): RequestListener {
  return (request, response) => {
    const path = pathOf(request);
    if (path !== '/healthz' && path !== '/livez') {
      send(response, 404, 'text/plain; charset=utf-8', '404 page not found\n');
      return;
    }
    const report = health.report(path === '/healthz' ? 'healthz' : 'livez');
    const status = report.healthy && report.nodeEligible !== false ? 200 : 503;
    (path === '/healthz' ? metrics.healthz : metrics.livez).inc({ code: String(status) });
    send(response, status, 'application/json', JSON.stringify(report));
  };
}

export interface MetricsPages {
  readonly registry: MetricsRegistry;
  /** What /proxyMode answers. */
  mode(): string;
  /** The configuration in force, as the API writes it. */
  config(): unknown;
  /** /statusz and /flagz, those of them that are not switched off. */
  readonly zPages: Partial<ZPages>;
}

/** What the metrics port has besides, for /statusz. */
export const metricsPaths = ['/configz', '/healthz', '/livez', '/metrics', '/proxyMode', '/readyz'] as const;

/** /metrics/slis: the one check of this server, `ping`, as figures, from the first time it was asked for; DELETE begins anew. */
function createSlis(): { count(): void; reset(): void; text(): string } {
  let checks = 0;
  return {
    count: () => void checks++,
    reset() {
      checks = 0;
    },
    text() {
      if (checks === 0) return '';
      const page = createExposition();
      const ping = { name: 'ping', type: 'healthz' };
      page
        .family('kubernetes_healthcheck', 'gauge', 'This metric records the result of a single healthcheck.')
        .sample(labelText(ping), 1);
      page
        .family('kubernetes_healthchecks_total', 'counter', 'This metric records the results of all healthcheck.')
        .sample(labelText({ name: ping.name, status: 'success', type: ping.type }), checks);
      return page.text();
    },
  };
}

export function metricsHandler(pages: MetricsPages, log: Log): RequestListener {
  const plain = 'text/plain; charset=utf-8';
  const slis = createSlis();
  return (request, response) => {
    const path = pathOf(request);
    switch (path) {
      case '/healthz':
      case '/livez':
      case '/readyz': {
        slis.count();
        const verbose = new URLSearchParams((request.url ?? '').split('?')[1]).has('verbose');
        send(response, 200, plain, verbose ? '[+]ping ok\nhealthz check passed\n' : 'ok');
        return;
      }
      case '/healthz/ping':
        send(response, 200, plain, 'ok');
        return;
      case '/metrics/slis':
        if (request.method === 'DELETE') slis.reset();
        send(response, 200, pages.registry.contentType, request.method === 'DELETE' ? 'metrics reset\n' : slis.text());
        return;
      case '/proxyMode':
        send(response, 200, plain, pages.mode());
        return;
      case '/configz':
        send(response, 200, 'application/json', JSON.stringify({ 'kubeproxy.config.k8s.io': pages.config() }));
        return;
      case '/metrics':
        pages.registry.metrics().then(
          (text) => send(response, 200, pages.registry.contentType, text),
          (error: unknown) => {
            log.warn('could not gather the metrics', { error });
            send(response, 500, plain, 'could not gather the metrics\n');
          },
        );
        return;
      default: {
        const page = pages.zPages[path.slice(1) as ZPage]?.(request.headers.accept);
        if (!page) send(response, 404, plain, '404 page not found\n');
        else {
          response.writeHead(page.status, { ...page.headers, 'x-content-type-options': 'nosniff' });
          response.end(page.body);
        }
      }
    }
  };
}
