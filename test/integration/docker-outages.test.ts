// Docker Engine ended, killed, standing still and started as another one under running pods, with live-restore and without: pods are taken
// up again or restarted as their policy says, once each, and nothing has to be done by hand.
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { kindLabel, podUidLabel } from '../../cri/docker/labels.ts';
import { demoImageName } from '../../cri/local-images.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { runtimeId } from '../lab/engine.ts';
import { type LabNode, startLabNode } from '../lab/node.ts';
import { isReady, restartsOf } from '../lab/watched-pods.ts';

let node: LabNode;

type Policy = 'Always' | 'OnFailure' | 'Never';
const podOf = (name: string, restartPolicy: Policy): Pod => ({
  metadata: { name, namespace: 'default', labels: { suite: 'outages' } },
  spec: {
    restartPolicy,
    terminationGracePeriodSeconds: 1,
    containers: [
      {
        name: 'main',
        image: demoImageName,
        imagePullPolicy: 'Never',
        command: [
          '/bin/sh',
          '-c',
          'httpd -p 8080 -h /www; i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.2; done',
        ],
        // Not by a command: one that starts just when the engine goes costs the container its log (docs/docker.md).
        readinessProbe: { httpGet: { path: '/healthz', port: 8080 }, periodSeconds: 1, timeoutSeconds: 5 },
      },
    ],
  },
});

const idOf = (pod: Pod): string => runtimeId(pod.status?.containerStatuses?.[0]?.containerID);
const podNamed = (name: string): Promise<Pod> => node.cluster.admin.get(resources.pods, { namespace: 'default', name });
const pods = async (): Promise<readonly Pod[]> =>
  (await node.cluster.admin.list(resources.pods, { namespace: 'default' })).items;
const create = async (name: string, policy: Policy): Promise<Pod> => {
  await node.cluster.admin.create(resources.pods, podOf(name, policy));
  return node.waitForPod(name, isReady);
};

async function until(what: string, holds: () => Promise<boolean>, ms = 60_000): Promise<void> {
  for (const deadline = Date.now() + ms; !(await holds()); await sleep(100))
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms\n${await node.report()}`);
}

interface Listed {
  readonly Id: string;
  readonly Labels: Readonly<Record<string, string>>;
}

/** One sandbox and one container for each pod that runs, and no other. Dead ones may wait to be collected. */
async function nothingTwice(): Promise<void> {
  const running = (await pods()).filter(({ status }) => status?.phase === 'Running');
  const shouldBe = running
    .flatMap(({ metadata }) => [`${metadata.uid} sandbox`, `${metadata.uid} container`])
    .toSorted();
  let there: string[] = [];
  await until(`${shouldBe.length} containers, one of each`, async () => {
    const { body } = await node.dockerd!.api('GET', '/containers/json');
    there = (JSON.parse(body) as Listed[])
      .map(({ Labels }) => `${Labels[podUidLabel]} ${Labels[kindLabel]}`)
      .toSorted();
    return there.join() === shouldBe.join();
  }).catch((error: unknown) => {
    expect(there, String(error)).toEqual(shouldBe);
  });
}

const conditionOf = async () => {
  const { status } = await node.cluster.admin.get(resources.nodes, { name: node.name });
  return status?.conditions?.find(({ type }) => type === 'Ready');
};

/** The numbers that a pod's container has counted into its log, over rotations. */
async function counted(pod: Pod): Promise<number[]> {
  const { name, uid } = pod.metadata;
  const folder = join(dirname(node.rootDir), 'pods', `default_${name}_${uid}`, 'main');
  const numbers: number[] = [];
  for (const file of (await readdir(folder)).toSorted())
    for (const line of (await readFile(join(folder, file), 'utf8')).split('\n'))
      if (line.includes(' line ')) numbers.push(Number(line.split(' ').at(-1)));
  return numbers;
}

const from = (first: number, count: number): number[] => Array.from({ length: count }, (_, at) => first + at);

afterEach(async (context) => {
  if (context.task.result?.state === 'fail') console.log(await node.report());
});

/** What befalls the engine; each ends with one that answers again. LONG=1 has all of them befall both kinds of engine. */
const events: readonly (readonly [string, () => Promise<void>])[] = [
  ['ended and started', () => node.dockerd!.restart('SIGTERM')],
  ['killed and started', () => node.dockerd!.restart('SIGKILL')],
  [
    'ended and upgraded: started with other settings, and as another version where STEVEDORE_DOCKERD2 names one',
    async () => {
      await node.dockerd!.end('SIGTERM');
      await sleep(2_000);
      await node.dockerd!.start(
        { 'max-concurrent-downloads': 2, 'default-shm-size': '32M', debug: true },
        { upgraded: true },
      );
      const { body } = await node.dockerd!.api('GET', '/version');
      console.log(`the engine is ${(JSON.parse(body) as { Version: string }).Version}`);
    },
  ],
  [
    'killed with the agent, and both started',
    async () => {
      await node.end('SIGKILL');
      await node.dockerd!.restart('SIGKILL');
      await node.start();
    },
  ],
];

const some = (...chosen: readonly number[]) =>
  process.env.LONG ? events : events.filter((_, at) => chosen.includes(at));

describe('with live-restore', () => {
  beforeAll(async () => {
    node = await startLabNode({ runtime: 'docker', liveRestore: true, only: 'agent' });
    await Promise.all([create('always', 'Always'), create('onfailure', 'OnFailure'), create('never', 'Never')]);
  });
  afterAll(async () => {
    await node?.stop();
  });

  const goOn = async (before: readonly Pod[]): Promise<void> => {
    const seen = (list: readonly Pod[]) =>
      list.map((pod) => [pod.metadata.name, pod.status?.phase, idOf(pod), restartsOf(pod)]);
    expect(seen(await pods())).toEqual(seen(before));
    await nothingTwice();
    for (const pod of before) {
      const numbers = await counted(pod);
      expect(numbers).toEqual(from(1, numbers.length));
      await until(`${pod.metadata.name} says more`, async () => (await counted(pod)).length > numbers.length);
    }
  };

  it.each(some(1, 2))('an engine %s: pods run on, and their logs too', async (_, happen) => {
    const before = await pods();
    await happen();
    await node.waitForReady();
    // Long enough for a relist, and for probes to say that something is wrong.
    await sleep(4_000);
    for (const { metadata } of before) await node.waitForPod(metadata.name, isReady);
    await goOn(before);
    // And it takes orders.
    await create('after', 'Never');
    await node.cluster.admin.delete(resources.pods, { namespace: 'default', name: 'after' });
    await until('gone', async () => (await pods()).length === before.length);
  });

  it('a container that ended while the engine was away is started again, in the same sandbox', async () => {
    const before = await podNamed('always');
    const { body } = await node.dockerd!.api('GET', `/containers/${idOf(before)}/json`);
    const { Pid } = (JSON.parse(body) as { State: { Pid: number } }).State;
    await node.dockerd!.end('SIGTERM');
    process.kill(Pid, 'SIGKILL');
    await sleep(500);
    await node.dockerd!.start();
    const after = await node.waitForPod('always', (pod) => restartsOf(pod) === restartsOf(before) + 1 && isReady(pod));
    expect(after.status?.podIP).toBe(before.status?.podIP);
    expect(after.status?.containerStatuses?.[0]?.lastState?.terminated).toMatchObject({
      containerID: `docker://${idOf(before)}`,
    });
    await nothingTwice();
  });

  it('an engine that stands still: the node says so in one condition, which goes by itself, and what was asked meanwhile is done', async () => {
    await create('doomed', 'Always');
    const before = (await pods()).filter(({ metadata }) => metadata.name !== 'doomed');
    const said: string[] = [];
    const looking = new AbortController();
    const look = (async () => {
      while (!looking.signal.aborted) {
        const { status, message } = (await conditionOf()) ?? {};
        const words = status === 'True' ? 'True' : `${status}: ${message}`;
        if (said.at(-1) !== words) said.push(words);
        await sleep(100);
      }
    })();
    node.dockerd!.hang();
    try {
      await node.cluster.admin.create(resources.pods, podOf('late', 'Always'));
      await node.cluster.admin.delete(resources.pods, { namespace: 'default', name: 'doomed' });
      await until('NotReady', async () => (await conditionOf())?.status === 'False', 90_000);
      await sleep(5_000);
    } finally {
      node.dockerd!.goOn();
    }
    const backAt = Date.now();
    await node.waitForReady();
    console.log(`the engine goes on → Ready: ${Date.now() - backAt} ms`);
    await node.waitForPod('late', isReady);
    await until('the deleted one gone', async () => !(await pods()).some(({ metadata }) => metadata.name === 'doomed'));
    looking.abort();
    await look;
    expect(said).toEqual(['True', 'False: container runtime is down', 'True']);
    for (const { metadata } of before) await node.waitForPod(metadata.name, isReady);
    for (const pod of before) {
      const now = await podNamed(pod.metadata.name);
      expect([idOf(now), restartsOf(now)]).toEqual([idOf(pod), restartsOf(pod)]);
    }
    await nothingTwice();
  }, 240_000);

  it('an agent that starts while the engine stands still waits, says so once, and takes its pods up', async () => {
    const before = await pods();
    await node.end();
    const earlier = (await node.log()).length;
    const said = async (): Promise<string> => (await node.log()).slice(earlier);
    node.dockerd!.hang();
    try {
      await node.start();
      await until('it says so', async () => (await said()).includes('the container runtime does not answer'));
      await sleep(3_000);
      expect((await said()).split('the container runtime does not answer;')).toHaveLength(2);
    } finally {
      node.dockerd!.goOn();
    }
    await until('it runs', async () => (await said()).includes('stevedore runs'));
    for (const pod of before) {
      const now = await node.waitForPod(pod.metadata.name, isReady);
      expect([idOf(now), restartsOf(now)]).toEqual([idOf(pod), restartsOf(pod)]);
    }
    await nothingTwice();
  }, 180_000);
});

describe('without live-restore', () => {
  beforeAll(async () => {
    node = await startLabNode({ runtime: 'docker', only: 'agent' });
  });
  afterAll(async () => {
    await node?.stop();
  });

  let number = 0;
  it.each(some(0, 3))('an engine %s: pods are started again as their policy says', async (_, happen) => {
    // New ones each time: those that are ended again and again are waited with, as the back-off of crashes has it.
    const [always, onfailure, never] = await Promise.all(
      (['Always', 'OnFailure', 'Never'] as const).map((policy) => create(`${policy.toLowerCase()}-${number}`, policy)),
    );
    number++;
    await happen();
    const back = Date.now();
    for (const pod of [always!, onfailure!]) {
      const after = await node.waitForPod(
        pod.metadata.name,
        (seen) => isReady(seen) && restartsOf(seen) > restartsOf(pod) && idOf(seen) !== idOf(pod),
      );
      expect(after.metadata.uid).toBe(pod.metadata.uid);
      // One that ends may be started once more before the engine itself is gone.
      expect(restartsOf(after)).toBeLessThanOrEqual(restartsOf(pod) + 2);
    }
    console.log(`the engine is back → all pods ready: ${Date.now() - back} ms`);
    const ended = await node.waitForPod(never!.metadata.name, ({ status }) => status?.phase === 'Failed');
    expect(restartsOf(ended)).toBe(0);
    await node.waitForReady();
    await nothingTwice();
    for (const { metadata } of [always!, onfailure!, never!])
      await node.cluster.admin.delete(resources.pods, { namespace: 'default', name: metadata.name });
    await until('gone', async () => (await pods()).length === 0);
  });
});
