// How fast, and at what cost: a change of a ConfigMap until it is in the file, a token volume, and a thousand volumes at once.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createMounter } from '../../agent/volumes/mounter.ts';
import { createPodVolumes, type PodVolumes } from '../../agent/volumes/pod-volumes.ts';
import { unmountUnder } from '../../agent/volumes/remove-tree.ts';
import { createFakeClient, type FakeClient } from '../../kube/fake-client.ts';
import { createObjectCache, type OwnedObjectCache } from '../../kube/object-cache.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { labPod } from '../lab/volumes.ts';

let root: string;
let client: FakeClient;
let cache: OwnedObjectCache;
let volumes: PodVolumes;
const stopping = { controller: new AbortController(), done: Promise.resolve() };
const signal = (): AbortSignal => AbortSignal.timeout(60_000);

beforeEach(async () => {
  if (process.getuid?.() !== 0) throw new Error('this test needs root');
  root = await mkdtemp(join(tmpdir(), 'stevedore-volumes-speed-'));
  client = createFakeClient();
  client.seed(resources.nodes, { metadata: { name: 'lab' }, spec: {} });
  client.answer(
    (call) => call.subresource === 'token',
    (call) => ({
      ...(call.body as object),
      status: { token: 'x', expirationTimestamp: new Date(Date.now() + 3_600_000).toISOString() },
    }),
  );
  const deps = { client, clock: systemClock, log: silentLog };
  cache = createObjectCache(deps);
  volumes = createPodVolumes(
    { ...deps, objects: cache, node: () => undefined, wake: () => undefined },
    { rootDir: root, nodeName: 'lab' },
  );
  stopping.controller = new AbortController();
  stopping.done = volumes.run(stopping.controller.signal);
});
afterEach(async () => {
  stopping.controller.abort();
  await stopping.done;
  await cache.stop();
  await unmountUnder(createMounter(), root, signal());
  await rm(root, { recursive: true, force: true });
});

const configMap = (name: string, value: string) => ({ metadata: { name, namespace: 'default' }, data: { key: value } });
const fileOf = (pod: Pod): string => join(root, 'pods', pod.metadata.uid!, 'volumes/kubernetes.io~configmap/v/key');
const median = (numbers: number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;

async function changeToFile(pod: Pod, value: string, change: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await change();
  while ((await readFile(fileOf(pod), 'utf8')) !== value) {
    if (performance.now() - from > 5_000) throw new Error('the change did not reach the file in 5 s');
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return performance.now() - from;
}

it('a thousand volumes are a thousand watches, and a change of one is in its file at once', async () => {
  const pods: Pod[] = [];
  const memory = (): number => process.memoryUsage().rss / 2 ** 20;
  const before = memory();
  const from = performance.now();
  for (let index = 0; index < 1000; index++) {
    client.seed(resources.configMaps, configMap(`c${index}`, 'one'));
    pods.push(labPod({ volumes: [{ name: 'v', configMap: { name: `c${index}` } }] }));
  }
  for (let start = 0; start < pods.length; start += 50)
    await Promise.all(pods.slice(start, start + 50).map((pod) => volumes.setUp(pod, signal())));
  const setUpMs = performance.now() - from;
  expect(client.openWatches).toBeLessThanOrEqual(1000);
  const took: number[] = [];
  for (let round = 0; round < 21; round++) {
    const index = round * 40;
    const after = {
      ...client.find(resources.configMaps, { namespace: 'default', name: `c${index}` })!,
      data: { key: 'two' },
    };
    took.push(await changeToFile(pods[index]!, 'two', () => client.update(resources.configMaps, after)));
  }
  const grown = memory() - before;
  console.log(
    `1,000 configMap volumes: set up in ${Math.round(setUpMs)} ms, resident +${Math.round(grown)} MB, change→file p50 ${median(took).toFixed(1)} ms`,
  );
  expect(median(took)).toBeLessThan(100);
  for (let start = 0; start < pods.length; start += 50)
    await Promise.all(pods.slice(start, start + 50).map((pod) => volumes.tearDown(pod.metadata.uid!, signal())));
  expect(await volumes.known()).toEqual([]);
});

it('a token volume is there in a moment', async () => {
  const took: number[] = [];
  for (let round = 0; round < 15; round++) {
    const pod = labPod({
      volumes: [{ name: 'v', projected: { sources: [{ serviceAccountToken: { path: 'token' } }] } }],
    });
    const from = performance.now();
    await volumes.setUp(pod, signal());
    took.push(performance.now() - from);
    await volumes.tearDown(pod.metadata.uid!, signal());
  }
  console.log(`service account token volume: p50 ${median(took).toFixed(1)} ms`);
  // 20 ms on a quiet machine; the bound leaves room for one that is not.
  expect(median(took)).toBeLessThan(100);
});
