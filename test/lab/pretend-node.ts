// A node without a runtime, for tests of the control plane: its pods run as soon as they are bound, and go as soon as they may.
import type { KubeClient } from '../../kube/client.ts';
import { createReflector } from '../../kube/reflector.ts';
import { resources } from '../../kube/resources.ts';
import { isConflict, isNotFound } from '../../kube/errors.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';

export interface PretendNode {
  stop(): Promise<void>;
}

export interface PretendNodeOptions {
  readonly name: string;
  readonly cpu?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

export async function startPretendNode(client: KubeClient, options: PretendNodeOptions): Promise<PretendNode> {
  const { name, cpu = '4' } = options;
  const amounts = { cpu, memory: '4Gi', pods: '110' };
  const now = (): string => new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  await client.create(resources.nodes, {
    metadata: { name, labels: { 'kubernetes.io/hostname': name, ...options.labels } },
    spec: {},
    status: {
      capacity: amounts,
      allocatable: amounts,
      conditions: [{ type: 'Ready', status: 'True', reason: 'KubeletReady', lastTransitionTime: now() }],
      addresses: [{ type: 'InternalIP', address: '127.0.0.1' }],
      daemonEndpoints: { kubeletEndpoint: { Port: 1 } },
    },
  });
  await client.patch(
    resources.nodes,
    { name },
    { status: { conditions: [{ type: 'Ready', status: 'True', lastTransitionTime: now() }] } },
    { type: 'strategic', subresource: 'status' },
  );
  let last = 1;
  const follow = async (pod: Pod): Promise<void> => {
    const { uid } = pod.metadata;
    if (pod.metadata.deletionTimestamp)
      return client.delete(resources.pods, pod.metadata, { gracePeriodSeconds: 0, preconditions: { uid: uid! } });
    if (pod.status?.phase !== 'Pending') return;
    const ip = `10.244.200.${++last}`;
    const startedAt = now();
    const status = {
      phase: 'Running',
      podIP: ip,
      podIPs: [{ ip }],
      startTime: startedAt,
      conditions: [{ type: 'Ready', status: 'True', lastTransitionTime: startedAt }],
      containerStatuses: pod.spec.containers.map(({ name: container, image = '' }) => ({
        name: container,
        image,
        imageID: '',
        ready: true,
        started: true,
        restartCount: 0,
        state: { running: { startedAt } },
      })),
    };
    await client.patch(
      resources.pods,
      pod.metadata,
      { metadata: { uid }, status },
      { type: 'strategic', subresource: 'status' },
    );
  };
  const stopping = new AbortController();
  const failures: unknown[] = [];
  const reflector = createReflector(
    { client, clock: systemClock, log: silentLog },
    {
      resource: resources.pods,
      selection: { fieldSelector: `spec.nodeName=${name}` },
      onChange({ after }) {
        if (after)
          follow(after).catch((error: unknown) => {
            if (!isNotFound(error) && !isConflict(error)) failures.push(error);
          });
      },
    },
  );
  const done = reflector.run(stopping.signal).catch(() => undefined);
  return {
    async stop() {
      stopping.abort();
      await done;
      if (failures.length > 0) throw failures[0];
    },
  };
}
