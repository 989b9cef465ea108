// /statusz and /flagz: what runs here and how it was told to, as text.
import type { Clock } from '../../lib/clock.ts';
import { type Route, sendText } from './routes.ts';

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
  return [
    {
      kind: 'page',
      methods: ['GET'],
      pattern: '/statusz',
      serve: ({ response }) => sendText(response, 200, statusz()),
    },
    { kind: 'page', methods: ['GET'], pattern: '/flagz', serve: ({ response }) => sendText(response, 200, flagz()) },
  ];
}
