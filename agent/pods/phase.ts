// A pod's phase, from its spec and the container statuses that are about to be shown. Same rules as the kubelet's getPhase.
import type { Container, ContainerStatus, Pod, PodPhase } from '../../kube/types/pod.ts';
import { beginsAnew } from './container-status.ts';
import { isSidecar } from './observed.ts';
import { shouldRestart } from './restart.ts';

type Statuses = ReadonlyMap<string, ContainerStatus>;

interface Tally {
  unknown: number;
  running: number;
  waiting: number;
  stopped: number;
  final: number;
  succeeded: number;
  pendingInit: number;
  pendingSidecars: number;
  initFailedForGood: boolean;
}

function exitOf(status: ContainerStatus): number | undefined {
  return (
    status.state?.terminated?.exitCode ?? (status.state?.waiting ? status.lastState?.terminated?.exitCode : undefined)
  );
}

function tallyInit(tally: Tally, pod: Pod, container: Container, status: ContainerStatus | undefined): void {
  const exitCode = status ? exitOf(status) : undefined;
  if (exitCode === undefined) tally.pendingInit++;
  else if (exitCode !== 0 && !beginsAnew(status) && !shouldRestart(pod, container, exitCode))
    tally.initFailedForGood = true;
  else if (exitCode === 0 && status?.state?.waiting) return;
  else if (exitCode !== 0) return;
}

function tallySidecar(tally: Tally, status: ContainerStatus | undefined): void {
  if (!status) tally.unknown++;
  else if (status.state?.running) {
    tally.running++;
    if (!status.started) tally.pendingSidecars++;
  } else if (status.state?.waiting && !status.lastState?.terminated) {
    tally.pendingSidecars++;
    tally.waiting++;
  }
}

function tallyRegular(tally: Tally, pod: Pod, container: Container, status: ContainerStatus | undefined): void {
  if (!status?.state) {
    tally.unknown++;
    return;
  }
  if (status.state.running) {
    tally.running++;
    return;
  }
  const exitCode = exitOf(status);
  if (exitCode === undefined) {
    tally.waiting++;
    return;
  }
  tally.stopped++;
  if (!beginsAnew(status) && !shouldRestart(pod, container, exitCode)) tally.final++;
  if (status.state.terminated && exitCode === 0) tally.succeeded++;
}

/** `terminal`: all containers have ended and none will start again. `begun`: a regular container has started before. */
export function computePhase(pod: Pod, statuses: Statuses, terminal: boolean, begun: boolean): PodPhase {
  const tally: Tally = {
    unknown: 0,
    running: 0,
    waiting: 0,
    stopped: 0,
    final: 0,
    succeeded: 0,
    pendingInit: 0,
    pendingSidecars: 0,
    initFailedForGood: false,
  };
  for (const container of pod.spec.initContainers ?? []) {
    if (isSidecar(container)) tallySidecar(tally, statuses.get(container.name));
    else tallyInit(tally, pod, container, statuses.get(container.name));
  }
  for (const container of pod.spec.containers) tallyRegular(tally, pod, container, statuses.get(container.name));

  if (tally.initFailedForGood) return 'Failed';
  if (tally.pendingInit > 0 || (tally.pendingSidecars > 0 && !begun) || tally.waiting > 0) return 'Pending';
  if (tally.running > 0 && tally.unknown === 0) return 'Running';
  if (tally.running === 0 && tally.stopped > 0 && tally.unknown === 0) {
    const verdict = tally.stopped === tally.succeeded ? 'Succeeded' : 'Failed';
    if (terminal) return verdict;
    return tally.stopped !== tally.final ? 'Running' : verdict;
  }
  return 'Pending';
}
