// prober_probe_total and prober_probe_duration_seconds, as the kubelet's /metrics/probes shows them. A node makes hundreds of probes a second, so
// each container's numbers are kept where its prober finds them, and become lines when the page is asked for.
import { type MetricsRegistry, type Sample, sampled } from '../../lib/metrics.ts';
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
type Result = (typeof results)[number];
const buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** What one probe of one container came to, by name: containers that follow each other go on counting. */
interface Tally {
  readonly labels: Readonly<Record<string, string>>;
  readonly podUid: string;
  readonly counts: Record<Result, number>;
  /** How many took at most so long, each counted once, beside the upper bounds of `buckets` and what is above them. */
  readonly took: number[];
  seconds: number;
}

const resultOf = (outcome: ProbeOutcome): Result =>
  outcome.kind === 'failure' ? 'failed' : outcome.kind === 'error' ? 'unknown' : 'successful';

function durationSamples({ labels, took, seconds }: Tally): Sample[] {
  const name = 'prober_probe_duration_seconds';
  let count = 0;
  const lines = [...buckets, '+Inf'].map((le, index): Sample => {
    count += took[index] ?? 0;
    return { name: `${name}_bucket`, labels: { le, ...labels }, value: count };
  });
  // Only successful probes are timed.
  if (count === 0) return [];
  return [...lines, { name: `${name}_sum`, labels, value: seconds }, { name: `${name}_count`, labels, value: count }];
}

export function createProbeMetrics(registry: MetricsRegistry): ProbeMetrics {
  /** By pod (uid), then container and kind. */
  const pods = new Map<string, Map<string, Tally>>();
  const all = (): Tally[] => [...pods.values()].flatMap((tallies) => [...tallies.values()]);

  sampled(
    registry,
    {
      name: 'prober_probe_total',
      help: 'Cumulative number of a liveness, readiness or startup probe for a container by result.',
      type: 'counter',
    },
    () =>
      all().flatMap(({ labels, podUid, counts }) =>
        results
          .filter((result) => counts[result] > 0)
          .map((result) => ({ labels: { ...labels, result, pod_uid: podUid }, value: counts[result] })),
      ),
  );
  sampled(
    registry,
    {
      name: 'prober_probe_duration_seconds',
      help: 'Duration in seconds for a probe response.',
      type: 'histogram',
    },
    () => all().flatMap(durationSamples),
  );

  const tallyOf = (pod: Pod, container: Container, kind: ProbeKind): Tally => {
    const podUid = pod.metadata.uid ?? '';
    let tallies = pods.get(podUid);
    if (!tallies) {
      tallies = new Map();
      pods.set(podUid, tallies);
    }
    const key = `${kind}/${container.name}`;
    const known = tallies.get(key);
    if (known) return known;
    const tally: Tally = {
      labels: {
        probe_type: kinds[kind],
        container: container.name,
        pod: pod.metadata.name,
        namespace: pod.metadata.namespace ?? 'default',
      },
      podUid,
      counts: { successful: 0, failed: 0, unknown: 0 },
      took: Array.from({ length: buckets.length + 1 }, () => 0),
      seconds: 0,
    };
    tallies.set(key, tally);
    return tally;
  };

  return {
    observe(pod, container, kind, outcome, tookMs) {
      if (outcome.kind === 'gone') return;
      const tally = tallyOf(pod, container, kind);
      const result = resultOf(outcome);
      tally.counts[result]++;
      if (result !== 'successful') return;
      const seconds = tookMs / 1000;
      const bound = buckets.findIndex((most) => seconds <= most);
      const at = bound < 0 ? buckets.length : bound;
      tally.took[at] = (tally.took[at] ?? 0) + 1;
      tally.seconds += seconds;
    },
    forget(pod, container) {
      const podUid = pod.metadata.uid ?? '';
      const tallies = pods.get(podUid);
      for (const kind of ['startup', 'liveness', 'readiness'] as const) tallies?.delete(`${kind}/${container.name}`);
      if (tallies?.size === 0) pods.delete(podUid);
    },
  };
}
