// What a client can do to the listener before, and after, it is known.
import { connect as tcpConnect, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../lib/log.ts';
import { selfSigned } from '../tls/self-signed.ts';
import { tlsSettings } from '../tls/settings.ts';
import { createListener, type Listener, type ListenerLimits } from './listener.ts';
import { type Route, sendText } from './routes.ts';

let listener: Listener;
let port: number;
let inflight: number;

const user = { name: 'u', uid: '', groups: [], extra: {} };
const routes: Route[] = [
  { kind: 'page', methods: ['GET'], pattern: '/ok', serve: ({ response }) => sendText(response, 200, 'ok') },
  {
    kind: 'page',
    methods: ['GET'],
    pattern: '/broken',
    serve: () => {
      throw new Error('something broke');
    },
  },
  // Never stands: the client must not be able to keep it.
  {
    kind: 'stream',
    methods: ['GET'],
    pattern: '/stream',
    serve: ({ signal }) =>
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
  },
];

const start = async (limits: Partial<ListenerLimits>): Promise<void> => {
  listener = createListener(
    {
      log: silentLog,
      identity: { identify: async (request) => (request.headers.authorization ? user : undefined) },
      authorization: { decide: async () => ({ kind: 'allowed' }) },
      routes,
      onInflight: (_method, _path, change) => {
        inflight += change;
      },
    },
    {
      address: '127.0.0.1',
      port: 0,
      tls: tlsSettings(undefined, undefined),
      pair: await selfSigned(['n'], Date.now()),
      clientCa: undefined,
      limits,
    },
  );
  port = (await listener.listen()).port;
};
beforeEach(() => {
  inflight = 0;
});
afterEach(async () => await listener.close());

const dial = (): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => resolve(socket));
    socket.on('error', reject);
  });
const readToEnd = (socket: Socket): Promise<string> =>
  new Promise((resolve) => {
    let text = '';
    socket.on('data', (part: Buffer) => {
      text += part.toString('latin1');
    });
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(text));
  });
const ask = async (text: string): Promise<string> => {
  const socket = await dial();
  const answer = readToEnd(socket);
  socket.write(text);
  return await answer;
};
const get = (path: string, headers = ''): string =>
  `GET ${path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\nAuthorization: x\r\n${headers}\r\n`;

describe('the listener', () => {
  it('ends who does not shake hands, does not finish its headers, or its body', async () => {
    await start({ handshakeMs: 300, headersMs: 300, requestMs: 600, idleMs: 300 });
    const silent = tcpConnect(port, '127.0.0.1');
    const slow = await dial();
    slow.write('GET /ok HTTP/1.1\r\nHost: n\r\nX-Slow: ');
    const body = await dial();
    body.write('POST /ok HTTP/1.1\r\nHost: n\r\nAuthorization: x\r\nContent-Length: 100\r\n\r\nx');
    await Promise.all([readToEnd(silent), readToEnd(slow), readToEnd(body)]);
    expect(await ask(get('/ok'))).toContain('200 OK');
  });

  it('ends upgrades that never stand', async () => {
    await start({ upgradeMs: 300 });
    const upgrade =
      'GET /stream HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: x\r\n\r\n';
    await Promise.all(Array.from({ length: 50 }, () => ask(upgrade)));
    for (let tries = 0; tries < 50 && inflight > 0; tries++) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(inflight).toBe(0);
    expect(await ask(get('/ok'))).toContain('200 OK');
  });

  it('refuses headers that are too large, and serves others meanwhile', async () => {
    await start({});
    expect(await ask(get('/ok', `X-Large: ${'x'.repeat(70_000)}\r\n`))).toMatch(/^HTTP\/1.1 4\d\d /);
    expect(await ask(get('/broken'))).toMatch(/^HTTP\/1.1 500 [\s\S]*something broke$/);
    expect(await ask(get('/ok'))).toContain('200 OK');
  });

  it('says nothing but 401 to strangers, whatever they send', async () => {
    await start({ headersMs: 300, requestMs: 400 });
    await fc.assert(
      fc.asyncProperty(fc.webPath(), async (path) => {
        const answer = await ask(`GET ${path || '/'} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n`);
        expect(answer).toMatch(/^HTTP\/1.1 401 Unauthorized\r\n[\s\S]*\r\n\r\nUnauthorized$/);
      }),
      { numRuns: 25 },
    );
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
        const socket = await dial();
        const answer = readToEnd(socket);
        socket.write(bytes);
        socket.end();
        expect(await answer).toMatch(/^(HTTP\/1.1 4\d\d [\s\S]*)?$/);
      }),
      { numRuns: 15 },
    );
    expect(await ask(get('/ok'))).toContain('200 OK');
  });

  it('speaks TLS 1.2 and later only', async () => {
    await start({});
    const old = new Promise<string>((resolve) => {
      const socket = tlsConnect(
        {
          port,
          host: '127.0.0.1',
          rejectUnauthorized: false,
          minVersion: 'TLSv1.1',
          maxVersion: 'TLSv1.1',
          ciphers: 'ALL@SECLEVEL=0',
        },
        () => resolve('connected'),
      );
      socket.on('error', () => resolve('refused'));
    });
    expect(await old).toBe('refused');
    expect(() => tlsSettings('VersionTLS11', undefined)).toThrow('VersionTLS11');
    expect(() => tlsSettings(undefined, ['TLS_NULL'])).toThrow('TLS_NULL');
    expect(tlsSettings('VersionTLS13', ['TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256'])).toEqual({
      minVersion: 'TLSv1.3',
      ciphers: 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:ECDHE-RSA-AES128-GCM-SHA256',
    });
  });
});
