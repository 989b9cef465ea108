// Containers that the kernel kills for want of memory say so, whatever order the runtime hears of it in.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { demoImageName } from '../../cri/local-images.ts';
import { createKubeClient } from '../../kube/http-client.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { type LabNode, startLabNode } from '../lab/node.ts';

let node: LabNode;

beforeAll(async () => {
  node = await startLabNode({ only: 'agent' });
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
        volumeMounts: [{ name: 'v', mountPath: '/v' }],
      },
    ],
    volumes: [{ name: 'v', emptyDir: {} }],
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

  it('is in the metrics, with the rest of its life', async () => {
    const identity = await loadKubeconfig(node.cluster.adminKubeconfig);
    const server = {
      server: `https://${node.address}:10250`,
      certificateAuthority: undefined,
      insecureSkipTlsVerify: true,
    };
    const client = createKubeClient({ log: silentLog, clock: systemClock }, { ...identity, ...server });
    try {
      // Counts of what there is are taken at most once a second.
      await sleep(1_500);
      const page = await client.raw('GET', '/metrics', { accept: 'text/plain' });
      const value = (series: string): number =>
        Number(
          page
            .split('\n')
            .find((line) => line.startsWith(`${series} `))
            ?.slice(series.length + 1),
        );
      const ended = 'kubelet_terminated_containers_total{container_type="container",exit_code="137",reason=';
      expect(value(`${ended}"OOMKilled"}`)).toBe(10);
      expect(value(`${ended}"Error"}`)).toBe(1);
      expect(value('kubelet_pod_worker_start_duration_seconds_count')).toBe(11);
      expect(value('kubelet_working_pods{lifecycle="terminated",config="desired",static=""}')).toBe(11);
      expect(value('kubelet_working_pods{lifecycle="sync",config="desired",static=""}')).toBe(0);
      expect(value('kubelet_cgroup_manager_duration_seconds_count{operation_type="create"}')).toBeGreaterThan(11);
      expect(value('kubelet_cgroup_manager_duration_seconds_count{operation_type="destroy"}')).toBeGreaterThan(0);
      expect(value('kubelet_cgroup_version')).toBeGreaterThan(0);
      const volume = 'volume_plugin="kubernetes.io/empty-dir"';
      for (const operation of ['volume_mount', 'volume_unmount'])
        expect(
          value(
            `storage_operation_duration_seconds_count{${volume},operation_name="${operation}",status="success",migrated="false"}`,
          ),
        ).toBe(11);
      expect(
        value('volume_manager_total_volumes{plugin_name="kubernetes.io/empty-dir",state="actual_state_of_world"}'),
      ).toBeNaN();
    } finally {
      await client.close();
    }
  });
});
