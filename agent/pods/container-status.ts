// What is shown of one container: from the runtime's newest records, what was shown before, and what the worker remembers.
import type {
  Container,
  ContainerState,
  ContainerStateTerminated,
  ContainerStatus,
  Pod,
} from '../../kube/types/pod.ts';
import { messageBytesPerContainer } from '../containers/termination-message.ts';
import type { PodMemory } from './memory.ts';
import type { ObservedContainer, ObservedPod } from './observed.ts';
import { isSidecar, newestOf } from './observed.ts';
import type { PlanFacts } from './plan.ts';
import { formatBackoff, formatPod, restartsAll, shouldRestart } from './restart.ts';
import { isOlderThanShown, shownOf } from './shown.ts';

export type ContainerKind = 'init' | 'regular' | 'ephemeral';

export interface ContainerStatusInput {
  readonly pod: Pod;
  readonly observed: ObservedPod;
  readonly memory: Readonly<PodMemory>;
  readonly facts: PlanFacts;
  /** Names the runtime in container ids: `containerd://…`. */
  readonly runtimeName: string;
  /** Containers in CrashLoopBackOff, with the delay in force, in milliseconds. */
  readonly crashLoops: ReadonlyMap<string, number>;
  readonly terminating: boolean;
  /** All containers have ended and none will start again. */
  readonly terminal: boolean;
  /** What of resources, mounts and the like is shown beside the state; by the room that knows. */
  extras(container: Container, observed: ObservedContainer | undefined): Partial<ContainerStatus>;
}

const time = (ms: number): string => `${new Date(Math.floor(ms / 1000) * 1000).toISOString().slice(0, 19)}Z`;

const locate = 'The container could not be located when the pod was terminated';

/** At most so many bytes; a character cut in two goes. */
function cut(text: string, bytes: number): string {
  const whole = Buffer.from(text);
  return whole.length <= bytes
    ? text
    : whole
        .subarray(0, bytes)
        .toString('utf8')
        .replace(/\ufffd+$/u, '');
}

const restartingAll = 'RestartingAllContainers';

/** It was removed so that all containers of the pod begin anew, and has not begun yet. */
export const beginsAnew = (status: ContainerStatus | undefined): boolean =>
  status?.state?.waiting?.reason === restartingAll;

function terminatedState(container: ObservedContainer, containerID: string, pod: Pod): ContainerStateTerminated {
  const { containers, initContainers = [], ephemeralContainers = [] } = pod.spec;
  const limit = messageBytesPerContainer(containers.length + initContainers.length + ephemeralContainers.length);
  const message = cut(container.terminationMessage ?? container.message, limit);
  return {
    exitCode: container.exitCode,
    reason: container.reason || (container.exitCode === 0 ? 'Completed' : 'Error'),
    ...(message ? { message } : {}),
    startedAt: container.startedAtMs > 0 ? time(container.startedAtMs) : null,
    finishedAt: container.finishedAtMs > 0 ? time(container.finishedAtMs) : null,
    containerID,
  };
}

/** Why a container that was never started waits, as long as nothing is wrong. */
const waitingReason = (pod: Pod, kind: ContainerKind): string =>
  kind !== 'ephemeral' && (pod.spec.initContainers?.length ?? 0) > 0 ? 'PodInitializing' : 'ContainerCreating';

function stateOf(container: ObservedContainer, containerID: string, pod: Pod, kind: ContainerKind): ContainerState {
  switch (container.state) {
    case 'running':
      return { running: { startedAt: time(container.startedAtMs) } };
    case 'exited':
      return { terminated: terminatedState(container, containerID, pod) };
    case 'created':
    case 'unknown':
      return { waiting: { reason: waitingReason(pod, kind) } };
    default:
      return { waiting: {} };
  }
}

/** A container the runtime has no record of. */
function absent(
  input: ContainerStatusInput,
  container: Container,
  kind: ContainerKind,
  before: ContainerStatus | undefined,
): ContainerStatus {
  const { pod, memory } = input;
  const base: ContainerStatus = {
    name: container.name,
    state: { waiting: { reason: waitingReason(pod, kind) } },
    lastState: before?.lastState ?? {},
    ready: false,
    restartCount: before?.restartCount ?? 0,
    image: container.image ?? '',
    imageID: '',
    started: false,
  };
  if (before?.state && beginsAnew(before)) return { ...base, state: before.state };
  // The one whose end asked for it goes last, when nothing else is left that tells of it.
  const asked = before?.state?.terminated && restartsAll(container, before.state.terminated.exitCode);
  if ((memory.restartAll || asked) && before?.state && !before.state.waiting) {
    const removed = {
      reason: restartingAll,
      message: 'The container is removed because RestartAllContainers in place',
    };
    const terminated = before.state.terminated ?? { ...removed, exitCode: 137, startedAt: null, finishedAt: null };
    return { ...base, state: { waiting: removed }, lastState: { terminated } };
  }
  if (before?.state?.terminated) {
    const trouble = memory.containers.get(container.name)?.trouble;
    return trouble ? base : { ...before, ready: kind === 'init' && before.state.terminated.exitCode === 0 };
  }
  if (before?.state?.running && !memory.running.has(`start-container:${container.name}`)) {
    // It ran, and now it is nowhere: it ended, and nobody saw how.
    const lost = {
      exitCode: 137,
      reason: 'ContainerStatusUnknown',
      message: locate,
      startedAt: null,
      finishedAt: null,
    };
    const again = !input.terminating && shouldRestart(pod, container, 137);
    return again
      ? { ...base, lastState: { terminated: lost }, restartCount: before.restartCount }
      : { ...base, state: { terminated: lost }, restartCount: before.restartCount };
  }
  return base;
}

/**
 * From its making to its start a container that follows another is nothing to show yet: a count that rises before the start would tell of a
 * restart that has no time. What there is of the one before is shown: its record, or without one what was shown of it.
 */
function isBeingStarted(
  { memory, runtimeName }: ContainerStatusInput,
  [newest, previous]: readonly ObservedContainer[],
  shown: ContainerStatus | undefined,
): boolean {
  if (newest?.state !== 'created' || !memory.running.has(`start-container:${newest.metadata.name}`)) return false;
  if (previous) return true;
  if (!shown || shown.containerID === `${runtimeName}://${newest.id}` || beginsAnew(shown)) return false;
  return (shown.state?.terminated ?? (shown.state?.waiting && shown.lastState?.terminated)) !== undefined;
}

/** How the one before ended: as the runtime noted it, or as far as its process told of it. */
function endOf(previous: ObservedContainer | undefined): ObservedContainer | undefined {
  if (previous?.state === 'exited') return previous;
  return previous?.ending && { ...previous, ...previous.ending, state: 'exited' };
}

export function containerStatus(
  input: ContainerStatusInput,
  container: Container,
  kind: ContainerKind,
): ContainerStatus {
  const { pod, observed, memory, facts } = input;
  const { name } = container;
  const records = observed.containers.filter((each) => each.metadata.name === name);
  const shown = shownOf(input, name);
  const hidden = isBeingStarted(input, records, shown);
  const [latest, previous] = hidden ? records.slice(1) : records;
  const newest = latest && isOlderThanShown(shown, latest) ? undefined : latest;

  let status: ContainerStatus;
  if (hidden && !newest && shown) {
    const still = { ...shown, ready: false, started: false };
    if (input.terminal) settle(input, kind, still);
    return { ...still, ...input.extras(container, records[0]) };
  }
  if (!newest) status = absent(input, container, kind, shown);
  else {
    const containerID = `${input.runtimeName}://${newest.id}`;
    const ended = endOf(previous);
    const lastTerminated = ended
      ? terminatedState(ended, `${input.runtimeName}://${ended.id}`, pod)
      : shown?.containerID !== containerID && shown?.state?.terminated
        ? shown.state.terminated
        : shown?.lastState?.terminated;
    status = {
      name,
      state: stateOf(newest, containerID, pod, kind),
      lastState: lastTerminated ? { terminated: lastTerminated } : {},
      ready: false,
      restartCount: Math.max(newest.metadata.attempt, shown?.restartCount ?? 0),
      image: newest.image || container.image || '',
      imageID: newest.imageRef,
      containerID,
      started: false,
    };
    if (newest.state === 'running') {
      const known = memory.containers.get(name);
      const verdict = facts.probe(container, newest.id);
      const hookPending =
        container.lifecycle?.postStart !== undefined &&
        known?.postStartDone !== newest.id &&
        memory.running.has(`run-post-start:${newest.id}`);
      status.started = verdict.started && !hookPending;
      status.ready =
        kind !== 'ephemeral' &&
        status.started &&
        verdict.ready &&
        !(kind === 'init' && container.restartPolicy !== 'Always');
    }
    if (kind === 'init' && container.restartPolicy !== 'Always' && newest.state === 'exited' && newest.exitCode === 0)
      status.ready = true;
  }
  applyWaiting(input, container, status, newest);
  if (input.terminal) settle(input, kind, status);
  return { ...status, ...input.extras(container, newest) };
}

/** A container that would run but for some trouble is waiting, and says why. */
function applyWaiting(
  input: ContainerStatusInput,
  container: Container,
  status: ContainerStatus,
  newest: ObservedContainer | undefined,
): void {
  if (input.terminating || newest?.state === 'running') return;
  const wanted = newest?.state !== 'exited' || shouldRestart(input.pod, container, newest.exitCode);
  if (!wanted || (!newest && status.state?.terminated)) return;
  const crashLoopMs = input.crashLoops.get(container.name);
  const trouble = input.memory.containers.get(container.name)?.trouble;
  const waiting =
    crashLoopMs !== undefined
      ? {
          reason: 'CrashLoopBackOff',
          message: `back-off ${formatBackoff(crashLoopMs)} restarting failed container=${container.name} pod=${formatPod(input.pod)}`,
        }
      : trouble
        ? { reason: trouble.reason, message: trouble.message }
        : undefined;
  if (!waiting) return;
  if (status.state?.terminated) status.lastState = { terminated: status.state.terminated };
  status.state = { waiting };
}

/** In a pod that has ended for good every container that had begun shows how it ended. */
function settle(input: ContainerStatusInput, kind: ContainerKind, status: ContainerStatus): void {
  if (status.state?.terminated || kind === 'ephemeral') {
    if (!status.state?.terminated || kind !== 'init') status.ready = false;
    status.started = false;
    return;
  }
  status.ready = false;
  status.started = false;
  if (status.state?.waiting && status.lastState?.terminated) {
    status.state = { terminated: status.lastState.terminated };
    return;
  }
  const begun = status.state?.running !== undefined || status.containerID !== undefined;
  const { pod, observed } = input;
  // Main containers of a pod whose init containers never got through were never to run: they stay waiting.
  const initDone = (pod.spec.initContainers ?? []).every((each) => {
    const newest = newestOf(observed, each.name);
    return isSidecar(each) ? newest !== undefined : newest?.state === 'exited' && newest.exitCode === 0;
  });
  if (begun || (kind === 'regular' && initDone && observed.containers.length > 0))
    status.state = {
      terminated: {
        exitCode: 137,
        reason: 'ContainerStatusUnknown',
        message: locate,
        startedAt: null,
        finishedAt: null,
      },
    };
}
