// What is held for one pod as long as it is looked after.
import type { Pod, PodStatus } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import type { DesiredPod, DesiredPods } from './desired.ts';
import { createEndings, type Endings } from './endings.ts';
import { createMemory, memoryOf, type PodMemory } from './memory.ts';
import type { ObservedPod } from './observed.ts';
import type { Plan } from './plan.ts';
import type { PodStates } from './pod-state.ts';

export interface Worker {
  /** As its source has it. */
  source: Pod;
  /** With what is allocated to it, and with the status that was kept where its source keeps none. */
  pod: Pod;
  isStatic: boolean;
  /** Known from the runtime alone. */
  readonly found: boolean;
  readonly memory: PodMemory;
  readonly endings: Endings;
  plan: Plan | undefined;
}

export interface WorkerDeps {
  readonly clock: Clock;
  readonly pods: Pick<DesiredPods, 'synced'>;
  /** A pod that only the runtime knows of, from its labels, for its orderly end. */
  orphan(uid: string, observed: ObservedPod): Pod | undefined;
  /** What outlives a restart of the agent. */
  readonly states: Pick<PodStates, 'get'>;
  /** No API server: when a static pod began is nowhere to be seen, and it is said to begin with this agent, as the kubelet has it. */
  readonly standalone?: boolean;
}

/** Undefined where nobody knows the pod, or its source has not told yet. */
export function createWorker(
  deps: WorkerDeps,
  uid: string,
  desired: DesiredPod | undefined,
  observed: ObservedPod,
): Worker | undefined {
  const { clock } = deps;
  const known = desired?.pod ?? (deps.pods.synced ? deps.orphan(uid, observed) : undefined);
  if (!known) return undefined;
  const memory = createMemory();
  const kept = deps.states.get(uid);
  memory.termination = kept?.termination;
  for (const [name, backoff] of Object.entries(kept?.backoffs ?? {})) memoryOf(memory, name).backoff = backoff;
  const isStatic = desired !== undefined && desired.source !== 'api';
  const pod = isStatic && kept?.status ? { ...known, status: keptStatus(kept.status, deps.standalone) } : known;
  const shownStart = pod.status?.startTime ? Date.parse(pod.status.startTime) : undefined;
  memory.startTimeMs = shownStart ?? clock.now();
  memory.timeline.push({ what: 'seen', atMs: clock.now() });
  return {
    source: known,
    pod,
    isStatic,
    found: desired === undefined,
    memory,
    endings: createEndings({ clock }),
    plan: undefined,
  };
}

function keptStatus(status: PodStatus, standalone = false): PodStatus {
  if (!standalone || isOver(status)) return status;
  const { startTime: _, ...rest } = status;
  return rest;
}

const isOver = (status: PodStatus | undefined): boolean => status?.phase === 'Succeeded' || status?.phase === 'Failed';

/** The API, or what was kept, shows that the pod has ended for good: it is not looked at as one to be started. */
export const hasEnded = ({ pod }: Worker): boolean => isOver(pod.status);

/** The pod with the status last computed. */
export const shownPod = (worker: Worker): Pod => ({
  ...worker.pod,
  status: worker.memory.status ?? worker.pod.status ?? {},
});

/** Whether something that volumes show has changed: labels, annotations, the spec. */
export function contentChanged(before: Pod, after: Pod): boolean {
  const view = ({ metadata, spec }: Pod): string =>
    JSON.stringify([metadata.labels, metadata.annotations, metadata.generation ?? spec]);
  return view(before) !== view(after);
}
