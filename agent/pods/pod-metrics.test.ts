import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { createKubeletMetrics } from '../server/kubelet-metrics.ts';
import { createPodMetrics } from './pod-metrics.ts';
import type { PodLifecycle } from './pod-workers.ts';

describe('metrics of pods', () => {
  const countedOnNothing = () => {
    const registry = createRegistry();
    const counted = createPodMetrics({
      clock: createFakeClock(),
      metrics: createKubeletMetrics(registry),
      observer: { uids: () => [], last: () => ({ sandboxes: [], containers: [] }) },
      desired: () => [],
      pods: () => [],
      lifecycles: () => [],
      volumes: () => ({ desired: [], actual: [] }),
      seenAtMs: () => undefined,
      pulledForMs: () => 0,
    });
    return { registry, counted };
  };

  it('count pods with a user namespace of their own, and those only', async () => {
    const { registry, counted } = countedOnNothing();
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

  it('count image volumes of containers that have them, and those that the runtime could not mount', async () => {
    const { registry, counted } = countedOnNothing();
    const mount = (name: string, mountPath: string) => ({ name, mountPath });
    const pod: Pod = {
      metadata: { name: 'p' },
      spec: {
        volumes: [
          { name: 'image', image: { reference: 'data:1' } },
          { name: 'other', emptyDir: {} },
        ],
        initContainers: [{ name: 'first', volumeMounts: [mount('image', '/a'), mount('image', '/b')] }],
        containers: [{ name: 'main', volumeMounts: [mount('image', '/a'), mount('other', '/o')] }, { name: 'none' }],
      },
    };
    for (const name of ['first', 'main', 'none']) counted.started(pod, name);
    counted.startFailed(pod, 'main', 'CreateContainerError', 'ImageVolumeMountFailed: no such subPath');
    counted.startFailed(pod, 'main', 'CreateContainerError', 'no space left');
    const page = await registry.metrics();
    expect(page).toMatch(/^kubelet_image_volume_requested_total 3$/m);
    expect(page).toMatch(/^kubelet_image_volume_mounted_succeed_total 3$/m);
    expect(page).toMatch(/^kubelet_image_volume_mounted_errors_total 1$/m);
  });

  it('tell how far each pod is and of its volumes; what is no more is 0, or not there', async () => {
    const registry = createRegistry();
    const clock = createFakeClock();
    let lifecycles: PodLifecycle[] = [
      { lifecycle: 'sync', config: 'desired', isStatic: false },
      { lifecycle: 'sync', config: 'desired', isStatic: true },
      { lifecycle: 'terminating', config: 'runtime_only', isStatic: false },
    ];
    let volumes = { desired: ['kubernetes.io/secret', 'kubernetes.io/secret'], actual: ['kubernetes.io/csi:d'] };
    const counted = createPodMetrics({
      clock,
      metrics: createKubeletMetrics(registry),
      observer: { uids: () => [], last: () => ({ sandboxes: [], containers: [] }) },
      desired: () => [],
      pods: () => [],
      lifecycles: () => lifecycles,
      volumes: () => volumes,
      seenAtMs: () => undefined,
      pulledForMs: () => 0,
    });
    const page = async (): Promise<string> => {
      counted.changed();
      await clock.advance(1_000);
      return registry.metrics();
    };
    const before = await page();
    for (const line of [
      'kubelet_working_pods{lifecycle="sync",config="desired",static=""} 1',
      'kubelet_working_pods{lifecycle="sync",config="desired",static="true"} 1',
      'kubelet_working_pods{lifecycle="terminating",config="runtime_only",static="unknown"} 1',
      'kubelet_working_pods{lifecycle="terminated",config="orphan",static=""} 0',
      'volume_manager_total_volumes{plugin_name="kubernetes.io/secret",state="desired_state_of_world"} 2',
      'volume_manager_total_volumes{plugin_name="kubernetes.io/csi:d",state="actual_state_of_world"} 1',
    ])
      expect(before).toContain(`${line}\n`);
    lifecycles = [];
    volumes = { desired: [], actual: [] };
    const after = await page();
    expect(after).toContain('kubelet_working_pods{lifecycle="sync",config="desired",static=""} 0\n');
    expect(after).not.toMatch(/^volume_manager_total_volumes\{/m);
  });
});
