import { describe, expect, it } from 'vitest';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { createProbeMetrics } from './probe-metrics.ts';

const pod: Pod = { metadata: { name: 'p', namespace: 'n', uid: 'u' }, spec: { containers: [] } };
const container: Container = { name: 'c' };

describe('the metrics of probes', () => {
  it('are counted by result, and successful ones timed, as Prometheus reads them', async () => {
    const registry = createRegistry();
    const metrics = createProbeMetrics(registry);
    metrics.observe(pod, container, 'readiness', { kind: 'success' }, 4);
    metrics.observe(pod, container, 'readiness', { kind: 'success' }, 30);
    metrics.observe(pod, container, 'readiness', { kind: 'warning', message: 'redirect' }, 20_000);
    metrics.observe(pod, container, 'readiness', { kind: 'failure', message: 'no' }, 1);
    metrics.observe(pod, container, 'liveness', { kind: 'error', message: 'broken' }, 1);
    metrics.observe(pod, container, 'liveness', { kind: 'gone' }, 1);
    const text = await registry.metrics();
    const ready = 'probe_type="Readiness",container="c",pod="p",namespace="n"';
    const lines = text.split('\n');
    expect(lines).toContain('# TYPE prober_probe_total counter');
    expect(lines.filter((line) => line.startsWith('prober_probe_total'))).toEqual([
      `prober_probe_total{${ready},result="successful",pod_uid="u"} 3`,
      `prober_probe_total{${ready},result="failed",pod_uid="u"} 1`,
      'prober_probe_total{probe_type="Liveness",container="c",pod="p",namespace="n",result="unknown",pod_uid="u"} 1',
    ]);
    expect(lines).toContain('# TYPE prober_probe_duration_seconds histogram');
    const durations = lines.filter((line) => line.startsWith('prober_probe_duration_seconds'));
    expect(durations).toEqual([
      ...[
        ['0.005', 1],
        ['0.01', 1],
        ['0.025', 1],
        ['0.05', 2],
        ['0.1', 2],
        ['0.25', 2],
        ['0.5', 2],
        ['1', 2],
        ['2.5', 2],
        ['5', 2],
        ['10', 2],
        ['+Inf', 3],
      ].map(([le, count]) => `prober_probe_duration_seconds_bucket{le="${le}",${ready}} ${count}`),
      `prober_probe_duration_seconds_sum{${ready}} 20.034`,
      `prober_probe_duration_seconds_count{${ready}} 3`,
    ]);
  });

  it('end with the container', async () => {
    const registry = createRegistry();
    const metrics = createProbeMetrics(registry);
    metrics.observe(pod, container, 'readiness', { kind: 'success' }, 4);
    metrics.observe(pod, { name: 'other' }, 'startup', { kind: 'success' }, 4);
    metrics.forget(pod, container);
    expect(await registry.metrics()).not.toContain('container="c"');
    metrics.forget(pod, { name: 'other' });
    expect(await registry.metrics()).not.toMatch(/^prober/m);
  });
});
