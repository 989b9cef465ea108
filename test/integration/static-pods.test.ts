import { mkdtemp, readdir, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { demoImageName } from '../../cri/local-images.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { type LabNode, startLabNode } from '../lab/node.ts';

let node: LabNode;
let folder = '';
const file = (): string => join(folder, 'web.yaml');
const manifest = (argument: string): string => `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  dnsPolicy: Default
  containers: [{name: c, image: "${demoImageName}", imagePullPolicy: IfNotPresent, command: [sleep, "${argument}"]}]
`;
const ready = (pod: Pod): boolean => pod.status?.containerStatuses?.[0]?.ready === true;
const idOf = (pod: Pod): string | undefined => pod.status?.containerStatuses?.[0]?.containerID;
const hashOf = (pod: Pod): string | undefined => pod.metadata.annotations?.['kubernetes.io/config.hash'];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-m-'));
  node = await startLabNode({ only: 'agent', kubelet: { staticPodPath: folder, fileCheckFrequency: '2s' } });
}, 60_000);
afterAll(async () => {
  await node?.stop();
  await rm(folder, { recursive: true, force: true });
}, 60_000);

describe('a static pod on a real runtime', () => {
  it('runs, is mirrored, outlives its mirror and the agent, changes and goes with its manifest', async () => {
    const name = `web-${node.name}`;
    const { admin } = node.cluster;
    await writeFile(file(), manifest('1000'));
    const first = await node.waitForPod(name, ready);
    expect(first.metadata.ownerReferences).toMatchObject([{ kind: 'Node', name: node.name }]);
    const links = join(dirname(node.rootDir), 'containers');
    const [link] = await readdir(links);
    expect(await readlink(join(links, link!))).toMatch(/\/pods\/default_web-.*\/c\/0\.log$/);

    await admin.delete(resources.pods, { namespace: 'default', name });
    const again = await node.waitForPod(name, (pod) => pod.metadata.uid !== first.metadata.uid && ready(pod));
    expect(idOf(again)).toBe(idOf(first));

    await node.end('SIGKILL');
    await node.start();
    await node.waitForReady();
    await sleep(1_000);
    const adopted = await node.waitForPod(name, ready);
    expect([idOf(adopted), adopted.status?.containerStatuses?.[0]?.restartCount]).toEqual([idOf(first), 0]);

    await writeFile(file(), manifest('2000'));
    const changed = await node.waitForPod(name, (pod) => hashOf(pod) !== hashOf(first) && ready(pod));
    expect(idOf(changed)).not.toBe(idOf(first));

    await rm(file());
    const deadline = Date.now() + 20_000;
    const shown = () => admin.get(resources.pods, { namespace: 'default', name }).catch(() => undefined);
    while ((await shown()) && Date.now() < deadline) await sleep(50);
    expect(await shown()).toBeUndefined();
  }, 90_000);
});
