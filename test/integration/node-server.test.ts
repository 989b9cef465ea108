// The node's server under a real kube-apiserver and an unmodified kubectl: with a real containerd, whose streams are spliced, and with a
// runtime that hands its streams over, so that our SPDY meets Go's.
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { get } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { removeCgroups } from '../lab/cgroups.ts';
import { createKubectl, type Kubectl, type KubectlOptions } from '../lab/kubectl.ts';
import { localPod, type NodeServerLab, realPod, startNodeServerLab } from '../lab/node-server.ts';

let dir: string;
let lab: NodeServerLab;
let tool: Kubectl;
let web: Server;
let webPort: number;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sv-ns-'));
  lab = await startNodeServerLab(dir);
  tool = createKubectl(lab.controlPlane.adminKubeconfig, dir);
  web = createServer((_request, response) => response.end('hello-from-http\n'));
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
  webPort = (web.address() as AddressInfo).port;
});
afterAll(async () => {
  web?.close();
  await lab?.stop();
  await removeCgroups('stevedore-server');
  if (dir) await rm(dir, { recursive: true, force: true });
});

const kubectl: Kubectl['run'] = (args, options) => tool.run(args, options);
const start: Kubectl['start'] = (args, options) => tool.start(args, options);

const tell = (): void => onTestFailed(() => console.log(lab.log().slice(-6000)));
const sha = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

describe('logs', () => {
  it('are shown, by stream, with times, and followed', async () => {
    tell();
    const all = await kubectl(['logs', realPod]);
    expect(all.stdout.toString()).toBe('begin\noops\n');
    const timed = await kubectl(['logs', realPod, '--timestamps', '--tail=1']);
    expect(timed.stdout.toString()).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) oops\n$/);
    const follower = start(['logs', '-f', '--tail=0', realPod]);
    let seen = '';
    const enough = new Promise<void>((resolve) =>
      follower.stdout!.on('data', (part: Buffer) => {
        seen += part.toString();
        if (seen.includes('typed')) resolve();
      }),
    );
    const typed = await kubectl(['exec', realPod, '--', 'sh', '-c', 'echo typed > /proc/1/fd/1']);
    expect(typed.stderr).toBe('');
    await enough;
    follower.kill();
  });

  it('of what is not there are refused in words', async () => {
    const none = await kubectl(['logs', realPod, '--previous']);
    expect(none.code).toBe(1);
    expect(none.stderr).toContain('previous terminated container "main" in pod "real" not found');
  });
});

for (const pod of [realPod, localPod]) {
  for (const webSockets of [true, false]) {
    const how = `${pod === realPod ? 'spliced to containerd' : 'spoken by us'}, kubectl by ${webSockets ? 'WebSocket' : 'SPDY'}`;
    describe(`exec ${how}`, () => {
      const exec = (command: readonly string[], options: KubectlOptions & { flags?: string[] } = {}) =>
        kubectl(['exec', ...(options.flags ?? []), pod, '--', ...command], { ...options, webSockets });

      it('gives back output, errors and the exit code', async () => {
        tell();
        const ran = await exec(['sh', '-c', 'echo out; echo err >&2; exit 7']);
        expect(ran.stdout.toString()).toBe('out\n');
        expect(ran.stderr).toBe('err\ncommand terminated with exit code 7\n');
        expect(ran.code).toBe(7);
        const fine = await exec(['true']);
        expect({ code: fine.code, stderr: fine.stderr }).toEqual({ code: 0, stderr: '' });
      });

      it('takes input to its end', async () => {
        tell();
        const input = randomBytes(3_000_000);
        const ran = await exec(['cat'], { input, flags: ['-i'] });
        expect(sha(ran.stdout)).toBe(sha(input));
        expect(ran.code).toBe(0);
      });

      it('copies files both ways', async () => {
        tell();
        const from = join(dir, 'from.bin');
        const back = join(dir, 'back.bin');
        const data = randomBytes(20_000_000);
        await writeFile(from, data);
        const target = pod === realPod ? '/tmp/copy.bin' : join(dir, 'copy.bin');
        const there = await kubectl(['cp', 'from.bin', `${pod}:${target}`], { webSockets });
        expect({ code: there.code, stderr: there.stderr }).toEqual({ code: 0, stderr: '' });
        const here = await kubectl(['cp', `${pod}:${target}`, 'back.bin'], { webSockets });
        expect(here.code).toBe(0);
        expect(sha(await readFile(back))).toBe(sha(data));
      });
    });

    describe(`attach ${how}`, () => {
      it('joins the running process', async () => {
        tell();
        const child = start(['attach', '-i', pod], { webSockets });
        let seen = '';
        const echoed = new Promise<void>((resolve) =>
          child.stdout!.on('data', (part: Buffer) => {
            seen += part.toString();
            if (seen.includes('hello\n')) resolve();
          }),
        );
        child.stdin!.write('hello\n');
        const again = setInterval(() => child.stdin!.write('hello\n'), 500);
        await echoed;
        clearInterval(again);
        child.kill();
      });
    });

    describe(`port-forward ${how}`, () => {
      it('carries many connections at once', async () => {
        tell();
        const port = pod === realPod ? 8080 : webPort;
        const child = start(['port-forward', pod, `:${port}`], { webSockets });
        let said = '';
        const local = await new Promise<number>((resolve, reject) => {
          child.stdout!.on('data', (part: Buffer) => {
            said += part.toString();
            const found = /127\.0\.0\.1:(\d+)/.exec(said);
            if (found) resolve(Number(found[1]));
          });
          child.stderr!.on('data', (part: Buffer) => {
            said += part.toString();
          });
          child.on('close', () => reject(new Error(said)));
        });
        const answers = await Promise.all(
          Array.from({ length: 20 }, async () => {
            const answer = await fetch(`http://127.0.0.1:${local}/`, { headers: { connection: 'close' } });
            return await answer.text();
          }),
        );
        expect(new Set(answers)).toEqual(new Set(['hello-from-http\n']));
        child.kill();
      });
    });
  }
}

describe('pages', () => {
  /** With the API server's own credentials; it refuses to proxy to a loopback address itself. */
  const raw = async (path: string, as = 'pki/apiserver-kubelet'): Promise<string> => {
    const [cert, key] = await Promise.all(
      ['crt', 'key'].map((end) => readFile(join(lab.controlPlane.dir, `${as}.${end}`), 'utf8')),
    );
    return await new Promise((resolve, reject) => {
      get({ host: '127.0.0.1', port: lab.port, path, cert, key, rejectUnauthorized: false }, (response) => {
        let text = '';
        response.on('data', (part: Buffer) => {
          text += part.toString();
        });
        response.on('end', () => resolve(response.statusCode === 200 ? text : `${response.statusCode} ${text}`));
      }).on('error', reject);
    });
  };

  it('show pods, health, configuration and statistics', async () => {
    tell();
    expect(await raw('/healthz')).toBe('ok');
    expect(JSON.parse(await raw('/pods')).items).toHaveLength(2);
    expect(JSON.parse(await raw('/runningpods/')).items[0].metadata.name).toBe(realPod);
    expect(JSON.parse(await raw('/configz'))).toEqual({ kubeletconfig: { kind: 'KubeletConfiguration' } });
    const summary = JSON.parse(await raw('/stats/summary'));
    const [pod] = summary.pods;
    expect(pod.podRef.name).toBe(realPod);
    const [container] = pod.containers;
    expect(container.cpu.usageCoreNanoSeconds).toBeGreaterThan(0);
    expect(container.memory.workingSetBytes).toBeGreaterThan(0);
    // Runtimes measure layers every ten seconds: a new one may still show nothing.
    expect(container.rootfs.usedBytes).toBeGreaterThanOrEqual(0);
    expect(container.rootfs.capacityBytes).toBeGreaterThan(0);
    expect(container.logs.usedBytes).toBeGreaterThan(0);
    expect(pod.network.name).toBe('eth0');
    expect(summary.node.memory.workingSetBytes).toBeGreaterThan(0);
    const metrics = await raw('/metrics/resource');
    expect(metrics).toMatch(
      /^container_memory_working_set_bytes\{container="main",namespace="default",pod="real"\} \d+ \d+$/m,
    );
    const cadvisor = await raw('/metrics/cadvisor');
    expect(cadvisor).toMatch(/^container_network_receive_bytes_total\{.*interface="eth0"\} \d+ \d+$/m);
    const inContainer = (family: string): number =>
      Number(new RegExp(`^${family}\\{container="main",[^}]*pod="real"[^}]*\\} (\\S+)`, 'm').exec(cadvisor)?.[1]);
    expect(inContainer('container_processes')).toBeGreaterThanOrEqual(1);
    expect(inContainer('container_file_descriptors')).toBeGreaterThanOrEqual(3);
    expect(inContainer('container_sockets')).toBeGreaterThanOrEqual(0);
    expect(inContainer('container_ulimits_soft')).not.toBeNaN();
    expect(inContainer('container_spec_memory_reservation_limit_bytes')).toBe(0);
    const ofMachine = (family: string): number[] =>
      [...cadvisor.matchAll(new RegExp(`^${family}\\{container="",id="/",[^}]*device="[^"]+"\\} (\\S+)`, 'gm'))].map(
        ([, value]) => Number(value),
      );
    expect(Math.max(...ofMachine('container_fs_limit_bytes'))).toBeGreaterThan(0);
    expect(ofMachine('container_fs_io_time_seconds_total').length).toBeGreaterThanOrEqual(
      ofMachine('container_fs_usage_bytes').length,
    );
    expect(cadvisor).toMatch(
      /^container_processes\{container="",id="[^"]+",image="[^"]+",name="[0-9a-f]+",[^}]*pod="real"\} 1 /m,
    );
    expect(cadvisor).toMatch(/^machine_cpu_cores\{boot_id="[^"]+",machine_id="[^"]*",system_uuid="[^"]*"\} [1-9]/m);
    expect(await raw('/metrics')).toContain('kubelet_node_name{node="lab-node"} 1');
    // What kubectl sent by WebSocket came here as such: the API server did not translate it.
    for (const subresource of ['exec', 'attach', 'portforward'])
      expect(await raw('/metrics')).toMatch(
        new RegExp(`^kubelet_websocket_streaming_requests_total\\{subresource="${subresource}"\\} [1-9]`, 'm'),
      );
    expect(await raw('/metrics')).toContain(
      'kubelet_http_requests_total{long_running="false",method="GET",path="stats",server_type="readwrite"} 1',
    );
  });

  it('are for those whom the cluster allows: by certificate and by token', async () => {
    tell();
    await lab.controlPlane.kubectl('create', 'serviceaccount', 'scraper');
    await lab.controlPlane.kubectl('create', 'clusterrole', 'scrape', '--verb=get', '--resource=nodes/metrics');
    await lab.controlPlane.kubectl(
      'create',
      'clusterrolebinding',
      'scrape',
      '--clusterrole=scrape',
      '--serviceaccount=default:scraper',
    );
    const token = (await lab.controlPlane.kubectl('create', 'token', 'scraper')).trim();
    const ask = (path: string, bearer: string): Promise<number> =>
      new Promise((resolve, reject) => {
        const headers = { authorization: `Bearer ${bearer}` };
        get({ host: '127.0.0.1', port: lab.port, path, headers, rejectUnauthorized: false }, (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        }).on('error', reject);
      });
    expect(await ask('/metrics/resource', token)).toBe(200);
    expect(await ask('/pods', token)).toBe(403);
    expect(await ask('/exec/default/real/main?command=id&output=1', token)).toBe(403);
    expect(await ask('/pods', `${token}x`)).toBe(401);
  });
});
