// /logs/: the host's /var/log as files, and the node log query (`?query=kubelet`), which asks journald or falls back to files. A path
// is resolved to what it really is before it is opened, and must still be inside.
import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { open, readdir, readlink, realpath, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { pipeline } from 'node:stream/promises';
import { exec } from '../../lib/exec.ts';
import { HttpError, type PageCall, type Route, sendText } from './routes.ts';
import { journalArguments, type NodeLogQuery, parseNodeLogQuery } from './node-log-query.ts';

export interface NodeLogsOptions {
  /** `/var/log`. */
  readonly folder: string;
  /** `enableSystemLogHandler`. */
  readonly enabled: boolean;
  /** `enableSystemLogQuery`. */
  readonly query: boolean;
}

const queryMs = 30_000;

/** The real path of what is meant inside the folder; throws an HttpError (404) where it is outside or not there. */
export async function resolveInside(folder: string, path: string): Promise<string> {
  const notFound = new HttpError(404, '404 page not found\n');
  const root = await realpath(folder).catch(() => {
    throw notFound;
  });
  const real = await realpath(join(root, path)).catch(() => {
    throw notFound;
  });
  if (real !== root && !real.startsWith(`${root}/`)) throw notFound;
  return real;
}

/** Opens without following a link that took the path's place after it was resolved, and checks where the file lies once it is open. */
async function openInside(folder: string, real: string) {
  const root = await realpath(folder);
  const file = await open(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const opened = await readlink(`/proc/self/fd/${file.fd}`);
  const found = await file.stat();
  if (opened.startsWith(`${root}/`) && found.isFile()) return { file, found };
  await file.close();
  throw new HttpError(404, '404 page not found\n');
}

const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

async function listing(real: string): Promise<string> {
  const entries = await readdir(real, { withFileTypes: true });
  const names = entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name)).sort();
  const lines = names.map(
    (name) => `<a href="${escapeHtml(encodeURIComponent(name).replaceAll('%2F', '/'))}">${escapeHtml(name)}</a>`,
  );
  return `<!doctype html>\n<meta name="viewport" content="width=device-width">\n<pre>\n${lines.join('\n')}\n</pre>\n`;
}

async function serveFile(call: PageCall, folder: string, path: string): Promise<void> {
  const { response, signal } = call;
  const real = await resolveInside(folder, path);
  if ((await stat(real)).isDirectory()) {
    sendText(response, 200, await listing(real), 'text/html; charset=utf-8');
    return;
  }
  const { file, found } = await openInside(folder, real);
  const { size } = found;
  const range = /^bytes=(\d+)-(\d*)$/.exec(call.request.headers.range ?? '');
  const start = range ? Number(range[1]) : 0;
  const end = Math.min(range?.[2] ? Number(range[2]) : size - 1, size - 1);
  const type = /\.(gz|zst|xz|bz2|journal)$/.test(basename(real))
    ? 'application/octet-stream'
    : 'text/plain; charset=utf-8';
  if (range && start > end) {
    await file.close();
    throw new HttpError(416, 'invalid range\n', { 'content-range': `bytes */${size}` });
  }
  response.writeHead(range ? 206 : 200, {
    'content-type': type,
    'content-length': size === 0 ? 0 : end - start + 1,
    'accept-ranges': 'bytes',
    'last-modified': found.mtime.toUTCString(),
    ...(range ? { 'content-range': `bytes ${start}-${end}/${size}` } : {}),
  });
  if (call.request.method === 'HEAD' || size === 0) {
    await file.close();
    response.end();
    return;
  }
  // A file that grows meanwhile is sent as long as it was.
  await pipeline(file.createReadStream({ start, end }), response, { signal });
}

/** The services journald knows; without journald, none. */
async function nativeServices(services: readonly string[], signal: AbortSignal): Promise<string[]> {
  try {
    const { stdout } = await exec('journalctl', ['--field', '_SYSTEMD_UNIT'], { timeoutMs: queryMs, signal });
    const units = new Set(stdout.split('\n'));
    return services.filter((service) => units.has(`${service}.service`) || units.has(service));
  } catch {
    return [];
  }
}

/** `/var/log/NAME`, `NAME.log` or `NAME/NAME.log`, whichever is a file first. */
async function serviceFile(folder: string, service: string): Promise<string | undefined> {
  for (const name of [service, `${service}.log`, `${service}/${service}.log`]) {
    const real = await resolveInside(folder, name).catch(() => undefined);
    if (real && (await stat(real)).isFile()) return name;
  }
  return undefined;
}

async function serveQuery(call: PageCall, folder: string, query: NodeLogQuery): Promise<void> {
  const { response, signal, request } = call;
  if (query.files.length === 1) {
    await serveFile(call, folder, query.files[0]!);
    return;
  }
  const native = await nativeServices(query.services, signal);
  const others = query.services.filter((service) => !native.includes(service));
  if (others.length > 0 && query.hasOptions) {
    sendText(
      response,
      200,
      `\noptions present and query resolved to log files for [${others.join(' ')}]\ntry without specifying options\n`,
    );
    return;
  }
  const zipped = request.headers['accept-encoding'] === 'gzip';
  response.writeHead(200, {
    'content-type': 'text/plain;charset=UTF-8',
    ...(zipped ? { 'content-encoding': 'gzip' } : {}),
  });
  const send = async (source: AsyncIterable<Buffer | string>): Promise<void> => {
    if (zipped) await pipeline(source, createGzip({ level: 1 }), response, { signal });
    else await pipeline(source, response, { signal });
  };
  await send(others.length > 0 ? fileTexts(folder, others) : journal(query, native, signal));
}

async function* fileTexts(folder: string, services: readonly string[]): AsyncGenerator<Buffer | string> {
  for (const service of services) {
    const name = await serviceFile(folder, service);
    if (name === undefined) {
      yield `\nlog not found for ${service}\n`;
      continue;
    }
    const { file } = await openInside(folder, await resolveInside(folder, name));
    for await (const part of file.createReadStream() as Readable & AsyncIterable<Buffer>) yield part;
  }
}

/** What journalctl prints, at the pace of the reader; ended after 30 s, as the kubelet does. */
async function* journal(
  query: NodeLogQuery,
  services: readonly string[],
  outer: AbortSignal,
): AsyncGenerator<Buffer | string> {
  const signal = AbortSignal.any([outer, AbortSignal.timeout(queryMs)]);
  const child = spawn('journalctl', journalArguments(query, services), { stdio: ['ignore', 'pipe', 'pipe'], signal });
  let failed: string | undefined;
  const ended = new Promise<void>((resolve) => {
    child.on('error', (error) => {
      failed = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'journalctl is not installed' : error.message;
      resolve();
    });
    child.on('close', () => resolve());
  });
  let said = '';
  child.stderr.on('data', (part: Buffer) => {
    if (said.length < 4096) said += part.toString('utf8');
  });
  try {
    for await (const part of child.stdout as AsyncIterable<Buffer>) yield part;
    await ended;
    if (failed !== undefined && !outer.aborted) yield `\nerror: journal output not available: ${failed}\n`;
    else if (said !== '') yield said;
  } finally {
    child.kill('SIGKILL');
  }
}

export function nodeLogsRoute(options: NodeLogsOptions): Route {
  return {
    kind: 'page',
    methods: ['GET', 'HEAD'],
    pattern: '/logs/{path*}',
    async serve(call) {
      const { at, params } = call;
      if (!options.enabled) throw new HttpError(405, 'logs endpoint is disabled.\n');
      const path = params.path ?? '';
      if (path === '' && ['query', 'unit'].some((name) => at.query.has(name))) {
        if (!options.query) throw new HttpError(403, 'the node log query is disabled: enableSystemLogQuery is false\n');
        await serveQuery(call, options.folder, parseNodeLogQuery(at.query));
        return;
      }
      await serveFile(call, options.folder, path);
    },
  };
}
