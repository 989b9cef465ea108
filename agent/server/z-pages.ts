// /statusz and /flagz of the kubelet's server.
import type { Clock } from '../../lib/clock.ts';
import { createZPages, type ZPage } from '../../kube/z-pages.ts';
import type { PageCall, Route } from './routes.ts';

export interface ZPagesDeps {
  readonly clock: Clock;
  /** The flags in force, by name. */
  flags(): Readonly<Record<string, string>>;
}

export interface ZPagesOptions {
  readonly version: string;
}

export function zRoutes(deps: ZPagesDeps, options: ZPagesOptions, patterns: readonly string[]): Route[] {
  const startedMs = deps.clock.now() - process.uptime() * 1000;
  const pages = createZPages(deps, { ...options, component: 'kubelet', startedMs, paths: patterns });
  const route = (page: ZPage): Route => ({
    kind: 'page',
    methods: ['GET'],
    pattern: `/${page}`,
    serve({ request, response }: PageCall) {
      const { status, headers, body } = pages[page](request.headers.accept);
      response.writeHead(status, {
        ...headers,
        'content-length': Buffer.byteLength(body),
        'x-content-type-options': 'nosniff',
      });
      response.end(body);
    },
  });
  return [route('statusz'), route('flagz')];
}
