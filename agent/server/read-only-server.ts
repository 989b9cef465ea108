// The read-only port, where the configuration asks for one: health, pods and figures in the clear, without identity, as the kubelet has
// them on `readOnlyPort`. Nothing here changes anything, and nothing streams.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { CancelledError } from '../../lib/abort.ts';
import type { Log } from '../../lib/log.ts';
import { healthRoute, podsRoute } from './pages.ts';
import { metricsRoutes, type MetricsPagesDeps } from './metrics-pages.ts';
import { findRoute, HttpError, parseTarget, sendText } from './routes.ts';
import { listenOn } from './listen.ts';

export interface ReadOnlyServerDeps extends MetricsPagesDeps {
  readonly log: Log;
}

export interface ReadOnlyServerOptions {
  readonly address: string;
  /** 0: any. */
  readonly port: number;
}

export interface ReadOnlyServer {
  /** Rejects where the port is taken. */
  listen(): Promise<{ port: number }>;
  close(): Promise<void>;
}

const nobody = { name: 'system:anonymous', uid: '', groups: ['system:unauthenticated'], extra: {} };

export function createReadOnlyServer(deps: ReadOnlyServerDeps, options: ReadOnlyServerOptions): ReadOnlyServer {
  const { log } = deps;
  const closing = new AbortController();
  const routes = [healthRoute(deps.health), podsRoute(deps.pods), ...metricsRoutes(deps)];

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const gone = new AbortController();
    response.once('close', () => gone.abort(new CancelledError('the client is gone')));
    response.on('error', () => undefined);
    request.resume();
    try {
      const at = parseTarget(request.url);
      if (!at) throw new HttpError(400, 'Bad Request');
      const found = findRoute(routes, request.method ?? '', at);
      if (found.kind === 'wrong-method')
        throw new HttpError(405, '405: Method Not Allowed', { allow: found.allow.join(', ') });
      if (found.kind === 'not-found' || found.route.kind === 'stream') throw new HttpError(404, '404: Page Not Found');
      const signal = AbortSignal.any([gone.signal, closing.signal]);
      await found.route.serve({ request, response, at, params: found.params, user: nobody, signal });
    } catch (error) {
      if (gone.signal.aborted) return;
      if (response.headersSent) {
        response.destroy();
        return;
      }
      if (!(error instanceof HttpError))
        log.warn('a request of the read-only server failed', { url: request.url?.slice(0, 200), error });
      const known = error instanceof HttpError ? error : new HttpError(500, String(error));
      for (const [name, value] of Object.entries(known.headers)) response.setHeader(name, value);
      sendText(response, known.status, known.message);
    }
  };

  const server = createServer(
    { headersTimeout: 10_000, requestTimeout: 60_000, maxHeaderSize: 64 * 1024 },
    (request, response) => void serve(request, response),
  );
  server.maxConnections = 1024;
  return {
    listen: () =>
      listenOn(server, { port: options.port, host: options.address }, (error) =>
        log.error('the read-only server failed', { error }),
      ),
    close: () =>
      new Promise((resolve) => {
        closing.abort(new CancelledError('the read-only server closes'));
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
