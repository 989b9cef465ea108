import fc from 'fast-check';
import { once } from 'node:events';
import { createServer as createHttp, type RequestListener } from 'node:http';
import { createServer as createHttp2 } from 'node:http2';
import { createServer as createHttps } from 'node:https';
import { type AddressInfo, createServer as createTcp, type Server } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { RuntimeError } from '../../cri/errors.ts';
import type { Container, Probe } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { selfSigned } from '../tls/self-signed.ts';
import { type AttemptDeps, type ProbeOutcome, type ProbeTarget, startProbe } from './attempt.ts';
import { decodeResponse, encodeRequest } from './grpc-health.ts';
import { createResponseReader } from './http-response.ts';
import { httpTarget, urlOf } from './http-target.ts';
import { resolvePort } from './ports.ts';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

async function listen(server: Server, host = '127.0.0.1'): Promise<number> {
  server.listen(0, host);
  await once(server, 'listening');
  closers.push(() => server.close());
  return (server.address() as AddressInfo).port;
}
const serve = (listener: RequestListener): Promise<number> => listen(createHttp(listener));

const container: Container = { name: 'c', ports: [{ name: 'web', containerPort: 8080 }] };
const runtime = { execSync: async () => Promise.reject(new Error('not used')) };
const outcomeOf = (deps: AttemptDeps, target: ProbeTarget): Promise<ProbeOutcome> =>
  new Promise((resolve) => void startProbe(deps, target, resolve));
const attempt = (probe: Probe, podIp = '127.0.0.1'): Promise<ProbeOutcome> =>
  outcomeOf({ runtime, clock: systemClock }, { container, id: 'id', podIp, probe: { timeoutSeconds: 1, ...probe } });

describe('httpGet', () => {
  it('asks as the kubelet does', async () => {
    const seen: string[] = [];
    const port = await serve((request, response) => {
      seen.push(request.url ?? '', ...request.rawHeaders);
      response.end('ok');
    });
    expect(
      await attempt({
        httpGet: {
          port,
          path: '/healthz?a=b',
          httpHeaders: [
            { name: 'X-One', value: '1' },
            { name: 'X-One', value: '2' },
            { name: 'Host', value: 'me' },
          ],
        },
      }),
    ).toEqual({ kind: 'success' });
    expect(seen).toEqual([
      '/healthz?a=b',
      'Host',
      'me',
      'User-Agent',
      'kube-probe/1.36',
      'X-One',
      '1',
      'X-One',
      '2',
      'Accept',
      '*/*',
      'Connection',
      'close',
    ]);
  });

  it.each([
    [200, { kind: 'success' }],
    [204, { kind: 'success' }],
    [399, { kind: 'warning', message: 'Probe terminated redirects, Response body: the body' }],
    [304, { kind: 'warning', message: 'Probe terminated redirects, Response body: ' }],
    [302, { kind: 'warning', message: 'Probe terminated redirects, Response body: the body' }],
    [404, { kind: 'failure', message: 'HTTP probe failed with statuscode: 404' }],
    [503, { kind: 'failure', message: 'HTTP probe failed with statuscode: 503' }],
  ])('status %d', async (status, expected) => {
    const port = await serve((_request, response) => response.writeHead(status).end('the body'));
    expect(await attempt({ httpGet: { port } })).toEqual(expected);
  });

  it('follows redirects on the same host, whatever the port', async () => {
    const other = await serve((_request, response) => response.writeHead(500).end());
    const port = await serve((request, response) => {
      if (request.url === '/') response.writeHead(302, { Location: '/next' }).end();
      else response.writeHead(301, { Location: `http://127.0.0.1:${other}/` }).end();
    });
    expect(await attempt({ httpGet: { port } })).toEqual({
      kind: 'failure',
      message: 'HTTP probe failed with statuscode: 500',
    });
  });

  it('takes a redirect to another host for a success', async () => {
    const port = await serve((_request, response) => response.writeHead(302, { Location: 'http://192.0.2.1/' }).end());
    expect(await attempt({ httpGet: { port } })).toEqual({
      kind: 'warning',
      message: 'Probe terminated redirects, Response body: ',
    });
  });

  it('keeps answers apart that come in pieces at the same time', async () => {
    const status = ['200 OK', '404 Not Found', '503 Unavailable', '301 Moved'] as const;
    const ports = await Promise.all(
      status.map((line) =>
        listen(
          createTcp((socket) => {
            const text = `HTTP/1.1 ${line}\r\nContent-Length: 4\r\nX: ${line.repeat(9)}\r\n\r\n${line.slice(0, 3)}.`;
            const parts = text.match(/[\s\S]{1,40}/g) ?? [];
            socket.on('error', () => undefined);
            const send = (): void => {
              const part = parts.shift();
              if (part !== undefined) socket.write(part, () => setTimeout(send, 2));
            };
            send();
          }),
        ),
      ),
    );
    const outcomes = await Promise.all([...ports, ...ports].map((port) => attempt({ httpGet: { port } })));
    const expected = [
      { kind: 'success' },
      { kind: 'failure', message: 'HTTP probe failed with statuscode: 404' },
      { kind: 'failure', message: 'HTTP probe failed with statuscode: 503' },
      { kind: 'warning', message: 'Probe terminated redirects, Response body: 301.' },
    ];
    expect(outcomes).toEqual([...expected, ...expected]);
  });

  it('leaves no connection behind when it is stopped', async () => {
    const gone = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    const port = await listen(
      createTcp((socket) => {
        socket.on('error', () => undefined).on('close', () => gone.resolve());
        socket.on('data', () => asked.resolve());
      }),
    );
    let settled = false;
    const giveUp = startProbe(
      { runtime, clock: systemClock },
      { container, id: 'id', podIp: '127.0.0.1', probe: { httpGet: { port }, timeoutSeconds: 60 } },
      () => {
        settled = true;
      },
    );
    await asked.promise;
    giveUp();
    await gone.promise;
    expect(settled).toBe(false);
  });

  it('asks another address, or for another container, when that has changed', async () => {
    const action = { path: '/', port: 'web' };
    const here = await serve((_request, response) => response.end());
    const there = await serve((_request, response) => response.writeHead(500).end());
    const ask = (containerPort: number) =>
      outcomeOf(
        { runtime, clock: systemClock },
        {
          container: { name: 'c', ports: [{ name: 'web', containerPort }] },
          id: 'id',
          podIp: '127.0.0.1',
          probe: { httpGet: action },
        },
      );
    expect(await ask(here)).toEqual({ kind: 'success' });
    expect(await ask(there)).toMatchObject({ kind: 'failure' });
  });

  it('gives up going round in circles', async () => {
    const port = await serve((_request, response) => response.writeHead(302, { Location: '/' }).end());
    expect(await attempt({ httpGet: { port } })).toEqual({
      kind: 'failure',
      message: `Get "http://127.0.0.1:${port}/": stopped after 10 redirects`,
    });
  });

  it("says what went wrong in Go's words", async () => {
    const refused = await listen(createTcp());
    for (const close of closers.splice(0)) close();
    const port = await listen(createTcp((socket) => socket.end()));
    expect(await attempt({ httpGet: { port } })).toEqual({
      kind: 'failure',
      message: `Get "http://127.0.0.1:${port}/": EOF`,
    });
    expect(await attempt({ httpGet: { port: refused, path: 'x' } })).toEqual({
      kind: 'failure',
      message: `Get "http://127.0.0.1:${refused}/x": dial tcp 127.0.0.1:${refused}: connect: connection refused`,
    });
    expect(await attempt({ httpGet: { port: 'none' } })).toEqual({
      kind: 'error',
      message: 'strconv.Atoi: parsing "none": invalid syntax',
    });
  });

  it('gives up in time', async () => {
    const port = await listen(createTcp((socket) => void socket.on('error', () => undefined).resume()));
    expect(await attempt({ httpGet: { port } })).toEqual({
      kind: 'failure',
      timedOut: true,
      message: `Get "http://127.0.0.1:${port}/": context deadline exceeded (Client.Timeout exceeded while awaiting headers)`,
    });
  });

  it('over TLS, without asking who it is, and not to a server without', async () => {
    const { certificate, key } = await selfSigned(['somebody.else'], Date.now());
    const secure = await listen(
      createHttps({ cert: certificate, key }, (_request, response) => void response.end('ok')),
    );
    expect(await attempt({ httpGet: { port: secure, scheme: 'HTTPS' } })).toEqual({ kind: 'success' });
    const plain = await serve((_request, response) => response.end());
    expect(await attempt({ httpGet: { port: plain, scheme: 'HTTPS' } })).toEqual({
      kind: 'failure',
      message: `Get "https://127.0.0.1:${plain}/": http: server gave HTTP response to HTTPS client`,
    });
  });

  it('is not led astray by what another protocol says', async () => {
    const port = await listen(
      createTcp((socket) => void socket.on('error', () => undefined).end('220 smtp ready\r\n')),
    );
    expect(await attempt({ httpGet: { port } })).toMatchObject({
      kind: 'failure',
      message: expect.stringContaining('malformed HTTP response "220 smtp ready"'),
    });
  });
});

describe('what is asked', () => {
  it.each([
    ['', '/'],
    ['healthz', '/healthz'],
    ['/a b?c=d#e', '/a%20b?c=d'],
    ['/%41\r\nX: y', '/%41%0D%0AX:%20y'],
    ['/ü', '/%C3%BC'],
  ])('path %j', (path, expected) => {
    expect(httpTarget({ port: 80, path }, container, '10.0.0.1', 'probe').path).toBe(expected);
  });

  it('of IPv6 addresses and named ports', () => {
    expect(urlOf(httpTarget({ port: 'web', scheme: 'HTTPS' }, container, 'fd00::1', 'probe'))).toBe(
      'https://[fd00::1]:8080/',
    );
  });

  it('never with headers that would break the request', () => {
    const with1 = (name: string, value: string) => () =>
      httpTarget({ port: 80, httpHeaders: [{ name, value }] }, container, '10.0.0.1', 'probe');
    expect(with1('X', 'a\r\nY: b')).toThrow('invalid header field value for "X"');
    expect(with1('X Y', 'a')).toThrow('invalid header field name "X Y"');
    expect(with1('Accept', '')().headers).toEqual([['User-Agent', 'kube-probe/1.36']]);
  });

  it.each([
    [80, 80],
    ['web', 8080],
    ['81', 81],
  ])('port %s', (port, expected) => expect(resolvePort(port, container)).toBe(expected));
  it.each([
    [0, 'invalid port number: 0'],
    ['70000', 'invalid port number: 70000'],
    ['x', 'strconv.Atoi: parsing "x": invalid syntax'],
  ])('not port %s', (port, message) => expect(() => resolvePort(port, container)).toThrow(message));
});

describe('an HTTP response', () => {
  const whole = [
    'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n',
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
    'HTTP/1.0 200\r\n\r\nhello',
    'HTTP/1.1 200 OK\ncontent-length:5\n\nhello',
  ];

  it('reads the same however its bytes arrive', () => {
    fc.assert(
      fc.property(fc.constantFrom(...whole), fc.array(fc.nat({ max: 120 }), { maxLength: 8 }), (text, cuts) => {
        const bytes = Buffer.from(text);
        const points = [0, ...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length];
        const reader = createResponseReader();
        let response = undefined as ReturnType<typeof reader.push>;
        for (let index = 1; index < points.length && !response; index++)
          response = reader.push(bytes.subarray(points[index - 1], points[index]));
        response ??= reader.end();
        expect(response).toMatchObject({ status: 200, body: 'hello' });
      }),
    );
  });

  it('is never more than 10 KiB of body, and never hangs on rubbish', () => {
    const reader = createResponseReader();
    const response = reader.push(Buffer.from(`HTTP/1.1 200 OK\r\n\r\n${'x'.repeat(20_000)}`));
    expect(response?.body).toHaveLength(10_240);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const each = createResponseReader();
        try {
          each.push(Buffer.from(bytes));
          each.end();
        } catch (error) {
          expect((error as Error).name).toBe('MalformedResponseError');
        }
      }),
    );
  });
});

describe('tcpSocket', () => {
  it('connects, or says why not', async () => {
    const port = await listen(createTcp((socket) => void socket.on('error', () => undefined)));
    expect(await attempt({ tcpSocket: { port } })).toEqual({ kind: 'success' });
    for (const close of closers.splice(0)) close();
    expect(await attempt({ tcpSocket: { port } })).toEqual({
      kind: 'failure',
      message: `dial tcp 127.0.0.1:${port}: connect: connection refused`,
    });
  });
});

describe('grpc', () => {
  const healthServer = async (
    answer: { status?: number; code?: number; message?: string },
    asked: string[] = [],
  ): Promise<number> => {
    const server = createHttp2();
    server.on('stream', (stream, headers) => {
      asked.push(String(headers[':path']), String(headers['user-agent']));
      stream.on('data', (chunk: Buffer) => asked.push(chunk.subarray(7).toString()));
      stream.on('end', () => {
        if (answer.code !== undefined) {
          stream.respond(
            {
              ':status': 200,
              'content-type': 'application/grpc',
              'grpc-status': String(answer.code),
              'grpc-message': answer.message ?? '',
            },
            { endStream: true },
          );
          return;
        }
        stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
        stream.end(Buffer.from([0, 0, 0, 0, 2, 8, answer.status ?? 0]));
      });
    });
    return listen(server as unknown as Server);
  };

  it('asks the health service by name', async () => {
    const asked: string[] = [];
    const port = await healthServer({ status: 1 }, asked);
    expect(await attempt({ grpc: { port, service: 'shop' } })).toEqual({ kind: 'success' });
    expect(asked).toEqual(['/grpc.health.v1.Health/Check', 'kube-probe/1.36', 'shop']);
  });

  it.each([
    [{ status: 2 }, 'service unhealthy (responded with "NOT_SERVING")'],
    [{ status: 0 }, 'service unhealthy (responded with "UNKNOWN")'],
    [
      { code: 12, message: 'unknown%20service' },
      'error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service',
    ],
    [{ code: 5, message: 'no such' }, 'error: health rpc probe failed: rpc error: code = NotFound desc = no such'],
  ])('%j', async (answer, message) => {
    const port = await healthServer(answer);
    expect(await attempt({ grpc: { port } })).toEqual({ kind: 'failure', message });
  });

  it('says where nothing listens, and where nothing answers', async () => {
    const silent = await listen(createTcp((socket) => void socket.on('error', () => undefined).resume()));
    expect(await attempt({ grpc: { port: silent } })).toEqual({
      kind: 'failure',
      timedOut: true,
      message: 'timeout: health rpc did not complete within 1s',
    });
    for (const close of closers.splice(0)) close();
    expect(await attempt({ grpc: { port: 1 } })).toMatchObject({
      kind: 'failure',
      message: expect.stringContaining('timeout: failed to connect service "127.0.0.1:1" within 1s'),
    });
  });

  it('messages survive the way there', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 300 }), (service) => {
        const frame = encodeRequest(service);
        expect(frame.readUInt32BE(1)).toBe(frame.length - 5);
      }),
    );
    fc.assert(
      fc.property(fc.nat({ max: 1000 }), (status) => {
        const value = status < 128 ? [status] : [(status & 127) | 128, status >> 7];
        expect(decodeResponse(Buffer.from([0, 0, 0, 0, 1 + value.length, 8, ...value]))).toBe(status);
      }),
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => void decodeResponse(Buffer.from(bytes))));
  });
});

describe('exec', () => {
  const run = (
    execSync: () => Promise<{ exitCode: number; stdout: Uint8Array; stderr: Uint8Array }>,
    commands: (readonly string[])[] = [],
  ) =>
    outcomeOf(
      {
        runtime: {
          execSync: async (_id, command) => {
            commands.push(command);
            return execSync();
          },
        },
        clock: systemClock,
      },
      {
        container: { name: 'c', env: [{ name: 'F', value: '/tmp/x' }] },
        id: 'id',
        podIp: '',
        probe: { exec: { command: ['cat', '$(F)'] }, timeoutSeconds: 1 },
      },
    );
  const result = (exitCode: number) => async () => ({
    exitCode,
    stdout: Buffer.from('out'),
    stderr: Buffer.from('err'),
  });

  it('expands what the spec says literally', async () => {
    const commands: (readonly string[])[] = [];
    expect(await run(result(0), commands)).toEqual({ kind: 'success' });
    expect(commands).toEqual([['cat', '/tmp/x']]);
  });

  it.each<[string, () => Promise<never> | ReturnType<ReturnType<typeof result>>, ProbeOutcome]>([
    ['a failure', result(1), { kind: 'failure', message: 'outerr' }],
    [
      'a timeout',
      async () => Promise.reject(new RuntimeError('deadline', 'ExecSync', 'late')),
      { kind: 'failure', timedOut: true, message: 'command timed out: "cat /tmp/x" timed out after 1s' },
    ],
    ['no container', async () => Promise.reject(new RuntimeError('not-found', 'ExecSync', 'gone')), { kind: 'gone' }],
    [
      'no runtime',
      async () => Promise.reject(new RuntimeError('unavailable', 'ExecSync', 'away')),
      { kind: 'error', message: 'ExecSync: away' },
    ],
    [
      'no answer',
      () => new Promise<never>(() => undefined),
      { kind: 'failure', timedOut: true, message: 'command timed out: "cat /tmp/x" timed out after 1s' },
    ],
  ])('%s', async (_name, execSync, expected) => expect(await run(execSync)).toEqual(expected));
});
