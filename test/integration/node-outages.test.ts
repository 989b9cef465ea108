// What goes on around a node while its pods serve: a rolling update under load, the daemon killed, the API server away.
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { resources } from '../../kube/resources.ts';
import type { Service } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { runtimeId } from '../lab/engine.ts';
import { type LabNode, startLabNode } from '../lab/node.ts';
import { isReady, restartsOf, watchPods } from '../lab/watched-pods.ts';

let node: LabNode;
let url: string;
// An hour of absence is the same code as ten seconds; a minute is for those who have it.
const awayMs = process.env.LONG ? 60_000 : 10_000;

const deployment = (version: string): string => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 3
  strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } }
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: web
          image: localhost/stevedore/demo:1
          env: [{ name: VERSION, value: "${version}" }]
          ports: [{ containerPort: 8080, name: http }]
          readinessProbe: { httpGet: { path: /healthz, port: http }, periodSeconds: 1 }
          livenessProbe: { tcpSocket: { port: http }, periodSeconds: 1 }
          lifecycle: { preStop: { sleep: { seconds: 2 } } }
          resources: { requests: { cpu: 10m, memory: 16Mi } }
`;

const service = `
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [{ port: 80, targetPort: http }] }
`;

interface Calls {
  readonly calls: number;
  readonly answers: Readonly<Record<string, number>>;
  readonly failures: readonly string[];
}

const loop = fileURLToPath(new URL('../lab/closed-loop.ts', import.meta.url));

/** Calls the Service all the time; the returned function ends it and says what came of it. */
function callTheService(): () => Promise<Calls> {
  const child = node.host.node(loop, [url]);
  let text = '';
  child.stdout?.on('data', (chunk: Buffer) => (text += chunk.toString()));
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return async () => {
    child.kill('SIGTERM');
    await ended;
    return JSON.parse(text) as Calls;
  };
}

const webPods = async (): Promise<readonly Pod[]> =>
  (await node.cluster.admin.list(resources.pods, { namespace: 'default', labelSelector: 'app=web' })).items;
const containersOf = (pods: readonly Pod[]): Record<string, readonly (string | undefined)[]> =>
  Object.fromEntries(
    pods.map((pod) => [pod.metadata.name, pod.status?.containerStatuses?.map(({ containerID }) => containerID) ?? []]),
  );

async function until(what: string, holds: () => Promise<boolean>, ms = 60_000): Promise<void> {
  for (const deadline = Date.now() + ms; !(await holds()); await sleep(50))
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms`);
}

beforeAll(async () => {
  node = await startLabNode();
  await node.cluster.apply(`${deployment('1')}---${service}`);
  await node.cluster.kubectl('rollout', 'status', 'deploy/web', '--timeout=60s');
  const { spec } = await node.cluster.admin.get<Service>(resources.services, { namespace: 'default', name: 'web' });
  url = `http://${spec.clusterIP}/`;
  await until('the Service answers', () =>
    node.host.exec('curl', ['-sS', '--fail', '--max-time', '2', url]).then(
      () => true,
      () => false,
    ),
  );
});
afterAll(async () => {
  await node?.stop();
});
afterEach(async (context) => {
  if (context.task.result?.state === 'fail') console.log(await node.report());
});

it('a rolling update of pods that drain fails no call of the Service', async () => {
  const before = (await webPods()).map(({ metadata }) => metadata.name);
  const end = callTheService();
  await sleep(1_000);
  await node.cluster.apply(deployment('2'));
  await node.cluster.kubectl('rollout', 'status', 'deploy/web', '--timeout=90s');
  await until('the old pods are gone', async () =>
    (await webPods()).every(({ metadata }) => !before.includes(metadata.name)),
  );
  const { calls, answers, failures } = await end();
  console.log(
    `rolling update: ${calls} calls, ${Object.keys(answers).length} pods answered, ${failures.length} failed`,
  );
  expect(failures).toEqual([]);
  expect(calls).toBeGreaterThan(100);
  const after = (await webPods()).map(({ metadata }) => metadata.name);
  expect(Object.keys(answers)).toEqual(expect.arrayContaining([...before, ...after]));
});

it('the daemon is killed and comes back: no container restarts, no pod turns unready, no call fails', async () => {
  await until('three pods', async () => (await webPods()).filter(isReady).length === 3);
  const before = containersOf(await webPods());
  const watching = watchPods(node.cluster.admin);
  const end = callTheService();
  for (let times = 0; times < 2; times++) {
    await node.end('SIGKILL');
    await sleep(1_500);
    await node.start();
    await until('the daemon answers', async () => (await node.log()).split('stevedore runs').length > times + 2);
    // Long enough for probes to begin anew, and for a safety relist.
    await sleep(4_000);
  }
  const { failures } = await end();
  await watching.stop();
  expect(containersOf(await webPods())).toEqual(before);
  const wrong = watching.seen.filter(({ ready, restarts, phase }) => !ready || restarts > 0 || phase !== 'Running');
  expect(wrong).toEqual([]);
  expect(failures).toEqual([]);
});

it('a container that ended while the daemon was away is started again when it is back', async () => {
  const [victim] = await webPods();
  const name = victim?.metadata.name ?? '';
  const id = runtimeId(victim?.status?.containerStatuses?.[0]?.containerID);
  await node.end('SIGKILL');
  await node.engine.kill(id);
  await sleep(500);
  await node.start();
  const after = await node.waitForPod(name, (pod) => restartsOf(pod) === 1 && isReady(pod));
  expect(after.status?.containerStatuses?.[0]?.lastState?.terminated?.exitCode).toBe(137);
});

it('the API server is away: pods go on, a container that ends is started again, and afterwards all is right', async () => {
  await until('three pods', async () => (await webPods()).filter(isReady).length === 3);
  const pods = await webPods();
  const victim = pods.find((pod) => restartsOf(pod) === 0)!;
  const others = containersOf(pods.filter((pod) => pod !== victim));
  const id = runtimeId(victim.status?.containerStatuses?.[0]?.containerID);
  const before = (await node.engine.running()).length;

  await node.cluster.pause();
  const awaySince = Date.now();
  const end = callTheService();
  await sleep(1_000);
  await node.engine.kill(id);
  await until(
    'another container in the place of the one that ended, without the API server',
    async () => {
      const running = await node.engine.running();
      return !running.includes(id) && running.length === before;
    },
    15_000,
  );
  await sleep(Math.max(0, awayMs - (Date.now() - awaySince)));
  await node.cluster.resume();
  const backAt = Date.now();

  const after = await node.waitForPod(victim.metadata.name, (pod) => restartsOf(pod) === 1 && isReady(pod));
  console.log(`API server back → status right: ${Date.now() - backAt} ms`);
  expect(after.status?.containerStatuses?.[0]?.lastState?.terminated?.exitCode).toBe(137);
  await node.waitForReady();
  const { calls, failures } = await end();
  console.log(`API server away: ${calls} calls of the Service, ${failures.length} failed`);
  // Until the ended container is noticed calls may reach it; nothing else may fail.
  expect(failures.filter((why) => !/ECONNREFUSED|ECONNRESET|socket hang up/.test(why))).toEqual([]);
  const now = containersOf(await webPods());
  for (const [name, containers] of Object.entries(others)) expect(now[name]).toEqual(containers);
  // And it takes orders again.
  await node.cluster.kubectl('scale', 'deploy/web', '--replicas=1');
  await until('scaled down', async () => (await webPods()).length === 1);
});
