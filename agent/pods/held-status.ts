// When a pod's status is worth a moment's wait, because what it says is over as soon as it is told.
import type { PodStatus } from '../../kube/types/pod.ts';
import type { PodMemory } from './memory.ts';
import { mayRun, type ObservedPod } from './observed.ts';

/** A start is shown with its result where that comes within this time. */
const startMs = 250;

/**
 * What we end to run it again (another image, a failed liveness probe) is shown when it runs again, as the kubelet does, which stops and starts in one
 * go: the pod is not unready in between for who looks at the API. Services do not wait for that, see serving-notice.ts.
 */
const replaceMs = 2_000;

/** A runtime that takes longer to note an end has trouble, and what it knows of the end is told as it is. */
const noteMs = 1_000;

export interface HeldStatusInput {
  readonly memory: PodMemory;
  readonly observed: ObservedPod;
  readonly before: PodStatus | undefined;
  readonly status: PodStatus;
  readonly nowMs: number;
}

/** True: the status is to be looked at again in a moment, and not told yet. */
export function holdsStatus({ memory, observed, before, status, nowMs }: HeldStatusInput): boolean {
  if (memory.termination || before === undefined || before.phase !== status.phase) return false;
  const running = [...memory.running.values()];
  if (running.length > 0 && isReplacing(memory, observed, nowMs)) return true;
  if (endIsUnnoted(observed, nowMs)) return true;
  const starts = running.flatMap(({ operation, startedAtMs }) =>
    operation.kind === 'start-container' && nowMs - startedAtMs < startMs ? [operation] : [],
  );
  // A crash is told at once; its successor, made meanwhile, starts a little later.
  return starts.length > 0 && !(starts.some(({ after }) => after) && showsNewEnd(before, status));
}

/** The next of a container runs, and the runtime may still have something to tell of the end of the one before. */
const endIsUnnoted = ({ containers }: ObservedPod, nowMs: number): boolean =>
  containers.some(
    ({ metadata: { name, attempt }, ending }) =>
      ending &&
      nowMs - ending.finishedAtMs < noteMs &&
      containers.some((next) => next.metadata.name === name && next.metadata.attempt > attempt && mayRun(next)),
  );

/** What we have ended a moment ago does not run again yet. */
function isReplacing(memory: PodMemory, observed: ObservedPod, nowMs: number): boolean {
  const killed = new Set<string>([...memory.containers.values()].flatMap(({ kill }) => (kill ? [kill.id] : [])));
  return observed.containers.some(
    ({ id, state, finishedAtMs }) => state === 'exited' && killed.has(id) && nowMs - finishedAtMs < replaceMs,
  );
}

/** A container that was shown running is not any more. */
function showsNewEnd(before: PodStatus, after: PodStatus): boolean {
  const lists = ['containerStatuses', 'initContainerStatuses'] as const;
  return lists.some((list) =>
    before[list]?.some(
      ({ name, state }) => state?.running && !after[list]?.find((each) => each.name === name)?.state?.running,
    ),
  );
}
