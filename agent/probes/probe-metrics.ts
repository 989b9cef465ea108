// prober_probe_total and prober_probe_duration_seconds, as the kubelet's /metrics/probes shows them.
import { counter, histogram, type MetricsRegistry } from '../../lib/metrics.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import type { ProbeOutcome } from './attempt.ts';
import type { ProbeKind } from './probe-worker.ts';

export interface ProbeMetrics {
  observe(pod: Pod, container: Container, kind: ProbeKind, outcome: ProbeOutcome, tookMs: number): void;
  /** The container is probed no more: its series end. */
  forget(pod: Pod, container: Container): void;
}

const kinds: Readonly<Record<ProbeKind, string>> = { startup: 'Startup', liveness: 'Liveness', readiness: 'Readiness' };
const results = ['successful', 'failed', 'unknown'] as const;

export function createProbeMetrics(registry: MetricsRegistry): ProbeMetrics {
  const total = counter(registry, {
    name: 'prober_probe_total',
    help: 'Cumulative number of a liveness, readiness or startup probe for a container by result.',
    labels: ['probe_type', 'result', 'container', 'pod', 'namespace', 'pod_uid'],
  });
  const duration = histogram(registry, {
    name: 'prober_probe_duration_seconds',
    help: 'Duration in seconds for a probe response.',
    labels: ['probe_type', 'container', 'pod', 'namespace'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  });
  const named = (pod: Pod, container: Container, kind: ProbeKind) => ({
    probe_type: kinds[kind],
    container: container.name,
    pod: pod.metadata.name,
    namespace: pod.metadata.namespace ?? 'default',
  });
  return {
    observe(pod, container, kind, outcome, tookMs) {
      if (outcome.kind === 'gone') return;
      const labels = named(pod, container, kind);
      const result = outcome.kind === 'failure' ? 'failed' : outcome.kind === 'error' ? 'unknown' : 'successful';
      total.inc({ ...labels, result, pod_uid: pod.metadata.uid ?? '' });
      if (result === 'successful') duration.observe(labels, tookMs / 1000);
    },
    forget(pod, container) {
      for (const kind of ['startup', 'liveness', 'readiness'] as const) {
        const labels = named(pod, container, kind);
        for (const result of results) total.remove({ ...labels, result, pod_uid: pod.metadata.uid ?? '' });
        duration.remove(labels);
      }
    },
  };
}
