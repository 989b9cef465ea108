// The whole server on loopback, with a runtime and an API server that are a few lines each.
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { request } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as tlsConnect, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { RuntimeError } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { SubjectAccessReview, TokenReview } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { loadClientCa } from '../tls/client-ca.ts';
import { loadServingCertificate } from '../tls/serving.ts';
import { type Authority, createAuthority, type Pair } from './certificates.fixture.ts';
import { createRegistry } from '../../lib/metrics.ts';
import type { NodeStats } from '../stats/node-stats.ts';
import type { PodDirectory } from './directory.ts';
import { createNodeServer, type NodeServer, type NodeServerOptions } from './node-server.ts';

let folder: string;
let authority: Authority;
let apiserver: Pair;
let nobody: Pair;
let stranger: Pair;
let expired: Pair;
let wrongUse: Pair;
let streaming: Server;
let streamingUrl: string;

beforeAll(async () => {
  authority = await createAuthority('cluster-ca');
  const other = await createAuthority('other-ca');
  [apiserver, nobody, stranger, expired, wrongUse] = await Promise.all([
    authority.issue({ name: 'kube-apiserver', groups: ['system:masters'] }),
    authority.issue({ name: 'nobody', groups: ['nobodies'] }),
    other.issue({ name: 'kube-apiserver', groups: ['system:masters'] }),
    authority.issue({ name: 'kube-apiserver', groups: ['system:masters'] }, { validMs: -1000 }),
    authority.issue({ name: 'kube-apiserver', groups: ['system:masters'] }, { usage: 'server' }),
  ]);
  // The runtime's streaming server: echoes what comes after its 101.
  streaming = createServer((_request, response) => {
    response.statusCode = 404;
    response.end('no such stream');
  });
  streaming.on('upgrade', (incoming, socket: Socket, head: Buffer) => {
    if (incoming.url === '/refused') {
      socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno');
      return;
    }
    const told = ['x-stream-protocol-version', 'authorization'].map(
      (name) => `${name}=${incoming.headers[name] ?? ''}`,
    );
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Told: ${incoming.method} ${told.join(' ')}\r\n\r\nhello:`,
    );
    socket.write(head);
    socket.pipe(socket);
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => streaming.listen(0, '127.0.0.1', resolve));
  streamingUrl = `http://127.0.0.1:${(streaming.address() as AddressInfo).port}`;
});
afterAll(() => {
  streaming.closeAllConnections();
  streaming.close();
});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'node-server-'));
});
afterEach(async () => await rm(folder, { recursive: true, force: true }));

const pod: Pod = {
  metadata: { name: 'web', namespace: 'default', uid: 'u1' },
  spec: {
    containers: [
      { name: 'app', image: 'i' },
      { name: 'late', image: 'i' },
    ],
  },
  status: {
    containerStatuses: [
      {
        name: 'app',
        ready: true,
        restartCount: 0,
        image: 'i',
        imageID: 'i',
        containerID: 'containerd://c1',
        state: { running: {} },
      },
      {
        name: 'late',
        ready: false,
        restartCount: 0,
        image: 'i',
        imageID: '',
        state: { waiting: { reason: 'ContainerCreating' } },
      },
    ],
  },
};

interface World {
  readonly port: number;
  readonly server: NodeServer;
  readonly asked: { tokens: string[]; access: string[] };
  readonly streamPath: { value: string };
  readonly end: () => void;
}

async function start(options: Partial<NodeServerOptions> = {}): Promise<World> {
  const asked = { tokens: [] as string[], access: [] as string[] };
  const streamPath = { value: '/ok' };
  let end: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const pods: PodDirectory = {
    pods: () => [pod],
    byName: (namespace, name) => (namespace === 'default' && name === 'web' ? pod : undefined),
    container: (uid, name) =>
      uid === 'u1' && name === 'app'
        ? { id: 'c1', state: 'running', logPath: join(folder, 'app.log'), restartCount: 0 }
        : undefined,
    sandbox: (uid) => (uid === 'u1' ? { id: 's1', ips: [], ready: true } : undefined),
    ended: () => ended,
  };
  const url = async () => ({ kind: 'url' as const, url: `${streamingUrl}${streamPath.value}` });
  const runtime = {
    exec: async (asked: { command: readonly string[] }) => {
      if (asked.command[0] === 'gone') throw new RuntimeError('not-found', 'Exec', 'no such container');
      return await url();
    },
    attach: url,
    portForward: url,
    execSync: async (_id: string, command: readonly string[]) => ({
      stdout: Buffer.from(command.join('+')),
      stderr: Buffer.alloc(0),
      exitCode: 0,
    }),
    listSandboxes: async () => [],
    listContainers: async () => [],
  } as unknown as Runtime;
  const client = {
    create: async (resource: { kind: string }, object: TokenReview & SubjectAccessReview) => {
      if (resource.kind === 'TokenReview') {
        asked.tokens.push(object.spec.token);
        if (object.spec.token === 'broken') throw new Error('unreachable');
        const good = object.spec.token === 'good';
        return { ...object, status: good ? { authenticated: true, user: { username: 'sa', groups: ['g'] } } : {} };
      }
      const { verb, subresource, name } = object.spec.resourceAttributes!;
      asked.access.push(`${object.spec.user} ${verb} ${name}/${subresource}`);
      const metricsOnly = object.spec.user === 'sa' && subresource === 'configz';
      return { ...object, status: { allowed: object.spec.groups!.includes('system:masters') || metricsOnly } };
    },
  } as unknown as KubeClient;
  const stats = {
    resourcePage: async () => 'scrape_error 0\n',
    summary: async (asked: unknown) => ({ asked }),
  } as unknown as NodeStats;
  const caFile = join(folder, 'ca.crt');
  await writeFile(caFile, authority.bundle);
  const watched = { clock: systemClock, log: silentLog };
  const server = createNodeServer(
    {
      ...watched,
      pods,
      runtime,
      client,
      health: [],
      figures: { metrics: createRegistry(), probeMetrics: createRegistry(), stats },
      flags: () => ({ config: '/etc/c.yaml' }),
      configz: () => ({ kind: 'KubeletConfiguration' }),
      serving: await loadServingCertificate(watched, { certificateFolder: folder, hosts: ['n1', '127.0.0.1'] }),
      clientCa: await loadClientCa(watched, caFile),
    },
    {
      nodeName: 'n1',
      address: '127.0.0.1',
      port: 0,
      anonymous: false,
      tokenWebhook: true,
      authorizationMode: 'Webhook',
      rootFolder: folder,
      version: 'v1.36.0+stevedore.0.1.0',
      ...options,
    },
  );
  const { port } = await server.listen();
  return { port, server, asked, streamPath, end };
}

interface Answer {
  readonly status: number;
  readonly text: string;
}
const call = (
  world: World,
  path: string,
  options: { as?: Pair; token?: string; method?: string; accept?: string } = {},
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const { as, token, method = 'GET', accept } = options;
    const outgoing = request(
      {
        host: '127.0.0.1',
        port: world.port,
        path,
        method,
        rejectUnauthorized: false,
        agent: false,
        ...(as ? { cert: as.certificate, key: as.key } : {}),
        headers: { ...(token ? { authorization: `Bearer ${token}` } : {}), ...(accept ? { accept } : {}) },
      },
      (response) => {
        let text = '';
        response.on('data', (part: Buffer) => (text += part.toString()));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
        response.on('error', reject);
      },
    );
    outgoing.on('error', reject);
    outgoing.end();
  });

describe('identity and authorization', () => {
  it('lets in whom the API server allows, refuses the others, and remembers both', async () => {
    const world = await start();
    try {
      expect((await call(world, '/pods', { as: apiserver })).status).toBe(200);
      expect((await call(world, '/pods', { as: apiserver })).status).toBe(200);
      expect(world.asked.access).toEqual(['kube-apiserver get n1/pods']);
      const refused = await call(world, '/exec/a/b/c', { as: nobody, method: 'POST' });
      expect(refused).toEqual({
        status: 403,
        text: 'Forbidden (user=nobody, verb=create, resource=nodes, subresource(s)=[proxy])\n',
      });
      expect((await call(world, '/pods', { as: nobody })).text).toContain('subresource(s)=[pods proxy]');
      expect((await call(world, '/nothing', { as: nobody })).status).toBe(403);
      expect((await call(world, '/nothing', { as: apiserver })).status).toBe(404);
      expect((await call(world, '/pods', { as: apiserver, method: 'POST' })).status).toBe(405);
    } finally {
      await world.server.close();
    }
  });

  it('refuses certificates of strangers, expired ones and those for other uses, and who shows nothing', async () => {
    const world = await start({ anonymous: true });
    try {
      for (const as of [stranger, expired, wrongUse])
        expect(await call(world, '/pods', { as })).toEqual({ status: 401, text: 'Unauthorized' });
      // Anonymous is on, so who shows nothing is known, and not allowed.
      expect((await call(world, '/pods')).text).toContain('user=system:anonymous');
      expect((await call(world, '/pods', { token: 'bad' })).status).toBe(401);
      expect(world.asked.access.every((line) => line.startsWith('system:anonymous'))).toBe(true);
    } finally {
      await world.server.close();
    }
    const closed = await start();
    try {
      expect(await call(closed, '/pods')).toEqual({ status: 401, text: 'Unauthorized' });
      expect(await call(closed, '/%00')).toEqual({ status: 401, text: 'Unauthorized' });
    } finally {
      await closed.server.close();
    }
  });

  it('does not look at tokens where none are reviewed: who shows one is anonymous', async () => {
    const world = await start({ anonymous: true, tokenWebhook: false, authorizationMode: 'AlwaysAllow' });
    try {
      expect((await call(world, '/configz', { token: 'bad' })).status).toBe(200);
      expect(world.asked.tokens).toEqual([]);
    } finally {
      await world.server.close();
    }
    const closed = await start({ tokenWebhook: false, authorizationMode: 'AlwaysAllow' });
    try {
      expect((await call(closed, '/configz', { token: 'good' })).status).toBe(401);
    } finally {
      await closed.server.close();
    }
  });

  it('reviews tokens once', async () => {
    const world = await start();
    try {
      expect((await call(world, '/configz', { token: 'good' })).status).toBe(200);
      expect((await call(world, '/configz', { token: 'good' })).status).toBe(200);
      expect((await call(world, '/configz', { token: 'bad' })).status).toBe(401);
      expect((await call(world, '/configz', { token: 'bad' })).status).toBe(401);
      expect((await call(world, '/configz', { token: 'broken' })).status).toBe(401);
      expect(world.asked.tokens).toEqual(['good', 'bad', 'broken']);
      expect((await call(world, '/pods', { token: 'good' })).status).toBe(403);
    } finally {
      await world.server.close();
    }
  });

  it('trusts a new client CA from the moment its file changes, and the old one no more', async () => {
    const world = await start();
    try {
      const next = await createAuthority('next-ca');
      const renewed = await next.issue({ name: 'kube-apiserver', groups: ['system:masters'] });
      expect((await call(world, '/pods', { as: renewed })).status).toBe(401);
      await writeFile(join(folder, 'ca.crt'), next.bundle);
      for (let tries = 0; tries < 50; tries++) {
        if ((await call(world, '/pods', { as: renewed })).status === 200) break;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      expect((await call(world, '/pods', { as: renewed })).status).toBe(200);
      expect((await call(world, '/pods', { as: apiserver })).status).toBe(401);
    } finally {
      await world.server.close();
    }
  });
});

describe('pages', () => {
  it.each<[string, string, number, string]>([
    ['GET', '/healthz', 200, 'ok'],
    ['GET', '/healthz/', 200, 'ok'],
    ['GET', '/healthz/ping', 200, 'ok'],
    ['GET', '/healthz?verbose', 200, '[+]ping ok\n[+]log ok\nhealthz check passed\n'],
    ['GET', '/configz', 200, '{"kubeletconfig":{"kind":"KubeletConfiguration"}}'],
    ['POST', '/run/default/web/app?cmd=ls+-l', 200, 'ls+-l'],
    ['POST', '/run/default/none/app?cmd=ls', 404, 'pod does not exist'],
    ['GET', '/containerLogs/default/none/app', 404, 'pod "none" does not exist'],
    ['GET', '/containerLogs/default/web/none', 404, 'container "none" not found in pod "web"'],
    [
      'GET',
      '/containerLogs/default/web/late',
      400,
      'container "late" in pod "web" is waiting to start: ContainerCreating',
    ],
    [
      'GET',
      '/containerLogs/default/web/app?previous=true',
      400,
      'previous terminated container "app" in pod "web" not found',
    ],
    ['GET', '/containerLogs/default/web/app?tailLines=-1', 422, '{"message": "Invalid request."}'],
    ['GET', '/containerLogs/default/web/app?tailLines=x', 400, '{"message": "Unable to decode query."}'],
    ['POST', '/exec/default/web/app?command=true&output=1', 400, 'Upgrade request required'],
    ['GET', '/metrics/resource', 200, 'scrape_error 0\n'],
    ['GET', '/stats/summary', 200, '{"asked":{"onlyCpuAndMemory":false}}'],
    ['GET', '/stats/summary?only_cpu_and_memory=true', 200, '{"asked":{"onlyCpuAndMemory":true}}'],
    ['GET', '/debug/pprof/nothing', 404, 'Unknown profile\n'],
    ['GET', '/pods/../exec', 400, 'Bad Request'],
    ['GET', '/%2e%2e/pods', 400, 'Bad Request'],
  ])('%s %s', async (method, path, status, text) => {
    const world = await start();
    try {
      expect(await call(world, path, { as: apiserver, method })).toEqual({ status, text });
    } finally {
      await world.server.close();
    }
  });

  it('show the flags as text, and as an object where that is asked for', async () => {
    const world = await start();
    const flagz = async (accept?: string): Promise<Answer> =>
      await call(world, '/flagz', { as: apiserver, ...(accept ? { accept } : {}) });
    try {
      const plain = await flagz();
      expect(plain.text).toMatch(/^\nkubelet flagz\nWarning: [^\n]+\n+config=\/etc\/c\.yaml\n$/);
      expect(await flagz('text/html, */*')).toEqual(plain);
      const object = await flagz('application/json;v=v1beta1;g=config.k8s.io;as=Flagz');
      expect(JSON.parse(object.text)).toEqual({
        kind: 'Flagz',
        apiVersion: 'config.k8s.io/v1beta1',
        metadata: { name: 'kubelet' },
        flags: { config: '/etc/c.yaml' },
      });
      expect((await flagz('application/json')).status).toBe(406);
    } finally {
      await world.server.close();
    }
  });

  it('follows a log until the container has ended', async () => {
    const world = await start();
    try {
      const file = join(folder, 'app.log');
      await writeFile(file, '2026-01-01T00:00:00Z stdout F one\n');
      const answer = call(world, '/containerLogs/default/web/app?follow=true', { as: apiserver });
      await new Promise((resolve) => setTimeout(resolve, 100));
      await appendFile(file, '2026-01-01T00:00:01Z stdout F two\n');
      world.end();
      expect(await answer).toEqual({ status: 200, text: 'one\ntwo\n' });
    } finally {
      await world.server.close();
    }
  });
});

describe('streams', () => {
  const dial = async (world: World, head: string, as: Pair | undefined = apiserver): Promise<TLSSocket> => {
    const socket = tlsConnect({
      host: '127.0.0.1',
      port: world.port,
      rejectUnauthorized: false,
      ...(as ? { cert: as.certificate, key: as.key } : {}),
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve);
      socket.once('error', reject);
    });
    socket.write(head);
    return socket;
  };
  const until = (socket: TLSSocket, enough: (text: string) => boolean): Promise<string> =>
    new Promise((resolve) => {
      let text = '';
      socket.on('data', (part: Buffer) => {
        text += part.toString('latin1');
        if (enough(text)) resolve(text);
      });
      socket.on('error', () => resolve(text));
      socket.on('close', () => resolve(text));
    });
  const upgradeOf = (path: string): string =>
    `POST ${path} HTTP/1.1\r\nHost: n1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nAuthorization: Basic c2VjcmV0\r\nContent-Length: 0\r\n\r\n`;

  it('are spliced to the runtime, both ways, and end together', async () => {
    const world = await start();
    try {
      const socket = await dial(world, `${upgradeOf('/exec/default/web/u1/app?command=ls&output=1')}early`);
      const first = await until(socket, (text) => text.endsWith('hello:early'));
      expect(first).toMatch(/^HTTP\/1.1 101 Switching Protocols\r\n/);
      expect(first).toContain('X-Told: POST x-stream-protocol-version=v4.channel.k8s.io authorization=\r\n');
      const big = Buffer.alloc(3_000_000, 'x');
      const echoed = until(socket, (text) => text.length >= big.length);
      socket.write(big);
      expect((await echoed).length).toBe(big.length);
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.end();
      await closed;
    } finally {
      await world.server.close();
    }
  });

  it.each<[string, string, number, string]>([
    ['a container that is gone', '/exec/default/web/app?command=gone&output=1', 404, 'no such container'],
    ['a pod that is none', '/exec/default/none/app?command=ls&output=1', 404, 'pod does not exist'],
    ['another uid', '/portForward/default/web/u2', 404, 'pod not found'],
    ['a container that is none', '/exec/default/web/none?command=ls&output=1', 500, 'container not found ("none")'],
    ['no stream', '/attach/default/web/app', 400, 'you must specify at least 1 of stdin, stdout, stderr'],
  ])('refuse %s', async (_name, path, status, text) => {
    const world = await start();
    try {
      const socket = await dial(world, upgradeOf(path));
      const answer = await until(socket, () => false);
      expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
      expect(answer.endsWith(`\r\n\r\n${text}`)).toBe(true);
    } finally {
      await world.server.close();
    }
  });

  it('relay what the runtime says instead of an upgrade', async () => {
    const world = await start();
    try {
      world.streamPath.value = '/refused';
      const socket = await dial(world, upgradeOf('/attach/default/web/app?output=1'));
      expect(await until(socket, () => false)).toMatch(/^HTTP\/1.1 403 Forbidden\r\n[\s\S]*no$/);
    } finally {
      await world.server.close();
    }
  });

  it('are refused to strangers, and an Upgrade elsewhere is ignored', async () => {
    const world = await start();
    try {
      const socket = await dial(world, upgradeOf('/exec/default/web/app?command=ls&output=1'), stranger);
      expect(await until(socket, () => false)).toMatch(/^HTTP\/1.1 401 Unauthorized\r\n/);
      const other = await dial(world, upgradeOf('/healthz').replace('POST', 'GET'));
      expect(await until(other, (text) => text.endsWith('ok'))).toMatch(/^HTTP\/1.1 200 OK\r\n/);
      other.destroy();
    } finally {
      await world.server.close();
    }
  });

  it('end when the server closes', async () => {
    const world = await start();
    const socket = await dial(world, upgradeOf('/exec/default/web/app?command=ls&output=1'));
    const all = until(socket, () => false);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await world.server.close();
    expect(await all).toContain('hello:');
  });
});
