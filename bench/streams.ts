// How much of a bare splice's throughput the node's server leaves to exec and port-forward: the same client and the same streaming server, in
// threads of their own, once through :10250's code and once through twenty lines that join a TLS socket to a TCP one. In turns, in one run, so
// that the ratio holds on a busy machine too. And what a client that does not read costs. `node bench/streams.ts [--mebibytes 256] [--rounds 5]`
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createTcpServer, connect, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { createNodeServer } from '../agent/server/node-server.ts';
import { loadServingCertificate } from '../agent/tls/serving.ts';
import type { Runtime } from '../cri/runtime.ts';
import { systemClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';

type Way = 'down' | 'up' | 'stalled';
interface Ask {
  readonly port: number;
  readonly path: string;
  readonly way: Way;
  readonly bytes: number;
}
const block = Buffer.alloc(64 * 1024, 'stream');
const upgrade = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n';

function writeBytes(socket: Socket, bytes: number): Promise<void> {
  return new Promise((resolve) => {
    let left = bytes;
    const more = (): void => {
      let takes = true;
      while (left > 0 && takes) {
        takes = socket.write(left < block.length ? block.subarray(0, left) : block);
        left -= block.length;
      }
      if (left <= 0) resolve();
    };
    socket.on('drain', more);
    socket.on('close', resolve);
    more();
  });
}

/** Answers at once when so many bytes have come, behind the head. */
function readBytes(socket: Socket, bytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let seen = 0;
    socket.on('data', (part: Buffer) => {
      seen += part.length;
      if (seen >= bytes) resolve();
    });
    socket.on('close', () => (seen >= bytes ? resolve() : reject(new Error(`closed after ${seen} of ${bytes} bytes`))));
  });
}

/** The runtime's streaming server: `/down/N` sends N bytes, `/up/N` takes them and says one. */
function serveStreams(): void {
  const server = createTcpServer({ noDelay: true }, (socket) => {
    socket.on('error', () => undefined);
    socket.once('data', (head: Buffer) => {
      const [, way, bytes] = /^POST \/(\w+)\/(\d+)/.exec(head.toString('latin1')) ?? [];
      socket.write(upgrade);
      if (way === 'up') void readBytes(socket, Number(bytes)).then(() => socket.end('.'));
      else void writeBytes(socket, Number(bytes)).then(() => socket.end());
    });
  });
  server.listen(0, '127.0.0.1', () => parentPort!.postMessage((server.address() as AddressInfo).port));
}

async function headOf(socket: TLSSocket): Promise<void> {
  let text = '';
  while (!text.includes('\r\n\r\n')) {
    const [part] = (await once(socket, 'data')) as [Buffer];
    text += part.toString('latin1');
  }
  if (!text.startsWith('HTTP/1.1 101')) throw new Error(text);
  socket.pause();
  const rest = text.slice(text.indexOf('\r\n\r\n') + 4);
  if (rest !== '') socket.unshift(Buffer.from(rest, 'latin1'));
}

/** One stream; its milliseconds. */
async function ask({ port, path, way, bytes }: Ask): Promise<number> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  socket.on('error', () => undefined);
  const began = performance.now();
  socket.write(`POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n`);
  await headOf(socket);
  if (way === 'stalled') await sleep(2_000);
  else {
    const read = readBytes(socket, way === 'up' ? 1 : bytes);
    socket.resume();
    if (way === 'up') await writeBytes(socket, bytes);
    await read;
  }
  const ms = performance.now() - began;
  socket.destroy();
  return ms;
}

function worker(role: 'streams' | 'client'): Worker {
  return new Worker(new URL(import.meta.url), { workerData: role });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { mebibytes: { type: 'string', default: '256' }, rounds: { type: 'string', default: '5' } },
  });
  const bytes = Number(values.mebibytes) * 1024 * 1024;
  const folder = mkdtempSync(join(tmpdir(), 'streams-'));
  const streams = worker('streams');
  const client = worker('client');
  const [streamPort] = (await once(streams, 'message')) as [number];
  let target = '';
  const endpoint = async () => ({ kind: 'url' as const, url: `http://127.0.0.1:${streamPort}${target}` });
  const pod = { metadata: { name: 'p', namespace: 'd', uid: 'u' }, spec: { containers: [{ name: 'c', image: 'i' }] } };
  const serving = await loadServingCertificate(
    { log: silentLog, clock: systemClock },
    { certificateFolder: folder, hosts: ['127.0.0.1'] },
  );
  const node = createNodeServer(
    {
      clock: systemClock,
      log: silentLog,
      pods: {
        pods: () => [pod],
        byName: () => pod,
        container: () => ({ id: 'c' as never, state: 'running', logPath: '', restartCount: 0 }),
        sandbox: () => ({ id: 's' as never, ips: [], ready: true }),
        ended: async () => undefined,
      },
      // Streams alone are asked of it here.
      runtime: { exec: endpoint, portForward: endpoint } as unknown as Runtime,
      serving,
      health: [],
      configz: () => ({}),
    },
    {
      nodeName: 'bench',
      address: '127.0.0.1',
      port: 0,
      anonymous: true,
      tokenWebhook: false,
      authorizationMode: 'AlwaysAllow',
      rootFolder: folder,
    },
  );
  const nodePort = (await node.listen()).port;
  const pair = serving.current();
  const bare = createTlsServer({ cert: pair.certificate, key: pair.key, noDelay: true }, (socket) => {
    const upstream = connect({ port: streamPort, host: '127.0.0.1', noDelay: true });
    for (const [one, other] of [
      [socket, upstream],
      [upstream, socket],
    ] as const) {
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => bare.listen(0, '127.0.0.1', resolve));
  const barePort = (bare.address() as AddressInfo).port;

  const run = async (port: number, path: string, way: Way, size: number): Promise<number> => {
    target = `/${way === 'up' ? 'up' : 'down'}/${size}`;
    client.postMessage({ port, path: port === barePort ? target : path, way, bytes: size } satisfies Ask);
    const [answer] = (await once(client, 'message')) as [{ ms?: number; error?: string }];
    if (answer.ms === undefined) throw new Error(answer.error);
    return answer.ms;
  };
  const middle = (list: readonly number[]): number => [...list].sort((a, b) => a - b)[list.length >> 1]!;
  const speed = (ms: number): string => `${(bytes / 1048.576 / ms).toFixed(0)} MiB/s`;
  try {
    for (const [name, path] of [
      ['exec', '/exec/d/p/c?command=x&output=1&input=1'],
      ['port-forward', '/portForward/d/p'],
    ] as const)
      for (const way of ['down', 'up'] as const) {
        const times = { node: [] as number[], bare: [] as number[] };
        for (let round = -1; round < Number(values.rounds); round++) {
          const first = round % 2 === 0 ? nodePort : barePort;
          const one = await run(first, path, way, bytes);
          const other = await run(first === nodePort ? barePort : nodePort, path, way, bytes);
          const [ours, theirs] = first === nodePort ? [one, other] : [other, one];
          if (round < 0) continue; // Warming up.
          times.node.push(ours);
          times.bare.push(theirs);
        }
        const ratio = middle(times.bare.map((ms, at) => ms / times.node[at]!));
        console.log(
          `${name} ${way}: ${speed(middle(times.node))}, bare ${speed(middle(times.bare))}; ratio ${ratio.toFixed(2)} (median of ${times.node.length} pairs)`,
        );
      }
    const before = process.memoryUsage.rss();
    await run(nodePort, '/portForward/d/p', 'stalled', 1024 ** 3);
    console.log(
      `1 GiB to a client that does not read for 2 s: resident memory ${((process.memoryUsage.rss() - before) / 1024 ** 2).toFixed(1)} MiB more`,
    );
  } finally {
    await node.close();
    bare.close();
    await Promise.all([streams.terminate(), client.terminate()]);
    rmSync(folder, { recursive: true, force: true });
  }
}

if (isMainThread) await main();
else if (workerData === 'streams') serveStreams();
else
  parentPort!.on('message', (given: Ask) => {
    ask(given).then(
      (ms) => parentPort!.postMessage({ ms }),
      (error: unknown) => parentPort!.postMessage({ error: String(error) }),
    );
  });
