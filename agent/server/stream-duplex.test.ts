// exec, attach and port-forward spoken by us, with clients of both protocols.
import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { createWebSocketStream, WebSocket } from 'ws';
import type { PortOpener, StreamOpener } from '../../cri/types.ts';
import { createSpdySession, type SpdySession } from '../../lib/spdy/session.ts';
import type { SpdyStream } from '../../lib/spdy/stream.ts';
import { splice } from '../../lib/splice.ts';
import type { HttpError, UpgradeCall } from './routes.ts';
import { serveRemoteCommand } from './stream-command.ts';
import { refusalOfStream, requestIdOf, serveForward } from './stream-forward.ts';
import { spdyOpener } from './spdy-opener.ts';
import { createSizeParser } from './stream-protocol.ts';
import type { CommandQuery } from './streams.ts';
import { isTunnel, tunnelTo } from './tunnel.ts';
import { canCloseStdin } from './web-socket-command.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** A server that hands each upgrade to `serve`, as the listener does. */
async function serveUpgrades(serve: (call: UpgradeCall) => Promise<void>): Promise<number> {
  const server = createServer();
  servers.push(server);
  server.on('upgrade', (request, socket: Socket, head: Buffer) => {
    const gone = new AbortController();
    socket.on('close', () => gone.abort(new Error('gone')));
    socket.on('error', () => undefined);
    const call = { request, socket, head, params: { pod: 'p' }, signal: gone.signal, stands: () => undefined };
    serve(call as unknown as UpgradeCall).catch((error: HttpError) => {
      socket.end(`HTTP/1.1 ${error.status ?? 500} x\r\nconnection: close\r\n\r\n${error.message}`);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

const spdyClient = (port: number, protocols: string): Promise<{ session: SpdySession; response: IncomingMessage }> =>
  new Promise((resolve, reject) => {
    const outgoing = httpRequest({
      port,
      host: '127.0.0.1',
      method: 'POST',
      headers: { connection: 'Upgrade', upgrade: 'SPDY/3.1', 'x-stream-protocol-version': protocols },
    });
    outgoing.on('upgrade', (response, socket, head) =>
      resolve({ response, session: createSpdySession(socket, head, { role: 'client' }) }),
    );
    outgoing.on('response', (response) => reject(new Error(`${response.statusCode}`)));
    outgoing.on('error', reject);
    outgoing.end();
  });

const textOf = async (stream: SpdyStream): Promise<string> => {
  let text = '';
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) text += chunk.toString();
  return text;
};

/** Echoes stdin upper-cased, says sizes on stderr, and ends with the code that stdin's first line names. */
const echo: StreamOpener = async ({ stdin, stdout, stderr, resize }) => {
  const out = stdout?.getWriter();
  const err = stderr?.getWriter();
  if (!stdin)
    for await (const { width, height } of resize) {
      await out?.write(Buffer.from(`${width}x${height}`));
      return 0;
    }
  let code = 0;
  if (stdin)
    for await (const chunk of stdin) {
      const text = Buffer.from(chunk).toString();
      code = Number(/exit (\d+)/.exec(text)?.[1] ?? code);
      await out?.write(Buffer.from(text.toUpperCase()));
    }
  await err?.write(Buffer.from('done'));
  return code;
};

const all: CommandQuery = { stdin: true, stdout: true, stderr: true, tty: false };

describe('commands by SPDY', () => {
  const run = async (protocols: string) => {
    const port = await serveUpgrades((call) => serveRemoteCommand(echo, 'exec', all, call));
    const { session, response } = await spdyClient(port, protocols);
    const [error, stdin, stdout, stderr] = ['error', 'stdin', 'stdout', 'stderr'].map((streamtype) =>
      session.open({ streamtype }),
    );
    await stdin!.write(Buffer.from('exit 3'));
    stdin!.end();
    const said = await Promise.all([textOf(stdout!), textOf(stderr!), textOf(error!)]);
    await session.closed;
    return { said, protocol: response.headers['x-stream-protocol-version'] };
  };

  it('v4 tells the exit code', async () => {
    const { said, protocol } = await run('v5.channel.k8s.io, v4.channel.k8s.io, channel.k8s.io');
    expect(protocol).toBe('v4.channel.k8s.io');
    expect(said.slice(0, 2)).toEqual(['EXIT 3', 'done']);
    expect(JSON.parse(said[2]!)).toMatchObject({
      status: 'Failure',
      reason: 'NonZeroExitCode',
      details: { causes: [{ reason: 'ExitCode', message: '3' }] },
    });
  });

  it('before v4 in words', async () => {
    const { said } = await run('v2.channel.k8s.io');
    expect(said[2]).toBe('command terminated with non-zero exit code: exit code 3');
  });

  it('refuses protocols that it does not speak', async () => {
    const port = await serveUpgrades((call) => serveRemoteCommand(echo, 'exec', all, call));
    await expect(spdyClient(port, 'v9.channel.k8s.io')).rejects.toThrow('403');
  });

  it('hands on the size of the terminal', async () => {
    const query: CommandQuery = { stdin: false, stdout: true, stderr: false, tty: true };
    const port = await serveUpgrades((call) => serveRemoteCommand(echo, 'exec', query, call));
    const { session } = await spdyClient(port, 'v4.channel.k8s.io');
    const [, stdout, resize] = ['error', 'stdout', 'resize'].map((streamtype) => session.open({ streamtype }));
    await resize!.write(Buffer.from('{"Width":120,"Height":40}\n'));
    expect(await textOf(stdout!)).toBe('120x40');
  });

  it('aborts the command when the client is gone', async () => {
    const aborted = new Promise<void>((resolve) => {
      const waits: StreamOpener = (_channels, signal) =>
        new Promise((_resolve, reject) =>
          signal.addEventListener('abort', () => {
            resolve();
            reject(signal.reason);
          }),
        );
      void serveUpgrades((call) =>
        serveRemoteCommand(waits, 'attach', { ...all, stdin: false, stderr: false }, call),
      ).then(async (port) => {
        const { session } = await spdyClient(port, 'v4.channel.k8s.io');
        for (const streamtype of ['error', 'stdout']) session.open({ streamtype });
        setTimeout(() => void session.close(), 50);
      });
    });
    await aborted;
  });
});

describe('commands by WebSocket', () => {
  const run = (
    protocol: string,
    messages: (string | Buffer)[],
    open: StreamOpener = echo,
    query: CommandQuery = all,
  ): Promise<{ protocol: string; by: Map<number, string> }> =>
    new Promise((resolve, reject) => {
      void serveUpgrades((call) => serveRemoteCommand(open, 'exec', query, call)).then((port) => {
        const socket = new WebSocket(`ws://127.0.0.1:${port}/`, protocol);
        const by = new Map<number, string>();
        socket.on('open', () => {
          for (const message of messages) socket.send(message);
        });
        socket.on('message', (data: Buffer, binary) => {
          const channel = binary ? data[0]! : data[0]! - 0x30;
          const text = binary ? data.toString('utf8', 1) : Buffer.from(data.toString('latin1', 1), 'base64').toString();
          by.set(channel, (by.get(channel) ?? '') + text);
        });
        socket.on('close', () => resolve({ protocol: socket.protocol, by }));
        socket.on('error', reject);
      });
    });
  const channel = (number: number, text: string): Buffer => Buffer.concat([Buffer.from([number]), Buffer.from(text)]);

  it('v5 closes stdin by a message of its own', async () => {
    const { by } = await run('v5.channel.k8s.io', [channel(0, 'exit 4'), Buffer.from([255, 0])]);
    expect(by.get(1)).toBe('EXIT 4');
    expect(by.get(2)).toBe('done');
    expect(JSON.parse(by.get(3)!)).toMatchObject({ status: 'Failure', details: { causes: [{ message: '4' }] } });
  });

  it('speaks base64 too', async () => {
    const text = (number: number, value: string): string => `${number}${Buffer.from(value).toString('base64')}`;
    const port = await serveUpgrades((call) => serveRemoteCommand(echo, 'exec', all, call));
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, 'v4.base64.channel.k8s.io');
    const seen = await new Promise<string>((resolve, reject) => {
      socket.on('open', () => socket.send(text(0, 'hello')));
      socket.on('message', (data: Buffer) => {
        if (data.toString().startsWith('1') && data.length > 1) resolve(data.toString());
      });
      socket.on('error', reject);
    });
    expect(seen).toBe(text(1, 'HELLO'));
    socket.close();
  });

  it('bears any message', async () => {
    const port = await serveUpgrades((call) => serveRemoteCommand(echo, 'exec', all, call));
    await fc.assert(
      fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 8 }), async (messages) => {
        const socket = new WebSocket(`ws://127.0.0.1:${port}/`, 'v5.channel.k8s.io');
        await new Promise<void>((resolve, reject) => {
          socket.on('open', () => {
            for (const message of messages) socket.send(message);
            socket.close();
          });
          socket.on('close', () => resolve());
          socket.on('error', reject);
        });
      }),
      { numRuns: 40 },
    );
  });
});

describe('commands by WebSocket at a runtime that speaks SPDY', () => {
  // The runtime's streaming server is played by our own, whose SPDY other tests hold against other clients.
  const runtime = async (open: StreamOpener, query: CommandQuery = all): Promise<string> =>
    `http://127.0.0.1:${await serveUpgrades((call) => serveRemoteCommand(open, 'exec', query, call))}/`;
  const talk = async (url: string, messages: readonly Buffer[], query: CommandQuery = all) => {
    const port = await serveUpgrades((call) => serveRemoteCommand(spdyOpener(url, query), 'exec', query, call));
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, ['v5.channel.k8s.io', 'v4.channel.k8s.io']);
    const by = new Map<number, Buffer[]>();
    socket.on('message', (data: Buffer) => by.set(data[0]!, [...(by.get(data[0]!) ?? []), data.subarray(1)]));
    await new Promise<void>((resolve, reject) => {
      socket.on('open', () => {
        for (const message of messages) socket.send(message);
      });
      socket.on('close', () => resolve());
      socket.on('error', reject);
    });
    const of = (number: number): Buffer => Buffer.concat(by.get(number) ?? []);
    return { stdout: of(1), stderr: of(2), status: JSON.parse(of(3).toString()) as object, protocol: socket.protocol };
  };
  const message = (number: number, bytes: Buffer): Buffer => Buffer.concat([Buffer.from([number]), bytes]);
  const closeStdin = Buffer.from([255, 0]);

  it('are translated: output, the end of stdin, the exit code', async () => {
    const url = await runtime(echo);
    const said = await talk(url, [message(0, Buffer.from('exit 7')), closeStdin]);
    expect(said.protocol).toBe('v5.channel.k8s.io');
    expect([said.stdout.toString(), said.stderr.toString()]).toEqual(['EXIT 7', 'done']);
    expect(said.status).toEqual({
      metadata: {},
      status: 'Failure',
      reason: 'NonZeroExitCode',
      message: 'command terminated with non-zero exit code: exit code 7',
      details: { causes: [{ reason: 'ExitCode', message: '7' }] },
    });
    expect((await talk(url, [closeStdin])).status).toEqual({ metadata: {}, status: 'Success' });
  });

  it('bring every byte, both ways', async () => {
    const url = await runtime(async ({ stdin, stdout }) => {
      await stdin!.pipeTo(stdout!);
      return 0;
    });
    const sent = Array.from({ length: 200 }, (_, index) => Buffer.alloc(20_000, index));
    const said = await talk(url, [...sent.map((bytes) => message(0, bytes)), closeStdin]);
    expect(said.stdout.equals(Buffer.concat(sent))).toBe(true);
    expect(said.status).toMatchObject({ status: 'Success' });
  });

  it('hand on the sizes of the terminal', async () => {
    const query: CommandQuery = { stdin: false, stdout: true, stderr: false, tty: true };
    const url = await runtime(echo, query);
    const said = await talk(url, [message(4, Buffer.from('{"Width":99,"Height":33}'))], query);
    expect(said.stdout.toString()).toBe('99x33');
  });

  it('tell what the runtime says of a failure in its own words, and what goes wrong on the way', async () => {
    const url = await runtime(() => Promise.reject(new Error('no such program')));
    expect((await talk(url, [])).status).toMatchObject({
      status: 'Failure',
      reason: 'InternalError',
      message: 'Internal error occurred: error executing command in container: no such program',
    });
    expect((await talk('http://127.0.0.1:1/', [])).status).toMatchObject({
      message: expect.stringMatching(
        /error executing command in container: cannot connect to the runtime's streaming server: .*ECONNREFUSED/,
      ),
    });
  });

  it('end at the runtime too when the client is gone', async () => {
    const aborted = Promise.withResolvers<void>();
    const url = await runtime(async ({ stdout }, signal) => {
      const ended = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      await stdout!.getWriter().write(Buffer.from('it runs'));
      await ended;
      aborted.resolve();
      return 0;
    });
    const port = await serveUpgrades((call) => serveRemoteCommand(spdyOpener(url, all), 'exec', all, call));
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, 'v5.channel.k8s.io');
    socket.on('message', (data: Buffer) => data.includes('it runs') && socket.terminate());
    socket.on('error', () => undefined);
    await aborted.promise;
  });

  it.each<[string | undefined, boolean, boolean]>([
    ['v5.channel.k8s.io', true, false],
    ['v4.channel.k8s.io, v5.channel.k8s.io', true, false],
    ['v4.channel.k8s.io', false, false],
    ['SPDY/3.1+portforward.k8s.io', false, true],
    [undefined, false, false],
  ])('are for clients that offer %s', (offered, closing, tunnel) => {
    const request = { headers: offered === undefined ? {} : { 'sec-websocket-protocol': offered } } as IncomingMessage;
    expect([canCloseStdin(request), isTunnel(request)]).toEqual([closing, tunnel]);
  });
});

// The protocol's name has a slash, which WebSocket clients refuse to name: the handshake is made by hand, as kubectl's library allows it.
const tunnel = (port: number): Promise<WebSocket> =>
  new Promise((resolve, reject) => {
    const outgoing = httpRequest({
      port,
      host: '127.0.0.1',
      headers: {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
        'sec-websocket-protocol': 'SPDY/3.1+portforward.k8s.io',
      },
    });
    outgoing.on('upgrade', ({ headers }, connection, head) => {
      expect(headers['sec-websocket-protocol']).toBe('SPDY/3.1+portforward.k8s.io');
      expect(headers['sec-websocket-accept']).toBe('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
      // ws' own way of taking a connection over, as a client.
      const Taken = WebSocket as unknown as new (
        address: null,
        protocols: undefined,
        options: object,
      ) => WebSocket & {
        setSocket(socket: unknown, head: Buffer, options: object): void;
      };
      const socket = Object.assign(new Taken(null, undefined, { autoPong: true }), { _isServer: false });
      socket.setSocket(connection, head, { maxPayload: 0, skipUTF8Validation: false, allowSynchronousEvents: true });
      resolve(socket);
    });
    outgoing.on('response', (response) => reject(new Error(`${response.statusCode}`)));
    outgoing.on('error', reject);
    outgoing.end();
  });

describe('a thousand idle streams', () => {
  it('leave room for others, and are all gone with their clients', async () => {
    const sockets = (): number => process.getActiveResourcesInfo().filter((kind) => kind.includes('TCP')).length;
    const runtimeEnds = new Set<Duplex>();
    const runtime = await serveUpgrades(async ({ socket }) => {
      runtimeEnds.add(socket);
      socket.on('close', () => runtimeEnds.delete(socket));
      socket.write('HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n');
      socket.pipe(socket);
    });
    const target = `http://127.0.0.1:${runtime}/`;
    const port = await serveUpgrades((call) => splice(target, call, { idleMs: 3_600_000, server: 'the runtime' }));
    const open = (): Promise<Socket> =>
      new Promise((resolve, reject) => {
        const outgoing = httpRequest({
          port,
          host: '127.0.0.1',
          method: 'POST',
          headers: { connection: 'Upgrade', upgrade: 'SPDY/3.1' },
        });
        outgoing.on('upgrade', (_response, socket) => resolve(socket));
        outgoing.on('response', (response) => reject(new Error(`${response.statusCode}`)));
        outgoing.on('error', reject);
        outgoing.end();
      });
    const before = sockets();
    const idle: Socket[] = [];
    for (let batch = 0; batch < 20; batch++)
      idle.push(...(await Promise.all(Array.from({ length: 50 }, () => open()))));
    expect(runtimeEnds.size).toBe(1000);
    const another = await open();
    const answer = new Promise<string>((resolve) => another.once('data', (data: Buffer) => resolve(data.toString())));
    another.write('hello');
    expect(await answer).toBe('hello');
    for (const socket of [...idle, another]) socket.destroy();
    for (const deadline = Date.now() + 10_000; runtimeEnds.size > 0 || sockets() > before + 5; ) {
      if (Date.now() > deadline) throw new Error(`${runtimeEnds.size} streams and ${sockets()} sockets are left`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }, 60_000);
});

describe('port-forward', () => {
  /** Port 1 cannot be reached; others echo with their number before. */
  const open: PortOpener = async (port) => {
    if (port === 1) throw new Error('connection refused');
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>({
      start: (controller) => controller.enqueue(Buffer.from(`${port}:`)),
    });
    return { readable, writable };
  };

  it('pairs data and error streams by request id', async () => {
    const port = await serveUpgrades((call) => serveForward(open, [], call));
    const { session, response } = await spdyClient(port, 'portforward.k8s.io');
    expect(response.headers['x-stream-protocol-version']).toBe('portforward.k8s.io');
    const answers = await Promise.all(
      Array.from({ length: 30 }, async (_, id) => {
        const headers = { port: String(80 + id), requestid: String(id) };
        const error = session.open({ ...headers, streamtype: 'error' });
        const data = session.open({ ...headers, streamtype: 'data' });
        await data.write(Buffer.from(`hi ${id}`));
        data.end();
        return [await textOf(data), await textOf(error)];
      }),
    );
    expect(answers).toEqual(Array.from({ length: 30 }, (_, id) => [`${80 + id}:hi ${id}`, '']));
    await session.close();
  });

  it('says why a port cannot be reached, and refuses streams that name none', async () => {
    const port = await serveUpgrades((call) => serveForward(open, [], call));
    const { session } = await spdyClient(port, 'portforward.k8s.io');
    const error = session.open({ port: '1', requestid: '0', streamtype: 'error' });
    session.open({ port: '1', requestid: '0', streamtype: 'data' });
    expect(await textOf(error)).toBe('error forwarding port 1 to pod p, uid : connection refused');
    await expect(session.open({ streamtype: 'data' }).read()).rejects.toMatchObject({ code: 'reset' });
    await session.close();
  });

  it.each<[string, (url: string) => (call: UpgradeCall) => Promise<void>]>([
    ['at a runtime', (url) => (call) => tunnelTo(url, call, 60_000)],
    ['by ourselves', () => (call) => serveForward(open, [], call)],
  ])('goes through a tunnel, %s', async (_where, serving) => {
    const url = `http://127.0.0.1:${await serveUpgrades((call) => serveForward(open, [], call))}/`;
    const port = await serveUpgrades(serving(url));
    const socket = await tunnel(port);
    const session = createSpdySession(createWebSocketStream(socket), Buffer.alloc(0), { role: 'client' });
    const answers = await Promise.all(
      Array.from({ length: 30 }, async (_, id) => {
        const headers = { port: String(80 + id), requestid: String(id) };
        const error = session.open({ ...headers, streamtype: 'error' });
        const data = session.open({ ...headers, streamtype: 'data' });
        await data.write(Buffer.alloc(50_000, 'x'));
        data.end();
        return [(await textOf(data)).length, await textOf(error)];
      }),
    );
    expect(answers).toEqual(Array.from({ length: 30 }, (_, id) => [50_000 + `${80 + id}:`.length, '']));
    await session.close();
    await new Promise<void>((resolve) => {
      if (socket.readyState === socket.CLOSED) resolve();
      else socket.on('close', () => resolve());
    });
  });

  it('is refused where the runtime cannot be reached, before the handshake', async () => {
    const port = await serveUpgrades((call) => tunnelTo('http://127.0.0.1:1/', call, 60_000));
    await expect(tunnel(port)).rejects.toThrow('500');
  });

  it('goes by WebSocket, a pair of channels for each port', async () => {
    const port = await serveUpgrades((call) => serveForward(open, [80, 1], call));
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, 'v4.channel.k8s.io');
    const by = new Map<number, Buffer>();
    await new Promise<void>((resolve, reject) => {
      socket.on('open', () => socket.send(Buffer.concat([Buffer.from([0]), Buffer.from('ping')])));
      socket.on('message', (data: Buffer) => {
        by.set(data[0]!, Buffer.concat([by.get(data[0]!) ?? Buffer.alloc(0), data.subarray(1)]));
        if (by.get(0)?.toString('latin1').endsWith('ping') && (by.get(3)?.length ?? 0) > 2) resolve();
      });
      socket.on('error', reject);
    });
    expect(by.get(0)!.readUInt16LE(0)).toBe(80);
    expect(by.get(0)!.toString('latin1', 2)).toBe('80:ping');
    expect(by.get(3)!.toString('latin1', 2)).toContain('connection refused');
    socket.close();
  });

  it.each([
    [{ port: '80', streamtype: 'data' }, undefined],
    [{ streamtype: 'data' }, '"port" header is required'],
    [{ port: 'x', streamtype: 'data' }, 'unable to parse "x" as a port'],
    [{ port: '70000', streamtype: 'data' }, 'unable to parse "70000" as a port'],
    [{ port: '0', streamtype: 'data' }, 'port "0" must be > 0'],
    [{ port: '80' }, '"streamType" header is required'],
    [{ port: '80', streamtype: 'udp' }, 'invalid stream type "udp"'],
  ])('stream %j', (headers, why) => expect(refusalOfStream(headers)).toBe(why));

  it('without request ids by their order', () => {
    expect(requestIdOf({ id: 5, headers: { streamtype: 'error' } })).toBe('5');
    expect(requestIdOf({ id: 7, headers: { streamtype: 'data' } })).toBe('5');
    expect(requestIdOf({ id: 7, headers: { streamtype: 'data', requestid: '1' } })).toBe('1');
  });
});

describe('createSizeParser', () => {
  it('finds the sizes however they are cut', () => {
    const text = '{"Width":80,"Height":24}\n{"Width":100,"Height":30}{bad}{"Width":-1,"Height":2}';
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), (step) => {
        const parser = createSizeParser();
        const sizes = [];
        for (let at = 0; at < text.length; at += step)
          sizes.push(...parser.push(Buffer.from(text.slice(at, at + step))));
        expect(sizes).toEqual([
          { width: 80, height: 24 },
          { width: 100, height: 30 },
        ]);
      }),
    );
  });
});
