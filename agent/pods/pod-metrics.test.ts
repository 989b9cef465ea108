import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { createKubeletMetrics } from '../server/kubelet-metrics.ts';
import { createPodMetrics } from './pod-metrics.ts';

describe('metrics of pods', () => {
  it('count pods with a user namespace of their own, and those only', async () => {
    const registry = createRegistry();
    const counted = createPodMetrics({
      clock: createFakeClock(),
      metrics: createKubeletMetrics(registry),
      observer: { uids: () => [], last: () => ({ sandboxes: [], containers: [] }) },
      desired: () => [],
      pods: () => [],
      seenAtMs: () => undefined,
      pulledForMs: () => 0,
    });
    const pod = (hostUsers?: boolean): Pod => ({
      metadata: { name: 'p' },
      spec: { containers: [], ...(hostUsers === undefined ? {} : { hostUsers }) },
    });
    for (const each of [pod(), pod(true), pod(false), pod(false)]) counted.sandbox(each, 'begun');
    counted.sandbox(pod(), 'failed');
    counted.sandbox(pod(false), 'failed');
    const page = await registry.metrics();
    expect(page).toMatch(/^kubelet_started_user_namespaced_pods_total 2$/m);
    expect(page).toMatch(/^kubelet_started_user_namespaced_pods_errors_total 1$/m);
  });
});
