// Containers that the kernel kills for want of memory say so, whatever order the runtime hears of it in.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { demoImageName } from '../../cri/local-images.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { type LabNode, startLabNode } from '../lab/node.ts';

let node: LabNode;

beforeAll(async () => {
  node = await startLabNode({ runtime: 'containerd', only: 'agent' });
});
afterAll(async () => {
  await node?.stop();
});

const podOf = (name: string, command: readonly string[]): Pod => ({
  metadata: { name, namespace: 'default' },
  spec: {
    restartPolicy: 'Never',
    containers: [
      {
        name: 'c',
        image: demoImageName,
        imagePullPolicy: 'IfNotPresent',
        command: [...command],
        resources: { limits: { memory: '24Mi' } },
      },
    ],
  },
});

async function ended(name: string): Promise<string> {
  for (const deadline = Date.now() + 90_000; Date.now() < deadline; await sleep(100)) {
    const { status } = await node.cluster.admin.get(resources.pods, { namespace: 'default', name });
    const [shown] = status?.containerStatuses ?? [];
    const over = shown?.state?.terminated;
    if (status?.phase === 'Failed' && over) return `${over.reason} ${over.exitCode}`;
  }
  throw new Error(`${name} has not failed within 90 s\n${await node.report()}`);
}

describe('a container over its memory limit', () => {
  it('is OOMKilled, ten times of ten, beside one that only says 137', async () => {
    const names = Array.from({ length: 10 }, (_, at) => `hungry-${at}`);
    const hungry = names.map((name) => podOf(name, ['dd', 'if=/dev/zero', 'of=/dev/null', 'bs=64M', 'count=1']));
    const pods = [...hungry, podOf('content', ['sh', '-c', 'exit 137'])];
    await Promise.all(pods.map((pod) => node.cluster.admin.create(resources.pods, pod)));
    const ends = await Promise.all(pods.map(({ metadata }) => ended(metadata.name)));
    expect(ends).toEqual([...names.map(() => 'OOMKilled 137'), 'Error 137']);
  }, 120_000);
});
