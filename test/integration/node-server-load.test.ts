// What people do with kubectl for longer than a moment, through a real kube-apiserver and a real runtime: large files copied both ways, a terminal
// that changes its size, an HTTP server behind a forwarded port under load. LONG=1 copies a GiB and holds the load for a minute; figures are printed.
import { createCipheriv, createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { Agent, get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { removeCgroups } from '../lab/cgroups.ts';
import { createKubectl, type Kubectl } from '../lab/kubectl.ts';
import { type NodeServerLab, realPod, startNodeServerLab } from '../lab/node-server.ts';

const long = process.env.LONG === '1';
const copyMiB = long ? 1024 : 64;
const loadMs = long ? 60_000 : 5_000;

let dir: string;
let lab: NodeServerLab;
let kubectl: Kubectl;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sv-nl-'));
  lab = await startNodeServerLab(dir);
  kubectl = createKubectl(lab.controlPlane.adminKubeconfig, dir);
}, 60_000);
afterAll(async () => {
  await lab?.stop();
  await removeCgroups('stevedore-server');
  if (dir) await rm(dir, { recursive: true, force: true });
}, 60_000);

const tell = (): void => onTestFailed(() => console.log(lab.log().slice(-6000)));

/** So many MiB that no compression and no repetition hides; the same at each call. */
async function* noise(mib: number): AsyncGenerator<Buffer> {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16));
  const zeros = Buffer.alloc(1024 * 1024);
  for (let made = 0; made < mib; made++) yield cipher.update(zeros);
}

async function checksum(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

for (const webSockets of [true, false]) {
  const how = webSockets ? 'WebSocket' : 'SPDY';

  describe(`kubectl by ${how}`, () => {
    it(`copies ${copyMiB} MiB there and back`, async () => {
      tell();
      const from = join(dir, 'from.bin');
      await pipeline(Readable.from(noise(copyMiB)), createWriteStream(from));
      const wanted = await checksum(from);
      const residentBefore = process.memoryUsage.rss();
      let residentMost = residentBefore;
      const watching = setInterval(() => {
        residentMost = Math.max(residentMost, process.memoryUsage.rss());
      }, 200);
      const timed = async (...args: string[]): Promise<number> => {
        const startedMs = performance.now();
        const ran = await kubectl.run(['cp', ...args], { webSockets, timeoutMs: 20 * 60_000 });
        expect({ code: ran.code, stderr: ran.stderr }).toEqual({ code: 0, stderr: '' });
        return (performance.now() - startedMs) / 1000;
      };
      try {
        const thereS = await timed('from.bin', `${realPod}:/tmp/copy.bin`);
        const inPod = await kubectl.run(['exec', realPod, '--', 'sha256sum', '/tmp/copy.bin'], { timeoutMs: 300_000 });
        expect(inPod.stdout.toString().split(' ')[0]).toBe(wanted);
        const backS = await timed(`${realPod}:/tmp/copy.bin`, 'back.bin');
        expect((await stat(join(dir, 'back.bin'))).size).toBe(copyMiB * 1024 * 1024);
        expect(await checksum(join(dir, 'back.bin'))).toBe(wanted);
        const grown = Math.round((residentMost - residentBefore) / 1024 / 1024);
        console.log(
          `kubectl cp by ${how}, ${copyMiB} MiB: there ${thereS.toFixed(1)} s (${(copyMiB / thereS).toFixed(0)} MiB/s), back ${backS.toFixed(1)} s (${(copyMiB / backS).toFixed(0)} MiB/s), sha256 ${wanted.slice(0, 12)}… on all sides, memory of the server's process +${grown} MiB`,
        );
        // The server only passes the stream on: what it holds does not grow with what is copied.
        expect(grown).toBeLessThan(256);
      } finally {
        clearInterval(watching);
        await kubectl.run(['exec', realPod, '--', 'rm', '-f', '/tmp/copy.bin']);
        for (const name of ['from.bin', 'back.bin']) await rm(join(dir, name), { force: true });
      }
    }, 2_400_000);

    it('is a terminal whose size follows the window, whose keys interrupt, and whose exit code comes back', async () => {
      tell();
      const session = await kubectl.terminal(['exec', '-it', realPod, '--', 'sh'], { webSockets });
      try {
        await session.shown(/[#$] /);
        await session.resize(31, 101);
        const ask = async (wanted: RegExp): Promise<void> => {
          // The new size comes by a stream of its own, a moment later than what is typed by another.
          for (let tries = 0; tries < 20; tries++) {
            const from = session.seen().length;
            session.type('stty size; echo asked-$((1 + 1))\n');
            await session.shown(/asked-2/, from);
            if (wanted.test(session.seen().slice(from))) return;
          }
          expect(session.seen()).toMatch(wanted);
        };
        await ask(/31 101/);
        await session.resize(47, 163);
        await ask(/47 163/);
        const from = session.seen().length;
        session.type('echo sleeps; sleep 1000; echo interrupted-$((2 + 2))\n');
        await session.shown(/\nsleeps/, from);
        session.type('\u0003');
        await session.shown(/\^C/, from);
        session.type('test -t 0 && test -t 1 && test -t 2 && echo all-$((3 + 3)); exit 7\n');
        await session.shown(/all-6/, from);
        expect(await session.ended).toBe(7);
      } finally {
        session.kill();
      }
    }, 90_000);

    it(
      'forwards a port under load without a failed request',
      async () => {
        tell();
        const bigMiB = 8;
        const wanted = createHash('sha256');
        for await (const part of noise(bigMiB)) wanted.update(part);
        const big = wanted.digest('hex');
        await pipeline(Readable.from(noise(bigMiB)), createWriteStream(join(dir, 'big.bin')));
        const put = await kubectl.run(['cp', 'big.bin', `${realPod}:/tmp/www/big.bin`], { webSockets });
        expect(put.stderr).toBe('');
        const child = kubectl.start(['port-forward', realPod, ':8080'], { webSockets });
        let said = '';
        const local = await new Promise<number>((resolve, reject) => {
          const hear = (part: Buffer): void => {
            said += part.toString();
            const found = /127\.0\.0\.1:(\d+)/.exec(said);
            if (found) resolve(Number(found[1]));
          };
          child.stdout!.on('data', hear);
          child.stderr!.on('data', hear);
          child.on('close', () => reject(new Error(said)));
        });
        const agent = new Agent({ keepAlive: false });
        const fetchOnce = (path: string): Promise<Buffer> =>
          new Promise((resolve, reject) => {
            get({ host: '127.0.0.1', port: local, path, agent, timeout: 30_000 }, (response) => {
              const parts: Buffer[] = [];
              response.on('data', (part: Buffer) => parts.push(part));
              response.on('end', () => resolve(Buffer.concat(parts)));
              response.on('error', reject);
            })
              .on('timeout', function (this: ReturnType<typeof get>) {
                this.destroy(new Error('no answer within 30 s'));
              })
              .on('error', reject);
          });
        const failures: string[] = [];
        const tookMs: number[] = [];
        let bigOnes = 0;
        const until = performance.now() + loadMs;
        const small = async (): Promise<void> => {
          while (performance.now() < until) {
            const startedMs = performance.now();
            try {
              const text = (await fetchOnce('/')).toString();
              if (text !== 'hello-from-http\n') failures.push(`a wrong answer: ${text}`);
              tookMs.push(performance.now() - startedMs);
            } catch (error) {
              failures.push(String(error));
            }
          }
        };
        const large = async (): Promise<void> => {
          while (performance.now() < until) {
            try {
              const body = await fetchOnce('/big.bin');
              if (createHash('sha256').update(body).digest('hex') !== big) failures.push(`${body.length} wrong bytes`);
              bigOnes++;
            } catch (error) {
              failures.push(String(error));
            }
          }
        };
        try {
          await Promise.all([...Array.from({ length: 8 }, small), large()]);
          expect(failures).toEqual([]);
          expect(tookMs.length).toBeGreaterThan(20);
          expect(bigOnes).toBeGreaterThan(0);
          tookMs.sort((a, b) => a - b);
          const at = (share: number): string => (tookMs[Math.floor(tookMs.length * share)] ?? 0).toFixed(0);
          console.log(
            `kubectl port-forward by ${how}, 8 clients, a connection for each request, ${loadMs / 1000} s: ${tookMs.length} requests, none failed, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms; beside them ${bigOnes} of ${bigMiB} MiB, checksums right`,
          );
        } finally {
          agent.destroy();
          child.kill();
        }
      },
      loadMs + 120_000,
    );
  });
}
