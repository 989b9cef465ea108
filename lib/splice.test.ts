import { createServer, type Server, type Socket, connect } from 'node:net';
import type { AddressInfo } from 'node:net';
import { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { joinStreams } from './splice.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function listen(serve: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, serve);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  return (server.address() as AddressInfo).port;
}

describe('two joined streams', () => {
  it('bring all that a runtime said before it hung up, though the client goes on sending and reads late', async () => {
    const said = Buffer.alloc(100_000, 'x');
    const runtime = await listen((socket) => {
      socket.on('error', () => undefined);
      // As a Go server does: closed for good with the last byte. Little enough for the kernel to have it all by then.
      socket.once('data', () => socket.write(said, () => socket.destroy()));
    });
    let release = (): void => undefined;
    const reads = new Promise<void>((resolve) => (release = resolve));
    let heard = 0;
    const client = new Duplex({
      highWaterMark: 1024,
      read: () => undefined,
      write(chunk: Buffer, _encoding, done) {
        void reads.then(() => {
          heard += chunk.length;
          done();
        });
      },
    });
    const joined = joinStreams(client, connect({ port: runtime, host: '127.0.0.1', allowHalfOpen: true }), 0);
    for (let sent = 0; sent < 10; sent++) {
      client.push('ping');
      await sleep(10);
    }
    release();
    await new Promise<void>((resolve) => client.once('close', () => resolve()));
    await joined;
    expect(heard).toBe(said.length);
  });

  it('end both when one is gone', async () => {
    const runtime = await listen((socket) => void socket.on('error', () => undefined).resume());
    let joined: Promise<void> | undefined;
    const node = await listen((socket) => {
      joined = joinStreams(socket, connect({ port: runtime, host: '127.0.0.1', allowHalfOpen: true }), 0);
    });
    const client = connect({ port: node, host: '127.0.0.1' });
    await new Promise<void>((resolve) => client.once('connect', () => resolve()));
    client.write('hello');
    await sleep(20);
    client.resetAndDestroy();
    await joined;
  });
});
