// The node log query: what a client may ask of journald, and the arguments that come of it. Everything is checked against a list of what is
// safe before it gets near a command line.
import { HttpError } from './routes.ts';

export interface NodeLogQuery {
  readonly services: readonly string[];
  readonly files: readonly string[];
  readonly sinceTime: string | undefined;
  readonly untilTime: string | undefined;
  readonly tailLines: number | undefined;
  readonly boot: number | undefined;
  readonly pattern: string | undefined;
  /** Anything beside services and files was asked. */
  readonly hasOptions: boolean;
}

const maxTailLines = 100_000;
const maxServices = 4;
const maxServiceLength = 256;
const safeService = /^[a-zA-Z0-9\-_.:@]+$/;
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

function integer(query: URLSearchParams, name: string, least: number, most: number): number | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  const value = Number(text);
  if (!/^[+-]?\d{1,9}$/.test(text) || value < least || value > most)
    throw new HttpError(
      400,
      `${name}: Invalid value: ${JSON.stringify(text)}: must be between ${least} and ${most}, inclusive\n`,
    );
  return value;
}

function time(query: URLSearchParams, name: string): string | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  if (!rfc3339.test(text) || Number.isNaN(Date.parse(text)))
    throw new HttpError(400, `${name}: Invalid value: ${JSON.stringify(text)}: invalid time format\n`);
  return text;
}

/** Throws an HttpError (400) that names the parameter. */
export function parseNodeLogQuery(query: URLSearchParams): NodeLogQuery {
  const asked = query.getAll('query');
  const files = asked.filter((text) => /[/\\]/.test(text));
  const services = [...asked.filter((text) => !/[/\\]/.test(text)), ...query.getAll('unit')].filter(
    (text) => text.trim() !== '',
  );
  const bad = (what: string): never => {
    throw new HttpError(400, `query: Invalid value: ${JSON.stringify(asked)}: ${what}\n`);
  };
  if (files.length === 0 && services.length === 0) bad('query cannot be empty');
  for (const service of services)
    if (service.length > maxServiceLength || !safeService.test(service) || service.startsWith('-'))
      bad('input contains unsupported characters');
  if (services.length > maxServices) bad(`must have at most ${maxServices} items`);
  if (files.length > 0 && services.length > 0) bad('cannot specify a file and service');
  if (files.length > 1) bad('cannot specify more than one file');
  const sinceTime = time(query, 'sinceTime');
  const untilTime = time(query, 'untilTime');
  if (sinceTime && untilTime && Date.parse(sinceTime) > Date.parse(untilTime))
    throw new HttpError(400, `untilTime: Invalid value: ${JSON.stringify(untilTime)}: must be after \`sinceTime\`\n`);
  const tailLines = integer(query, 'tailLines', 0, maxTailLines);
  const boot = integer(query, 'boot', -1_000, 0);
  const pattern = query.get('pattern') || undefined;
  if (pattern !== undefined && (pattern.length > 4096 || /[\0\n]/.test(pattern)))
    throw new HttpError(400, 'pattern: Invalid value: too long, or with line ends\n');
  const hasOptions = [sinceTime, untilTime, tailLines, boot, pattern].some((value) => value !== undefined);
  if (files.length === 1 && hasOptions) bad('cannot specify file with options');
  return { services, files, sinceTime, untilTime, tailLines, boot, pattern, hasOptions };
}

/** journalctl's own form, in UTC. */
const journalTime = (rfc: string): string => new Date(rfc).toISOString().slice(0, 19).replace('T', ' ');

export function journalArguments(query: NodeLogQuery, services: readonly string[]): string[] {
  const { sinceTime, untilTime, tailLines, boot, pattern } = query;
  return [
    '--utc',
    '--no-pager',
    '--output=short-precise',
    ...(sinceTime === undefined ? [] : [`--since=${journalTime(sinceTime)}`]),
    ...(untilTime === undefined ? [] : [`--until=${journalTime(untilTime)}`]),
    ...(tailLines === undefined ? [] : ['--pager-end', `--lines=${tailLines}`]),
    ...services.map((service) => `--unit=${service}`),
    ...(pattern === undefined ? [] : [`--grep=${pattern}`]),
    ...(boot === undefined ? [] : [`--boot=${boot}`]),
  ];
}
