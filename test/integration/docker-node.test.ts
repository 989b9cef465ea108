// A whole node on Docker Engine: pods through the API server, a Service, logs and exec, a restart of the agent and one of the engine.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { demoImageName } from '../../cri/local-images.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { type LabNode, startLabNode } from '../lab/node.ts';

describe('a node on Docker Engine', () => {
  let node: LabNode;
  beforeAll(async () => {
    node = await startLabNode({ runtime: 'docker' });
  });
  afterAll(() => node?.stop());

  const pod = (name: string, over: Partial<Pod['spec']> = {}): Pod => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { app: name } },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: 'main',
          image: demoImageName,
          imagePullPolicy: 'Never',
          resources: { requests: { cpu: '50m', memory: '16Mi' }, limits: { memory: '64Mi' } },
          readinessProbe: { httpGet: { path: '/healthz', port: 8080 }, periodSeconds: 1 },
        },
      ],
      ...over,
    },
  });
  const isReady = (seen: Pod): boolean =>
    seen.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true;

  it('registers as docker and runs a pod that answers by its address', async () => {
    const shown = await node.cluster.admin.get(resources.nodes, { name: node.name });
    expect(shown.status?.nodeInfo?.containerRuntimeVersion).toMatch(/^docker:\/\/\d+\./);
    await node.cluster.admin.create(resources.pods, pod('web'));
    const ready = await node.waitForPod('web', isReady);
    const { stdout } = await node.host.exec('busybox', [
      'wget',
      '-qO-',
      `http://${ready.status?.podIP}:8080/cgi-bin/index.cgi`,
    ]);
    expect(stdout.trim()).toBe('web');
    expect(ready.status?.containerStatuses?.[0]?.containerID).toMatch(/^docker:\/\/[0-9a-f]{64}$/);
  });

  it('runs init containers, tells exit codes and takes the last words from the log', async () => {
    const shell = (name: string, script: string) => ({
      name,
      image: demoImageName,
      imagePullPolicy: 'Never' as const,
      command: ['/bin/sh', '-c', script],
    });
    await node.cluster.admin.create(
      resources.pods,
      pod('fails', {
        restartPolicy: 'Never',
        volumes: [{ name: 'shared', emptyDir: {} }],
        initContainers: [
          { ...shell('first', 'echo made >/shared/file'), volumeMounts: [{ name: 'shared', mountPath: '/shared' }] },
        ],
        containers: [
          {
            ...shell('main', 'cat /shared/file; echo last words; exit 7'),
            volumeMounts: [{ name: 'shared', mountPath: '/shared' }],
            terminationMessagePolicy: 'FallbackToLogsOnError',
          },
        ],
      }),
    );
    const seen = await node.waitForPod('fails', ({ status }) => status?.phase === 'Failed');
    expect(seen.status?.containerStatuses?.[0]?.state?.terminated).toMatchObject({
      exitCode: 7,
      reason: 'Error',
      message: expect.stringMatching(/made\nlast words/),
    });
  });

  it('adopts its pods after a crash of the agent', async () => {
    const before = await node.waitForPod('web', isReady);
    await node.end('SIGKILL');
    await node.start();
    await node.waitForReady();
    const after = await node.waitForPod('web', isReady);
    expect(after.status?.containerStatuses?.[0]).toMatchObject({
      containerID: before.status?.containerStatuses?.[0]?.containerID,
      restartCount: before.status?.containerStatuses?.[0]?.restartCount,
    });
  });

  it('runs its pods again after Docker was restarted and took them down', async () => {
    const before = await node.waitForPod('web', isReady);
    const started = before.status?.containerStatuses?.[0]?.containerID;
    await node.dockerd?.restart('SIGTERM');
    const after = await node.waitForPod(
      'web',
      (seen) => isReady(seen) && seen.status?.containerStatuses?.[0]?.containerID !== started,
    );
    expect(after.metadata.uid).toBe(before.metadata.uid);
    const { body } = (await node.dockerd?.api('GET', '/containers/json')) ?? { body: '[]' };
    // The sandbox and the container, once each.
    expect((JSON.parse(body) as unknown[]).length).toBe(2);
  });

  it('leaves nothing of a pod that is deleted', async () => {
    for (const name of ['web', 'fails'])
      await node.cluster.admin.delete(resources.pods, { namespace: 'default', name });
    for (let turn = 0; turn < 400; turn++) {
      const { items } = await node.cluster.admin.list(resources.pods, { namespace: 'default' });
      const { body } = (await node.dockerd?.api('GET', '/containers/json?all=1')) ?? { body: '[]' };
      if (items.length === 0 && body.trim() === '[]') return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`pods or containers are left after 20 s\n${await node.report()}`);
  });
});
