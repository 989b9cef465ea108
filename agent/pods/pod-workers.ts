// One worker for each pod: woken by its uid, it looks at the world, plans, shows the status and starts what the plan asks for.
import type { EventRecorder } from '../../kube/events.ts';
import { podTarget } from '../../kube/events.ts';
import type { Pod, PodStatus } from '../../kube/types/pod.ts';
import { CancelledError } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import { createKeyedQueue } from '../../lib/keyed-queue.ts';
import { describeError, type Log } from '../../lib/log.ts';
import type { Span, Tracer } from '../../lib/tracing/tracer.ts';
import type { Observer } from '../observe/observer.ts';
import { createDeferredResizes } from './deferred-resizes.ts';
import type { DesiredPod, DesiredPods } from './desired.ts';
import type { Executor } from './execute.ts';
import { holdsStatus } from './held-status.ts';
import { podAttributes } from './pod-spans.ts';
import { createLetGo } from './let-go.ts';
import { memoryOf, type PodMemory, type Termination } from './memory.ts';
import { createNeighbours } from './neighbours.ts';
import type { ObservedPod } from './observed.ts';
import { createOperationRunner } from './operation-runner.ts';
import { type OutstandingResize, type Plan, type PlanFacts, plan } from './plan.ts';
import type { PodState, PodStates } from './pod-state.ts';
import { formatPod } from './restart.ts';
import { computeStatus, type StatusInput } from './status.ts';
import type { StatusWriter } from './status-writer.ts';
import { contentChanged, createWorker, hasEnded, shownPod, type Worker } from './worker.ts';

export type Admission =
  | { readonly admitted: true }
  | { readonly admitted: false; readonly reason: string; readonly message: string };

export interface PodWorkersDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
  readonly pods: DesiredPods;
  readonly observer: Observer;
  readonly executor: Executor;
  readonly statusWriter: StatusWriter;
  readonly probes: {
    verdict: PlanFacts['probe'];
    /** Called after each look: probes of containers that are gone end, those of new ones begin. */
    sync(pod: Pod, observed: ObservedPod, phase: 'running' | 'terminating' | 'ended', status: PodStatus): void;
    forget(uid: string): void;
  };
  /** Decides once for each pod that has not run here before. */
  admit(pod: Pod, others: readonly Pod[]): Promise<Admission>;
  /** A pod that only the runtime knows of, from its labels, for its orderly end. */
  orphan(uid: string, observed: ObservedPod): Pod | undefined;
  hashOf: PlanFacts['hashOf'];
  /** In-place resize; absent: pods keep what they were created with. */
  readonly resize?: {
    /** The pod with what is allocated to it; `others` are the pods it shares the node with. */
    review(pod: Pod, others: readonly Pod[]): Pod;
    /** The pod with what is allocated to it, without looking at what it asks for. */
    allocated(pod: Pod): Pod;
    /** The pod's source has another spec of it; for a metric. */
    asked?(before: Pod, now: Pod): void;
    /** Whether the node has room for the pod as it is asked for. */
    fits(pod: Pod, others: readonly Pod[]): boolean;
    outstanding(pod: Pod, observed: ObservedPod): OutstandingResize;
    /** What a restart of the agent must not forget. */
    unsettled(pod: Pod): Pick<PodState, 'allocation' | 'podAllocation'>;
  };
  /** What outlives a restart of the agent. */
  readonly states: Pick<PodStates, 'get' | 'put' | 'remove'>;
  readonly standalone?: boolean;
  statusFacts(
    pod: Pod,
    observed: ObservedPod,
  ): Pick<StatusInput, 'hostIps' | 'qosClass' | 'extras' | 'runtimeName'> &
    Pick<Partial<StatusInput>, 'conditions' | 'podExtras'>;
  /** Drops what is held for the pod: watches, caches. */
  release(uid: string): void;
  /** Each look at a pod and how long it took, in milliseconds; for a metric. */
  reconciled?(operation: 'create' | 'sync' | 'kill', tookMs: number, uid: string): void;
  /** Where tracing is switched on. */
  readonly tracer?: Tracer | undefined;
  /** Each status as it is computed, for metrics and the node's server. */
  onStatus?(pod: Pod, status: PodStatus, before: PodStatus | undefined): void;
}

export interface PodWorkersOptions {
  readonly restartBackoff: PlanFacts['restartBackoff'];
}

/** What `stevedore why` tells of a pod. */
export interface PodAccount {
  readonly pod: Pod;
  readonly status: PodStatus | undefined;
  readonly waitingFor: readonly string[];
  readonly running: readonly { readonly what: string; readonly sinceMs: number }[];
  readonly timeline: PodMemory['timeline'];
  readonly nextLookMs: number | undefined;
  readonly terminating: Termination | undefined;
}

export interface PodWorkers {
  wake(uid: string): void;
  /** Wakes all, pods only the runtime knows of included. */
  wakeAll(): void;
  /** Brings a pod down for the node's own reasons; its phase becomes Failed with this reason. Resolves at once. */
  evict(
    uid: string,
    end: { reason: string; message: string; graceSeconds: number; disruption?: Termination['disruption'] },
  ): void;
  /** An object that the pod may have waited for has come or changed: what failed for want of it is tried at once. */
  nudge(uid: string): void;
  account(uid: string): PodAccount | undefined;
  /** Pods as they are shown, with the status last computed. */
  list(): readonly Pod[];
  get(uid: string): Pod | undefined;
  /** True while containers of the pod may run or its resources are held. */
  holdsResources(uid: string): boolean;
  /** The disk is short: what the runtime keeps of pods that have ended goes. Resolves when it is gone, or that takes too long. */
  letGo(signal: AbortSignal): Promise<void>;
  /** How far each pod is, and whether it is wanted; for a metric. */
  lifecycles(): readonly PodLifecycle[];
  stop(): Promise<void>;
}

export interface PodLifecycle {
  readonly lifecycle: 'sync' | 'terminating' | 'terminated';
  /** `orphan`: gone from its source; `runtime_only`: no source has ever told of it. */
  readonly config: 'desired' | 'orphan' | 'runtime_only';
  readonly isStatic: boolean;
}

export function createPodWorkers(deps: PodWorkersDeps, options: PodWorkersOptions): PodWorkers {
  const { clock, log, observer, executor, statusWriter } = deps;
  const workers = new Map<string, Worker>();
  const neighbours = createNeighbours({ workers, pods: deps.pods, observer });
  const operations = createOperationRunner({ clock, log, observer, executor, wake: (uid) => queue.wake(uid) });

  const workerFor = (uid: string, desired: DesiredPod | undefined, observed: ObservedPod): Worker | undefined => {
    const worker = workers.get(uid) ?? createWorker(deps, uid, desired, observed);
    if (worker) workers.set(uid, worker);
    return worker;
  };

  const admit = async (worker: Worker, observed: ObservedPod): Promise<void> => {
    const { pod, memory } = worker;
    if (memory.admission || pod.metadata.deletionTimestamp || observed.containers.length > 0 || hasEnded(worker)) {
      memory.admission ??= { admitted: true };
      return;
    }
    // A changed manifest makes another pod of the same name: the old one ends first.
    if (worker.isStatic && neighbours.namesake(worker)) return;
    memory.admission = await deps.admit(pod, neighbours.of(worker));
    if (!memory.admission.admitted)
      deps.events.record(podTarget(pod), 'Warning', memory.admission.reason, memory.admission.message);
  };

  const deferred = createDeferredResizes();
  const roomMayHaveCome = (): void => {
    for (const uid of deferred.uids()) queue.wake(uid);
  };

  const keep = (uid: string, worker: Worker): void => {
    const { memory, pod } = worker;
    const backoffs = [...memory.containers].flatMap(([name, { backoff }]) =>
      backoff && backoff.delayMs > 0 ? [[name, backoff] as const] : [],
    );
    // What ends a pod for the node's own reasons is known nowhere else until its last status is written.
    const end = memory.termination?.status && !hasEnded(worker) ? memory.termination : undefined;
    deps.states.put(uid, {
      ...deps.resize?.unsettled(worker.source),
      ...(backoffs.length > 0 ? { backoffs: Object.fromEntries(backoffs) } : {}),
      ...(end ? { termination: end } : {}),
      ...(worker.isStatic ? { status: memory.status ?? pod.status ?? {} } : {}),
    });
  };

  const remember = (worker: Worker, made: Plan): void => {
    const { memory, pod } = worker;
    if (made.termination && !memory.termination)
      memory.timeline.push({ what: `ending: ${made.termination.cause}`, atMs: clock.now() });
    memory.termination = made.termination;
    memory.restartAll = made.restartAll;
    for (const [name, backoff] of made.backoffs) memoryOf(memory, name).backoff = backoff;
    for (const [name, delayMs] of made.crashLoops) {
      if (worker.plan?.crashLoops.has(name)) continue;
      log.debug('a container is in CrashLoopBackOff', { pod: formatPod(pod), container: name, delayMs });
      deps.events.record(
        podTarget(pod, `spec.containers{${name}}`),
        'Warning',
        'BackOff',
        `Back-off restarting failed container ${name} in pod ${formatPod(pod)}`,
      );
    }
    for (const [name, kill] of made.kills) {
      const known = memoryOf(memory, name);
      const fresh = known.kill?.id !== kill.id;
      known.kill = kill;
      if (fresh) deps.events.record(podTarget(pod, `spec.containers{${name}}`), 'Normal', 'Killing', kill.message);
    }
    worker.plan = made;
  };

  const show = (uid: string, worker: Worker, observed: ObservedPod, made: Plan): void => {
    const { pod, memory } = worker;
    const status = computeStatus({
      pod,
      observed,
      memory,
      facts: facts(),
      crashLoops: made.crashLoops,
      terminating: made.termination !== undefined,
      terminal: made.terminal,
      ...deps.statusFacts(pod, observed),
    });
    const before = memory.status;
    memory.status = status;
    if (status.conditions?.some((each) => each.type === 'PodResizePending' && each.reason === 'Deferred')) {
      deferred.wait(uid, worker.source, clock.now());
      queue.wakeAfter(uid, resizeRetryMs);
    } else deferred.forget(uid);
    const resizes = (each: PodStatus | undefined): boolean =>
      each?.conditions?.some(({ type }) => type === 'PodResizeInProgress') ?? false;
    if (resizes(status) !== resizes(before)) roomMayHaveCome();
    deps.onStatus?.(pod, status, before);
    if (holdsStatus({ memory, observed, before, status, nowMs: clock.now() })) queue.wakeAfter(uid, 250);
    else statusWriter.submit(uid, status);
    const written = made.terminal && statusWriter.isWritten(uid, status);
    // The last steps of a deletion wait for this.
    if (written && !memory.terminalStatusWritten) queue.wake(uid);
    memory.terminalStatusWritten = written;
  };

  const facts = (): PlanFacts => ({
    nowMs: clock.now(),
    restartBackoff: options.restartBackoff,
    probe: deps.probes.verdict,
    hashOf: deps.hashOf,
  });

  const reconcile = async (uid: string, span?: Span): Promise<void> => {
    const begunMs = clock.monotonicMs();
    const first = !workers.has(uid);
    const observed = await observer.observe(uid);
    // Asked after the wait: a source that has told of its pods meanwhile knows this one.
    const desired = deps.pods.get(uid);
    const worker = workerFor(uid, desired, observed);
    if (!worker) return;
    worker.endings.saw(observed);
    if (desired) {
      if (worker.source !== desired.pod && worker.memory.volumesUp && contentChanged(worker.source, desired.pod))
        worker.memory.volumesUp = false;
      if (worker.source !== desired.pod) deps.resize?.asked?.(worker.source, desired.pod);
      worker.source = desired.pod;
      worker.pod = worker.isStatic ? { ...desired.pod, status: worker.pod.status ?? {} } : desired.pod;
    }
    await admit(worker, observed);
    const resize = reviewResize(worker, observed);
    // Containers that ran before this agent did keep what was shown of them, from the first status on.
    if (!worker.plan)
      deps.probes.sync(
        worker.pod,
        observed,
        worker.pod.metadata.deletionTimestamp ? 'terminating' : 'running',
        worker.pod.status ?? {},
      );
    const made = plan({ desired, pod: worker.pod, observed, memory: worker.memory, facts: facts(), resize });
    const gone = made.termination?.cause === 'removed' && worker.plan?.termination?.cause !== 'removed';
    if (gone || (made.terminal && !worker.plan?.terminal)) roomMayHaveCome();
    remember(worker, made);
    // Started before the status is computed: what is under way is part of what is shown.
    for (const key of made.abort) worker.memory.running.get(key)?.abort.abort(new CancelledError('no longer wanted'));
    for (const operation of made.start) operations.start(uid, worker, observed, operation);
    show(uid, worker, observed, made);
    keep(uid, worker);
    const phase = made.terminal ? 'ended' : made.termination ? 'terminating' : 'running';
    deps.probes.sync(worker.pod, observed, phase, worker.memory.status!);
    if (made.wakeAtMs !== undefined) queue.wakeAfter(uid, Math.max(0, made.wakeAtMs - clock.now()));
    const operation = made.termination ? 'kill' : first ? 'create' : 'sync';
    span?.rename(made.terminal ? 'syncTerminatedPod' : made.termination ? 'syncTerminatingPod' : 'syncPod');
    span?.set(podAttributes(worker.pod, operation));
    deps.reconciled?.(operation, clock.monotonicMs() - begunMs, uid);
    if (!made.done) return;
    forget(uid);
    // Its source has it again.
    if (deps.pods.get(uid)) queue.wake(uid);
  };

  const reviewResize = (worker: Worker, observed: ObservedPod): OutstandingResize | undefined => {
    const { resize } = deps;
    const { memory } = worker;
    if (!resize || !memory.admission?.admitted || memory.termination) return undefined;
    const uid = worker.pod.metadata.uid ?? '';
    worker.pod = resize.review(
      worker.pod,
      deferred.beside(uid, neighbours.of(worker), resize.fits, resize.allocated(worker.pod)),
    );
    // Until a container that is restarted for it runs again, the resize is not over.
    const restarting = [...memory.containers.values()].some((known) => known.kill?.forResize);
    return restarting ? undefined : resize.outstanding(worker.pod, observed);
  };

  const forget = (uid: string): void => {
    workers.delete(uid);
    complaints.delete(uid);
    deferred.forget(uid);
    deps.states.remove(uid);
    observer.forget(uid);
    statusWriter.forget(uid);
    deps.probes.forget(uid);
    deps.release(uid);
    queue.forget(uid);
    roomMayHaveCome();
    for (const [other, { isStatic, memory }] of workers) if (isStatic && !memory.admission) queue.wake(other);
  };

  const { tracer } = deps;
  // What was told of looks that failed, until one succeeds: while the runtime is away every pod fails again and again for the same reason.
  const complaints = new Map<string, string>();
  const look = (uid: string): Promise<void> =>
    tracer
      ? tracer.run('syncPod', { root: true, attributes: { 'k8s.pod.uid': uid } }, (span) => reconcile(uid, span))
      : reconcile(uid);
  const queue = createKeyedQueue<string>(
    {
      clock,
      reconcile: async (uid) => {
        await look(uid);
        complaints.delete(uid);
      },
      onError: (uid, error, retryInMs) => {
        const pod = workers.get(uid)?.pod;
        const message = describeError(error);
        const warn = complaints.get(uid) !== message;
        complaints.set(uid, message);
        const fields = { pod: pod ? formatPod(pod) : uid, error, retryInMs };
        log[warn ? 'warn' : 'debug']('looking after a pod failed; tried again', fields);
      },
    },
    { backoff: { initialMs: 100, maxMs: 10_000 } },
  );

  return {
    wake: (uid) => queue.wake(uid),
    wakeAll() {
      for (const uid of new Set([
        ...workers.keys(),
        ...observer.uids(),
        ...deps.pods.list().map(({ pod }) => pod.metadata.uid ?? ''),
      ]))
        queue.wake(uid);
    },
    evict(uid, { reason, message, graceSeconds, disruption }) {
      const worker = workers.get(uid);
      if (!worker || worker.memory.termination) return;
      worker.memory.termination = {
        cause: 'evicted',
        sinceMs: clock.now(),
        graceSeconds,
        status: { reason, message },
        ...(disruption ? { disruption } : {}),
      };
      queue.wake(uid);
    },
    nudge(uid) {
      const worker = workers.get(uid);
      if (!worker) return;
      const { memory } = worker;
      const waits = memory.volumeTrouble !== undefined;
      if (memory.volumeTrouble) memory.volumeTrouble = { ...memory.volumeTrouble, retryAtMs: 0 };
      const stuck = [...memory.containers.values()].filter(
        (known) => known.trouble?.reason === 'CreateContainerConfigError',
      );
      for (const known of stuck) known.trouble = { ...known.trouble!, retryAtMs: 0 };
      if (waits || stuck.length > 0) queue.wake(uid);
    },
    account(uid) {
      const worker = workers.get(uid);
      if (!worker) return undefined;
      const { memory } = worker;
      return {
        pod: worker.pod,
        status: memory.status,
        waitingFor: worker.plan?.waitingFor ?? [],
        running: [...memory.running].map(([what, { startedAtMs }]) => ({ what, sinceMs: startedAtMs })),
        timeline: memory.timeline,
        nextLookMs: worker.plan?.wakeAtMs,
        terminating: memory.termination,
      };
    },
    list: () => [...workers.values()].map(shownPod),
    get(uid) {
      const worker = workers.get(uid);
      return worker && shownPod(worker);
    },
    holdsResources: (uid) => workers.has(uid) && !workers.get(uid)!.memory.released,
    letGo: createLetGo({ clock, workers, observer, wake: (uid) => queue.wake(uid) }),
    lifecycles: () =>
      [...workers].map(([uid, { plan: made, found, isStatic }]) => ({
        lifecycle: made?.terminal ? 'terminated' : made?.termination ? 'terminating' : 'sync',
        config: deps.pods.get(uid) ? 'desired' : found ? 'runtime_only' : 'orphan',
        isStatic,
      })),
    async stop() {
      await queue.stop();
      await operations.stop([...workers.values()].map(({ memory }) => memory));
    },
  };
}

/** The kubelet tries a resize that was deferred again this often though nothing was heard. */
const resizeRetryMs = 180_000;
