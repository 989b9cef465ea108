import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createTracer, type EndedSpan } from '../../lib/tracing/tracer.ts';
import { createPodLab } from '../../test/lab/pod-lab.ts';

describe('a pod that is traced', () => {
  it('has a trace for each look at it, the operations in it, under the kubelet’s names', async () => {
    const spans: EndedSpan[] = [];
    const tracer = createTracer(
      { clock: createFakeClock(), ended: (span) => void spans.push(span) },
      { samplingRatePerMillion: 1_000_000 },
    );
    const lab = createPodLab({ tracer });
    lab.bind('a', { containers: [{ name: 'c', image: 'i' }] });
    await lab.clock.advance(2_000);
    expect(lab.pod('a')?.status?.phase).toBe('Running');
    const looks = spans.filter((span) => span.name === 'syncPod');
    const namespace = lab.pod('a')?.metadata.namespace ?? '';
    expect(looks[0]!.attributes).toEqual({
      'k8s.pod': `${namespace}/a`,
      'k8s.pod.uid': 'uid-a',
      'k8s.pod.name': 'a',
      'k8s.namespace.name': namespace,
      'k8s.pod.update_type': 'create',
    });
    expect(looks.every((span) => span.parentId === undefined)).toBe(true);
    const operations = spans.filter((span) => span.parentId !== undefined);
    expect(operations.length).toBeGreaterThan(1);
    for (const { name, parentId, attributes } of operations) {
      expect(
        looks.some((look) => look.spanId.equals(parentId!)),
        name,
      ).toBe(true);
      expect(attributes['k8s.pod.name']).toBe('a');
    }
    await lab.delete('a', 2);
    await lab.clock.advance(10_000);
    expect(spans.map((span) => span.name)).toEqual(expect.arrayContaining(['syncTerminatingPod', 'syncTerminatedPod']));
    await lab.stop();
  });
});
