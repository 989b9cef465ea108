// /statusz and /flagz: what runs here and how it was told to, as text; the flags also as the API's object, for those who ask for it.
import type { IncomingMessage } from 'node:http';
import type { Clock } from '../../lib/clock.ts';
import { HttpError, type PageCall, type Route, sendJson, sendText } from './routes.ts';

export interface ZPagesDeps {
  readonly clock: Clock;
  /** The flags in force, by name. */
  flags(): Readonly<Record<string, string>>;
}

export interface ZPagesOptions {
  readonly version: string;
}

/** The version that is asked for by `Accept: application/json;v=…;g=config.k8s.io;as=Flagz`; undefined where text will do. Throws an HttpError (406). */
function structuredVersion({ headers: { accept = '' } }: IncomingMessage): string | undefined {
  const wishes = accept.split(',').map((wish) => wish.split(';').map((part) => part.trim()));
  for (const [type = '', ...parameters] of wishes) {
    if (['', 'text/plain', 'text/*', '*/*'].includes(type)) return undefined;
    if (type !== 'application/json' && type !== 'application/*') continue;
    const has = (parameter: string): boolean => parameters.includes(parameter);
    const version = ['v1beta1', 'v1alpha1'].find((each) => has(`v=${each}`));
    if (version !== undefined && has('g=config.k8s.io') && has('as=Flagz')) return version;
  }
  throw new HttpError(
    406,
    'only the following media types are accepted: text/plain, application/json;v=v1beta1;g=config.k8s.io;as=Flagz',
  );
}

export function zRoutes(deps: ZPagesDeps, options: ZPagesOptions, patterns: readonly string[]): Route[] {
  const startedMs = deps.clock.now() - process.uptime() * 1000;
  const statusz = (): string => {
    const upSeconds = Math.round((deps.clock.now() - startedMs) / 1000);
    const [days, hours, minutes] = [86_400, 3_600, 60].map((unit, index) =>
      Math.floor((index === 0 ? upSeconds : upSeconds % [86_400, 86_400, 3_600][index]!) / unit),
    );
    return [
      '',
      'kubelet statusz',
      'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.',
      '',
      `Started: ${new Date(startedMs).toUTCString()}`,
      `Up: ${days} days ${hours} hr ${minutes} min ${upSeconds % 60} sec`,
      `Node version: ${process.version}`,
      `Binary version: ${options.version}`,
      `Paths: ${[...new Set(patterns.map((pattern) => `/${pattern.split('/')[1]}`))].sort().join(' ')}`,
      '',
    ].join('\n');
  };
  const flagz = (): string => {
    const lines = Object.entries(deps.flags()).sort(([a], [b]) => (a < b ? -1 : 1));
    return [
      '',
      'kubelet flagz',
      'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.',
      '',
      ...lines.map(([name, value]) => `${name}=${value}`),
      '',
    ].join('\n');
  };
  const serveFlagz = ({ request, response }: PageCall): void => {
    const version = structuredVersion(request);
    if (version === undefined) sendText(response, 200, flagz());
    else {
      const kind = { kind: 'Flagz', apiVersion: `config.k8s.io/${version}` };
      sendJson(response, { ...kind, metadata: { name: 'kubelet' }, flags: deps.flags() });
    }
  };
  return [
    {
      kind: 'page',
      methods: ['GET'],
      pattern: '/statusz',
      serve: ({ response }) => sendText(response, 200, statusz()),
    },
    { kind: 'page', methods: ['GET'], pattern: '/flagz', serve: serveFlagz },
  ];
}
