// The probes of all containers on this node. The pod's worker says what runs; results wake it at once.
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId } from '../../cri/types.ts';
import type { Clock } from '../../lib/clock.ts';
import { eventLoopBusyMs } from '../../lib/event-loop.ts';
import type { Log } from '../../lib/log.ts';
import { type EventRecorder, podTarget } from '../../kube/events.ts';
import type { Container, Pod, Probe } from '../../kube/types/pod.ts';
import { type ProbeOutcome, startProbe } from './attempt.ts';
import type { ProbeMetrics } from './probe-metrics.ts';
import { createProbeWorker, type ProbeKind, type ProbeWorker } from './probe-worker.ts';

export interface ProbedContainer {
  readonly container: Container;
  readonly id: ContainerId;
  /** Milliseconds since the epoch. */
  readonly startedAtMs: number;
  /** What the pod's status said of this very container before the agent was restarted: it holds until our first own result. */
  readonly adopted?: { readonly started: boolean; readonly ready: boolean } | undefined;
}

export interface ProbeState {
  /** The startup probe has succeeded, or there is none. */
  readonly started: boolean;
  /** Started, and the readiness probe has succeeded, or there is none. */
  readonly ready: boolean;
  /** The container is to be killed. */
  readonly failed?: { readonly kind: 'startup' | 'liveness'; readonly message: string } | undefined;
}

export interface ProberDeps {
  readonly runtime: Pick<Runtime, 'execSync'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
  readonly metrics?: ProbeMetrics;
  /** Called at once when a result of this pod's containers has changed. */
  onChange(podUid: string): void;
  /** Default Math.random. */
  readonly random?: () => number;
  /** Default lib/event-loop.ts. */
  readonly busyMs?: () => number;
  /** Default: the real thing. For tests. */
  readonly attempt?: typeof startProbe;
}

export interface Prober {
  /**
   * The containers of the pod that run now; those not named any more are no longer probed. Cheap to call again with the same. While the pod
   * is `terminating` only readiness goes on. `podIp` is the primary address (the node's under hostNetwork); nothing but exec is tried without.
   */
  sync(pod: Pod, podIp: string, containers: readonly ProbedContainer[], terminating: boolean): void;
  /** What the probes say of a container; of one that sync has not named, what its spec says before any result. */
  state(container: Container, id: ContainerId): ProbeState;
  /** Ends all probes of the pod and forgets their results. */
  remove(podUid: string): void;
  /** Ends everything. */
  close(): void;
}

interface Entry {
  readonly id: ContainerId;
  readonly podUid: string;
  readonly startedAtMs: number;
  readonly adopted: boolean;
  pod: Pod;
  container: Container;
  podIp: string;
  started: boolean;
  ready: boolean;
  failed: ProbeState['failed'];
  readonly workers: Map<ProbeKind, ProbeWorker>;
}

const specOf = (container: Container, kind: ProbeKind): Probe | undefined =>
  kind === 'startup'
    ? container.startupProbe
    : kind === 'liveness'
      ? container.livenessProbe
      : container.readinessProbe;

const names: Readonly<Record<ProbeKind, string>> = {
  startup: 'Startup',
  liveness: 'Liveness',
  readiness: 'Readiness',
};

const fieldPathOf = (pod: Pod, container: Container): string =>
  pod.spec.initContainers?.some((each) => each.name === container.name)
    ? `spec.initContainers{${container.name}}`
    : `spec.containers{${container.name}}`;

export function createProber(deps: ProberDeps): Prober {
  const { clock } = deps;
  const attempt = deps.attempt ?? startProbe;
  const random = deps.random ?? Math.random;
  const entries = new Map<ContainerId, Entry>();
  const byPod = new Map<string, Set<ContainerId>>();

  const record = (entry: Entry, kind: ProbeKind, outcome: ProbeOutcome): void => {
    const say = (reason: string, message: string): void =>
      deps.events.record(podTarget(entry.pod, fieldPathOf(entry.pod, entry.container)), 'Warning', reason, message);
    if (outcome.kind === 'failure') say('Unhealthy', `${names[kind]} probe failed: ${outcome.message}`);
    if (outcome.kind === 'warning') say('ProbeWarning', `${names[kind]} probe warning: ${outcome.message}`);
    if (outcome.kind === 'error')
      say('Unhealthy', `${names[kind]} probe errored and resulted in unknown state: ${outcome.message}`);
  };

  const settle = (entry: Entry, kind: ProbeKind, result: 'success' | 'failure', message: string): void => {
    const before = { started: entry.started, ready: entry.ready, failed: entry.failed };
    if (kind === 'readiness') entry.ready = result === 'success';
    else if (result === 'failure') entry.failed = { kind, message };
    else if (kind === 'startup') entry.started = true;
    if (kind === 'startup' && result === 'success') startWorkers(entry);
    if (before.started !== entry.started || before.ready !== entry.ready || before.failed !== entry.failed)
      deps.onChange(entry.podUid);
  };

  function firstAt(entry: Entry, kind: ProbeKind, probe: Probe): number {
    const due = entry.startedAtMs + (probe.initialDelaySeconds ?? 0) * 1000;
    const now = clock.now();
    if (due > now) return due;
    // After a restart of the agent all would be due at once. What is not ready waits for nothing.
    const settledBefore = entry.adopted && !(kind === 'readiness' && !entry.ready) && kind !== 'startup';
    return settledBefore ? now + random() * (probe.periodSeconds || 10) * 1000 : now;
  }

  function startWorker(entry: Entry, kind: ProbeKind): void {
    const probe = specOf(entry.container, kind);
    if (!probe || entry.workers.has(kind)) return;
    // Without an address there is nothing to connect to; the sync that brings one starts it.
    if (!probe.exec && entry.podIp === '') return;
    const worker = createProbeWorker(
      {
        clock,
        busyMs: deps.busyMs ?? eventLoopBusyMs,
        attempt: (settle) =>
          attempt(deps, { container: entry.container, id: entry.id, probe, podIp: entry.podIp }, settle),
        report: (outcome, quiet, tookMs) => {
          deps.metrics?.observe(entry.pod, entry.container, kind, outcome, tookMs);
          if (!quiet || outcome.kind === 'warning') record(entry, kind, outcome);
        },
        settle: (result, message) => settle(entry, kind, result, message),
      },
      { kind, probe, firstAtMs: firstAt(entry, kind, probe) },
    );
    entry.workers.set(kind, worker);
  }

  function startWorkers(entry: Entry): void {
    if (!entry.started) startWorker(entry, 'startup');
    else {
      startWorker(entry, 'readiness');
      startWorker(entry, 'liveness');
    }
  }

  const stopWorkers = (entry: Entry, kinds: readonly ProbeKind[]): void => {
    for (const kind of kinds) {
      entry.workers.get(kind)?.stop();
      // It stays in the map, so that it is not started again.
    }
  };

  const drop = (id: ContainerId, last: boolean): void => {
    const entry = entries.get(id);
    if (!entry) return;
    stopWorkers(entry, ['startup', 'liveness', 'readiness']);
    entries.delete(id);
    const ids = byPod.get(entry.podUid);
    ids?.delete(id);
    if (ids?.size === 0) byPod.delete(entry.podUid);
    // Metrics are the container's by name: they outlive its restarts.
    if (last) deps.metrics?.forget(entry.pod, entry.container);
  };

  const add = (pod: Pod, podIp: string, probed: ProbedContainer): Entry => {
    const podUid = pod.metadata.uid ?? '';
    const { container, id, startedAtMs, adopted } = probed;
    const started = adopted?.started ?? container.startupProbe === undefined;
    const ready = adopted?.ready ?? container.readinessProbe === undefined;
    const entry: Entry = {
      id,
      podUid,
      startedAtMs,
      adopted: adopted !== undefined,
      pod,
      container,
      podIp,
      started: started || container.startupProbe === undefined,
      ready: ready || container.readinessProbe === undefined,
      failed: undefined,
      workers: new Map(),
    };
    entries.set(id, entry);
    const ids = byPod.get(podUid) ?? new Set();
    ids.add(id);
    byPod.set(podUid, ids);
    return entry;
  };

  const hasProbes = (container: Container): boolean =>
    (container.startupProbe ?? container.livenessProbe ?? container.readinessProbe) !== undefined;

  return {
    sync(pod, podIp, containers, terminating) {
      const podUid = pod.metadata.uid ?? '';
      const wanted = containers.filter((each) => hasProbes(each.container));
      const keep = new Set(wanted.map((each) => each.id));
      for (const id of [...(byPod.get(podUid) ?? [])]) if (!keep.has(id)) drop(id, false);
      for (const probed of wanted) {
        const entry = entries.get(probed.id) ?? add(pod, podIp, probed);
        entry.pod = pod;
        entry.container = probed.container;
        if (podIp !== '') entry.podIp = podIp;
        if (terminating) stopWorkers(entry, ['startup', 'liveness']);
        if (terminating && entry.started) startWorker(entry, 'readiness');
        if (!terminating) startWorkers(entry);
      }
    },
    state(container, id) {
      const entry = entries.get(id);
      if (entry) return { started: entry.started, ready: entry.started && entry.ready, failed: entry.failed };
      const started = container.startupProbe === undefined;
      return { started, ready: started && container.readinessProbe === undefined };
    },
    remove(podUid) {
      for (const id of [...(byPod.get(podUid) ?? [])]) drop(id, true);
    },
    close() {
      for (const id of [...entries.keys()]) drop(id, true);
    },
  };
}
