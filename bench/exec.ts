// What the node's server adds to a short exec: `true` in a container, from the request to its exit status, once through :10250 (TLS, certificate,
// authorization, the splice) and once on the streaming URL that the runtime gives for the same call. In turns, by the same WebSocket client.
// Needs root and KUBEBUILDER_ASSETS. `node bench/exec.ts [--rounds 60]`
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { WebSocket } from 'ws';
import { parse } from 'yaml';
import type { ContainerId } from '../cri/types.ts';
import { realPod, startNodeServerLab } from '../test/lab/node-server.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '60' } } });
const rounds = Number(values.rounds);
const warmUp = 5;
/** The channel of v4.channel.k8s.io on which the exit status comes. */
const statusChannel = 3;

interface Client {
  readonly cert: Buffer;
  readonly key: Buffer;
}

async function clientOf(kubeconfig: string): Promise<Client> {
  const { users } = parse(await readFile(kubeconfig, 'utf8')) as {
    users: { user: { 'client-certificate': string; 'client-key': string } }[];
  };
  const { user } = users[0]!;
  return { cert: await readFile(user['client-certificate']), key: await readFile(user['client-key']) };
}

/** Resolves when the exit status has come; rejects where it is not success. */
function statusOf(url: string, client: Partial<Client>): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url.replace(/^http/, 'ws'), 'v4.channel.k8s.io', {
      ...client,
      rejectUnauthorized: false,
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${url} closed without an exit status`)));
    socket.on('message', (data: Buffer) => {
      if (data[0] !== statusChannel || data.length < 2) return;
      const said = data.subarray(1).toString();
      if ((JSON.parse(said) as { status?: string }).status === 'Success') resolve();
      else reject(new Error(said));
      socket.close();
    });
  });
}

async function took(work: () => Promise<void>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

const percentile = (list: readonly number[], share: number): number =>
  [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * share))] ?? Number.NaN;

const dir = await mkdtemp(join(tmpdir(), 'bench-exec-'));
const lab = await startNodeServerLab(dir);
try {
  const admin = await clientOf(
    await lab.controlPlane.kubeconfigFor({ commonName: 'bench', organization: 'system:masters' }),
  );
  const request = {
    containerId: lab.containerId as ContainerId,
    command: ['true'],
    tty: false,
    stdin: false,
    stdout: true,
    stderr: true,
  };
  const raw = async (): Promise<void> => {
    const endpoint = await lab.runtime.exec(request);
    if (endpoint.kind !== 'url') throw new Error('the runtime gives no streaming URL');
    await statusOf(endpoint.url, {});
  };
  const through = (): Promise<void> =>
    statusOf(`https://127.0.0.1:${lab.port}/exec/default/${realPod}/main?command=true&output=1&error=1`, admin);
  const [ours, bare]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds + warmUp; round++) {
    const [a, b] = [await took(through), await took(raw)];
    if (round >= warmUp) {
      ours.push(a);
      bare.push(b);
    }
  }
  const [p50, floor] = [percentile(ours, 0.5), percentile(bare, 0.5)];
  process.stdout.write(
    `exec of true: p50 ${p50.toFixed(1)} ms, p99 ${percentile(ours, 0.99).toFixed(1)} ms; on the streaming URL p50 ${floor.toFixed(1)} ms; ratio ${(p50 / floor).toFixed(2)}; load ${loadavg()[0]!.toFixed(1)}\n`,
  );
} finally {
  await lab.stop();
  await rm(dir, { recursive: true, force: true });
}
