// Decides what a pod needs next. Pure: the desired pod, the observed one, what the worker remembers and the time go in; operations to
// start or cut short, when to look again and what is waited for, in words, come out.
//
//   admitted ──▶ running ──▶ terminating ──▶ released ──▶ (deleted in the API) ──▶ removed ──▶ done
//      │            │  all containers ended, deadline, eviction, deletion      │
//      └─ rejected ─┴────────────────────────────────────▲                     └ a finished pod stays here until it is deleted
import type { ContainerId } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import type { DesiredPod } from './desired.ts';
import type { Kill, PodMemory, RestartBackoff, Termination } from './memory.ts';
import type { ObservedPod } from './observed.ts';
import { keyOfOperation, type Operation, type OperationKey } from './operations.ts';
import { planRun } from './plan-run.ts';
import { planTermination } from './plan-termination.ts';
import type { RestartBackoffOptions } from './restart.ts';

/** What the probes say of one container. */
export interface ProbeVerdict {
  /** Passed its startup probe, or has none. */
  readonly started: boolean;
  /** A startup or liveness probe reached its failureThreshold. */
  readonly failed: 'startup' | 'liveness' | undefined;
  readonly ready: boolean;
}

export interface PlanFacts {
  readonly nowMs: number;
  readonly restartBackoff: RestartBackoffOptions;
  probe(container: Container, id: ContainerId): ProbeVerdict;
  /** What of a container's spec must not change under it; another value means another container. */
  hashOf(container: Container): string;
}

export interface PlanInput {
  /** Undefined once the pod is gone from its source. */
  readonly desired: DesiredPod | undefined;
  /** The spec last seen. */
  readonly pod: Pod;
  readonly observed: ObservedPod;
  readonly memory: Readonly<PodMemory>;
  readonly facts: PlanFacts;
  /** What an in-place resize still needs. */
  readonly resize?: OutstandingResize | undefined;
}

export interface OutstandingResize {
  /** Cgroups or containers are not at what is allocated. */
  readonly update: boolean;
  /** Containers that get it by a restart, with the message for the Event Killing. */
  readonly restart: ReadonlyMap<string, string>;
}

export interface Plan {
  readonly start: readonly Operation[];
  readonly abort: readonly OperationKey[];
  /** Set once; from then on the pod is being brought down. */
  readonly termination: Termination | undefined;
  readonly backoffs: ReadonlyMap<string, RestartBackoff>;
  readonly kills: ReadonlyMap<string, Kill>;
  /** Containers that would start, were it not for a CrashLoopBackOff that ends at this time. */
  readonly crashLoops: ReadonlyMap<string, number>;
  /** Look again at this time even if nothing happens; milliseconds since the epoch. */
  readonly wakeAtMs: number | undefined;
  readonly waitingFor: readonly string[];
  /** All containers are being removed to begin anew. */
  readonly restartAll: boolean;
  /** All containers have ended and none will start again. */
  readonly terminal: boolean;
  /** Nothing of the pod is left: the worker can forget it. */
  readonly done: boolean;
}

/** Collects a plan; the two planners write into it. */
export interface Draft {
  start: Operation[];
  abort: OperationKey[];
  termination: Termination | undefined;
  backoffs: Map<string, RestartBackoff>;
  kills: Map<string, Kill>;
  crashLoops: Map<string, number>;
  wakeAtMs: number | undefined;
  waitingFor: string[];
  restartAll: boolean;
  terminal: boolean;
  done: boolean;
}

export const newDraft = (): Draft => ({
  start: [],
  abort: [],
  termination: undefined,
  backoffs: new Map(),
  kills: new Map(),
  crashLoops: new Map(),
  wakeAtMs: undefined,
  waitingFor: [],
  restartAll: false,
  terminal: false,
  done: false,
});

export function wakeAt(draft: Draft, atMs: number): void {
  if (draft.wakeAtMs === undefined || atMs < draft.wakeAtMs) draft.wakeAtMs = atMs;
}

/** Starts the operation unless it is under way, or failed a short while ago. Returns true where it is or will be under way. */
export function want(draft: Draft, input: PlanInput, operation: Operation): boolean {
  const key = keyOfOperation(operation);
  if (input.memory.running.has(key)) return true;
  const retry = input.memory.retries.get(key);
  if (retry && retry.retryAtMs > input.facts.nowMs) {
    wakeAt(draft, retry.retryAtMs);
    draft.waitingFor.push(
      `${retry.message}; tried again in ${Math.ceil((retry.retryAtMs - input.facts.nowMs) / 1000)} s`,
    );
    return false;
  }
  draft.start.push(operation);
  return true;
}

/** The least a container gets between the stop signal and the kill, as in the kubelet. */
export const minimumGraceSeconds = 2;

/** The grace of a pod that is being deleted, or of one whose containers we stop for our own reasons. In seconds, at least 1. */
export function graceOf(pod: Pod): number {
  const { deletionGracePeriodSeconds } = pod.metadata;
  return Math.max(1, deletionGracePeriodSeconds ?? pod.spec.terminationGracePeriodSeconds ?? 30);
}

/** Whether, and why, the pod is to be brought down. A termination that is under way is only ever made shorter. */
export function decideTermination(input: PlanInput): Termination | undefined {
  const { desired, pod, memory, facts } = input;
  const before = memory.termination;
  const begin = (cause: Termination['cause'], graceSeconds: number, rest: Partial<Termination> = {}): Termination => ({
    cause,
    sinceMs: facts.nowMs,
    graceSeconds,
    ...rest,
  });
  const gone = desired === undefined;
  const deleted = pod.metadata.deletionTimestamp !== undefined;
  if (before) {
    const cause =
      gone && before.cause !== 'removed'
        ? 'removed'
        : deleted && before.cause === 'completed'
          ? 'deleted'
          : before.cause;
    const elapsed = Math.ceil((facts.nowMs - before.sinceMs) / 1000);
    // Gone before we confirmed it: somebody forced the deletion, and nobody waits for the pod any more.
    const forced = gone && before.cause === 'deleted' && !memory.deletionConfirmed;
    const left = forced ? minimumGraceSeconds : graceOf(pod);
    const shortest = gone || deleted ? Math.min(before.graceSeconds, elapsed + left) : before.graceSeconds;
    return cause === before.cause && shortest === before.graceSeconds
      ? before
      : { ...before, cause, graceSeconds: shortest };
  }
  if (gone) return begin('removed', graceOf(pod));
  if (deleted) return begin('deleted', graceOf(pod));
  const phase = pod.status?.phase;
  if (phase === 'Succeeded' || phase === 'Failed') return begin('completed', graceOf(pod));
  if (memory.admission && !memory.admission.admitted) {
    const { reason, message } = memory.admission;
    return begin('rejected', graceOf(pod), { status: { reason, message } });
  }
  const { activeDeadlineSeconds } = pod.spec;
  if (activeDeadlineSeconds !== undefined && memory.startTimeMs !== undefined) {
    if (facts.nowMs >= memory.startTimeMs + activeDeadlineSeconds * 1000)
      return begin('deadline', graceOf(pod), {
        status: {
          reason: 'DeadlineExceeded',
          message: 'Pod was active on the node longer than the specified deadline',
        },
      });
  }
  return undefined;
}

export function plan(input: PlanInput): Plan {
  const draft = newDraft();
  const termination = decideTermination(input);
  if (termination) {
    draft.termination = termination;
    planTermination(draft, input, termination);
    return draft;
  }
  const { activeDeadlineSeconds } = input.pod.spec;
  if (activeDeadlineSeconds !== undefined && input.memory.startTimeMs !== undefined)
    wakeAt(draft, input.memory.startTimeMs + activeDeadlineSeconds * 1000);
  if (input.resize?.update) want(draft, input, { kind: 'resize-pod' });
  const finished = planRun(draft, input);
  if (!finished) return draft;
  const ended = newDraft();
  ended.termination = { cause: 'completed', sinceMs: input.facts.nowMs, graceSeconds: graceOf(input.pod) };
  planTermination(ended, input, ended.termination);
  return ended;
}
