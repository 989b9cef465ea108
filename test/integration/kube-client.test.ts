// The API client against a small HTTPS server of the test's own: streams, breaks, silence, refusals, rotation. No root, no cluster.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from 'node:http2';
import { createServer as createHttps, type Server as HttpsServer } from 'node:https';
import { type AddressInfo, connect, createServer as createTcp, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { KubeClient } from '../../kube/client.ts';
import type { ClientConfig } from '../../kube/client-config.ts';
import { ApiError, isUnreachable } from '../../kube/errors.ts';
import { createKubeClient, type KubeClientOptions } from '../../kube/http-client.ts';
import { resources } from '../../kube/resources.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';

let folder: string;
const inFolder = (name: string): string => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-client-'));
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
    '-subj',
    '/CN=ca',
    '-days',
    '2',
  );
  for (const name of ['server', 'alice', 'bob']) {
    openssl(
      'req',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
      '-subj',
      `/CN=${name}`,
    );
    writeFileSync(inFolder('ext'), 'subjectAltName=IP:127.0.0.1,DNS:localhost');
    openssl(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.crt',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-out',
      `${name}.crt`,
      '-days',
      '2',
      '-extfile',
      'ext',
    );
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Request = Http2ServerRequest;
type Response = Http2ServerResponse;
type Handle = (request: Request, response: Response, url: URL) => void;

const open: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

interface TestServer {
  readonly url: string;
  readonly sockets: Set<Socket>;
  /** Requests by protocol version. */
  readonly seen: string[];
}

async function serve(handle: Handle, options: { h2?: boolean; maxStreams?: number } = {}): Promise<TestServer> {
  const tls = {
    key: readFileSync(inFolder('server.key')),
    cert: readFileSync(inFolder('server.crt')),
    ca: readFileSync(inFolder('ca.crt')),
    requestCert: true,
    rejectUnauthorized: false,
  };
  const seen: string[] = [];
  const onRequest = (request: Request, response: Response): void => {
    seen.push(request.httpVersion);
    handle(request, response, new URL(request.url, 'https://x'));
  };
  const server: Http2SecureServer | HttpsServer =
    options.h2 === false
      ? createHttps(tls, onRequest as never)
      : createSecureServer({ ...tls, settings: { maxConcurrentStreams: options.maxStreams ?? 100 } }, onRequest);
  const sockets = new Set<Socket>();
  server.on('secureConnection', (socket: TLSSocket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
  });
  server.on('sessionError', () => undefined);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  open.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets, seen };
}

function clientOf(
  server: { url: string },
  config: Partial<ClientConfig> = {},
  options: KubeClientOptions = {},
  clock = systemClock,
): KubeClient {
  const client = createKubeClient(
    { log: silentLog, clock },
    { source: 'test', server: server.url, certificateAuthority: { from: 'file', path: inFolder('ca.crt') }, ...config },
    options,
  );
  open.push(() => client.close());
  return client;
}

const json = (response: Response, value: unknown, status = 200, headers: Record<string, string> = {}): void => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(value));
};
const status = (code: number, reason: string, message: string) => ({
  kind: 'Status',
  status: 'Failure',
  code,
  reason,
  message,
});
const event = (type: string, name: string): string =>
  `${JSON.stringify({ type, object: { metadata: { name, resourceVersion: '1' } } })}\n`;

/** Answers watches with one event and keeps them open; everything else with the path. */
const plain: Handle = (_, response, url) => {
  if (!url.searchParams.has('watch')) return json(response, { metadata: { name: url.pathname } });
  response.writeHead(200, { 'content-type': 'application/json' });
  response.write(event('ADDED', 'a'));
};

function watchMany(client: KubeClient, count: number) {
  const controller = new AbortController();
  let events = 0;
  const ends = Array.from({ length: count }, async () => {
    try {
      for await (const _ of client.watch(resources.configMaps, { signal: controller.signal })) events++;
      return undefined;
    } catch (error) {
      return error;
    }
  });
  return { controller, ends: Promise.all(ends), events: () => events };
}

async function until(what: string, holds: () => boolean, ms = 15_000): Promise<void> {
  for (const by = performance.now() + ms; !holds(); await systemClock.sleep(5))
    if (performance.now() > by) throw new Error(`never happened: ${what}`);
}

const told = new WeakSet<object>();
/** What Go's server does with `Connection: close`, as an API server has it in each 401: the last stream it serves is this one. */
function goAfterThis(request: Request): void {
  const { session } = request.stream;
  if (!session || told.has(session)) return;
  told.add(session);
  session.goaway(0, request.stream.id!);
}

const at = { namespace: 'default', name: 'a' };

describe('connections', () => {
  it('hundreds of watches share a few, and a call does not wait for them', async () => {
    const server = await serve(plain);
    const client = clientOf(server);
    const watches = watchMany(client, 300);
    await until('all watches stand', () => watches.events() === 300);
    await client.get(resources.configMaps, at);
    const startedAt = performance.now();
    await Promise.all(Array.from({ length: 50 }, () => client.get(resources.configMaps, at)));
    expect(performance.now() - startedAt).toBeLessThan(2000);
    expect(server.sockets.size).toBe(5);
    expect(new Set(server.seen)).toEqual(new Set(['2.0']));
    watches.controller.abort(new Error('enough'));
    expect(await watches.ends).toEqual(
      Array.from({ length: 300 }, () => expect.objectContaining({ message: 'enough' })),
    );
  });

  it('a slow call holds up no other, a write neither', async () => {
    const server = await serve((request, response, url) => {
      if (url.pathname.endsWith('/slow')) setTimeout(() => json(response, {}), 1500);
      else request.on('data', () => undefined).on('end', () => json(response, { metadata: { name: 'x' } }));
    });
    const client = clientOf(server);
    await client.get(resources.configMaps, at);
    let slowDone = false;
    const slow = client.get(resources.configMaps, { namespace: 'default', name: 'slow' }).then(() => {
      slowDone = true;
    });
    await client.create(resources.configMaps, { metadata: at });
    await client.patch(resources.configMaps, at, {}, { type: 'merge' });
    await client.delete(resources.configMaps, at, { gracePeriodSeconds: 0 });
    expect(slowDone).toBe(false);
    await slow;
  });

  it('fall back to HTTP/1.1', async () => {
    const server = await serve(plain, { h2: false });
    const client = clientOf(server);
    const watches = watchMany(client, 12);
    await until('all watches stand', () => watches.events() === 12);
    await Promise.all(Array.from({ length: 8 }, () => client.get(resources.configMaps, at)));
    await client.delete(resources.configMaps, at, { gracePeriodSeconds: 0 });
    expect(new Set(server.seen)).toEqual(new Set(['1.1']));
    watches.controller.abort(new Error('enough'));
    await watches.ends;
  });

  it('tell those that wait for the server when it answers, a refusal of its own too, and not when one before it does', async () => {
    let status = 503;
    const server = await serve((_request, response) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end('{}');
    });
    const client = clientOf(server);
    const { signal } = new AbortController();
    const rest = async (ms: number): Promise<boolean | undefined> => {
      const resting = client.contact?.rest(ms, 0, signal);
      await client.get(resources.configMaps, at).catch(() => undefined);
      return await resting;
    };
    expect(await rest(1_000)).toBe(false);
    status = 403;
    expect(await rest(20_000)).toBe(true);
    status = 200;
    expect(await rest(20_000)).toBe(true);
  });

  it('that break are told to watches, and calls go on over new ones', async () => {
    const server = await serve(plain);
    const client = clientOf(server);
    const watches = watchMany(client, 20);
    await until('all watches stand', () => watches.events() === 20);
    await client.get(resources.configMaps, at);
    for (const socket of server.sockets) socket.destroy();
    for (const end of await watches.ends) expect(end).toSatisfy(isUnreachable);
    await client.get(resources.configMaps, at);
  });

  it('whose server asks them to go (GOAWAY) are replaced, a read under way is sent again', async () => {
    let reads = 0;
    const server = await serve((request, response) => {
      if (reads++ === 0) {
        request.stream.session?.goaway();
        // It promised an answer and is gone before it gave one.
        setTimeout(() => request.stream.session?.socket?.destroy(), 20);
      } else json(response, { metadata: { name: 'a' } });
    });
    const client = clientOf(server);
    expect((await client.get(resources.configMaps, at)).metadata.name).toBe('a');
    expect(reads).toBe(2);
  });

  it('whose server asks them to go after the answers it owes give these, and watches go on', async () => {
    const server = await serve((request, response, url) => {
      if (url.searchParams.has('watch')) return plain(request, response, url);
      goAfterThis(request);
      setTimeout(() => json(response, { metadata: { name: `${server.sockets.size}` } }), 50);
    });
    const client = clientOf(server);
    const watches = watchMany(client, 3);
    await until('all watches stand', () => watches.events() === 3);
    for (let count = 0; count < 5; count++) await client.get(resources.configMaps, at);
    const written = await Promise.all(
      Array.from({ length: 5 }, () => client.update(resources.configMaps, { metadata: at })),
    );
    expect(written).toHaveLength(5);
    await until('the connections that were asked to go are gone', () => server.sockets.size <= 2);
    watches.controller.abort(new Error('enough'));
    expect(await watches.ends).toEqual(Array.from({ length: 3 }, () => expect.objectContaining({ message: 'enough' })));
  });

  it('that fall silent are noticed', async () => {
    const server = await serve(plain);
    const relay = await frozenRelay(Number(new URL(server.url).port));
    const client = clientOf(relay, {}, { pingIntervalMs: 100, silenceMs: 400 });
    const watches = watchMany(client, 3);
    await until('all watches stand', () => watches.events() === 3);
    await systemClock.sleep(900);
    expect(relay.connections()).toBe(1);
    const frozenAt = performance.now();
    relay.freeze();
    for (const end of await watches.ends) expect((end as Error).message).toMatch(/has not answered for/);
    expect(performance.now() - frozenAt).toBeLessThan(3000);
  });
});

/** A TCP relay that can stop carrying anything without closing, as a machine that lost its power does. */
async function frozenRelay(port: number) {
  const pairs: Socket[] = [];
  const relay: Server = createTcp((from) => {
    const to = connect(port, '127.0.0.1');
    pairs.push(from, to);
    for (const socket of [from, to]) socket.on('error', () => undefined);
    from.pipe(to).pipe(from);
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  open.push(async () => {
    for (const socket of pairs) socket.destroy();
    await new Promise((resolve) => relay.close(resolve));
  });
  return {
    url: `https://127.0.0.1:${(relay.address() as AddressInfo).port}`,
    connections: () => pairs.length / 2,
    freeze() {
      for (const socket of pairs) socket.unpipe().pause();
    },
  };
}

describe('answers', () => {
  it('that refuse are ApiErrors that say the verb, the path and the words', async () => {
    const server = await serve((_, response, url) =>
      url.pathname.endsWith('/a')
        ? json(response, status(404, 'NotFound', 'configmaps "a" not found'), 404)
        : json(response, {}, 500),
    );
    const client = clientOf(server);
    const refused = await client.get(resources.configMaps, at).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ApiError);
    expect(refused).toMatchObject({
      code: 'not-found',
      status: 404,
      reason: 'NotFound',
      message: 'get /api/v1/namespaces/default/configmaps/a: configmaps "a" not found (HTTP 404)',
    });
    await expect(client.raw('GET', '/x')).rejects.toMatchObject({ code: 'server', status: 500 });
  });

  it('that ask to come back later are heeded', async () => {
    let calls = 0;
    const server = await serve((_, response) =>
      calls++ === 0
        ? json(response, status(429, 'TooManyRequests', 'later'), 429, { 'retry-after': '1' })
        : json(response, { metadata: {} }),
    );
    const startedAt = performance.now();
    await clientOf(server).get(resources.configMaps, at);
    expect(performance.now() - startedAt).toBeGreaterThan(950);
    expect(calls).toBe(2);
  });

  it('that never come are given up', async () => {
    const server = await serve(() => undefined);
    await expect(clientOf(server).get(resources.configMaps, at, { timeoutMs: 200 })).rejects.toMatchObject({
      code: 'timeout',
    });
    await expect(clientOf({ url: 'https://127.0.0.1:1' }).get(resources.configMaps, at)).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('ECONNREFUSED'),
    });
  });

  it('from a server of another CA are refused', async () => {
    const server = await serve(plain);
    const other = clientOf(server, { certificateAuthority: undefined });
    await expect(other.get(resources.configMaps, at)).rejects.toSatisfy(isUnreachable);
    const careless = clientOf(server, { certificateAuthority: undefined, insecureSkipTlsVerify: true });
    await careless.get(resources.configMaps, at);
    const misnamed = clientOf(server, { tlsServerName: 'elsewhere' });
    await expect(misnamed.get(resources.configMaps, at)).rejects.toThrow(/altnames|elsewhere/);
    await clientOf(server, { tlsServerName: 'localhost' }).get(resources.configMaps, at);
  });

  it('stop when the caller or the client does', async () => {
    const server = await serve(() => undefined);
    const client = clientOf(server);
    const controller = new AbortController();
    const aborted = client.get(resources.configMaps, at, { signal: controller.signal });
    const closed = client.get(resources.configMaps, at);
    setTimeout(() => controller.abort(new Error('mine')), 50);
    await expect(aborted).rejects.toThrow('mine');
    const outcome = expect(closed).rejects.toThrow(/the client was closed/);
    await client.close();
    await outcome;
    await expect(client.get(resources.configMaps, at)).rejects.toThrow(/closed/);
  });

  it('of a watch: errors inside it, its end, and much of it without holding up others', async () => {
    const many = 20_000;
    const server = await serve((_, response, url) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      if (url.searchParams.get('resourceVersion') === '1')
        response.end(`${JSON.stringify({ type: 'ERROR', object: status(410, 'Expired', 'too old') })}\n`);
      else response.end(event('ADDED', 'x'.repeat(400)).repeat(many));
    });
    const client = clientOf(server);
    const { signal } = new AbortController();
    const read = async (resourceVersion: string): Promise<number> => {
      let events = 0;
      for await (const _ of client.watch(resources.configMaps, { signal, resourceVersion })) events++;
      return events;
    };
    await expect(read('1')).rejects.toMatchObject({ code: 'gone' });
    let turns = 0;
    const ticking = setInterval(() => turns++, 5);
    expect(await read('2')).toBe(many);
    clearInterval(ticking);
    expect(turns).toBeGreaterThan(3);
  });
});

describe('identity', () => {
  const whoami: Handle = (request, response) => {
    const name = (request.socket as TLSSocket).getPeerCertificate?.().subject?.CN ?? 'nobody';
    const token = request.headers.authorization ?? '';
    if (token === 'Bearer old') json(response, status(401, 'Unauthorized', 'Unauthorized'), 401);
    else json(response, { name, token });
  };

  it('a client certificate that changes on disk is used without a restart; calls under way end', async () => {
    const use = (name: string): void => {
      copyFileSync(inFolder(`${name}.crt`), inFolder('me.crt'));
      copyFileSync(inFolder(`${name}.key`), inFolder('me.key'));
    };
    use('alice');
    let skewMs = 0;
    const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + skewMs };
    const server = await serve((request, response, url) => {
      if (url.searchParams.has('watch')) plain(request, response, url);
      else if (url.pathname === '/slow') setTimeout(() => whoami(request, response, url), 500);
      else whoami(request, response, url);
    });
    const pems = {
      clientCertificate: { from: 'file', path: inFolder('me.crt') },
      clientKey: { from: 'file', path: inFolder('me.key') },
    } as const;
    const client = clientOf(server, pems, {}, clock);
    const name = async (path: string): Promise<string> => JSON.parse(await client.raw('GET', path)).name;
    const watches = watchMany(client, 1);
    await until('the watch stands', () => watches.events() === 1);
    expect(await name('/')).toBe('alice');
    const before = server.seen.length;
    const slow = name('/slow');
    await until('the slow call is under way', () => server.seen.length > before);
    use('bob');
    skewMs = 6000;
    expect(await name('/')).toBe('bob');
    expect((await watches.ends)[0]).toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('certificate changed'),
    });
    expect(await slow).toBe('alice');
    await until('only the new connection stays', () => server.sockets.size === 1);
  });

  it('a token file is read again when the token is refused', async () => {
    writeFileSync(inFolder('token'), 'old');
    const server = await serve((request, response, url) => {
      writeFileSync(inFolder('token'), 'new');
      whoami(request, response, url);
    });
    const client = clientOf(server, { tokenFile: inFolder('token') });
    expect(JSON.parse(await client.raw('GET', '/')).token).toBe('Bearer new');
  });

  it('a token refused with GOAWAY is a refusal, of calls and of watches', async () => {
    const server = await serve((request, response) => {
      goAfterThis(request);
      setTimeout(() => json(response, status(401, 'Unauthorized', 'Unauthorized'), 401), 20);
    });
    const client = clientOf(server, { token: 'wrong' });
    const refusal = expect.objectContaining({ code: 'unauthorized', status: 401 });
    for (let count = 0; count < 3; count++) await expect(client.get(resources.configMaps, at)).rejects.toEqual(refusal);
    expect(await watchMany(client, 2).ends).toEqual([refusal, refusal]);
  });

  it('a refused token that stays the same is told of', async () => {
    const server = await serve(whoami);
    await expect(clientOf(server, { token: 'old' }).raw('GET', '/')).rejects.toMatchObject({
      code: 'unauthorized',
      status: 401,
    });
  });
});
