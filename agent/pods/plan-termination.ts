// Bringing a pod down: main containers first and together, then the sidecars in the reverse of their order, then sandbox, volumes and
// cgroup; the API's confirmation; at last what the runtime and the disk still hold of it.
import type { Kill, Termination } from './memory.ts';
import { containerNamed } from './named.ts';
import { isSidecar, mayRun, type ObservedContainer } from './observed.ts';
import { isAbortable } from './operations.ts';
import { type Draft, type PlanInput, want } from './plan.ts';
import { planPreStop, planStop } from './plan-kill.ts';

export function planTermination(draft: Draft, input: PlanInput, termination: Termination): void {
  const { memory, observed } = input;
  for (const [key, { operation }] of memory.running)
    if (isAbortable(operation.kind) && operation.kind !== 'run-pre-stop') draft.abort.push(key);

  const alive = observed.containers.filter(mayRun);
  planStops(draft, input, termination, alive);
  // A start under way runs to its end; what it made is stopped then.
  const making = [...memory.running.values()].some(
    ({ operation }) => operation.kind === 'start-container' || operation.kind === 'run-sandbox',
  );
  if (making) draft.waitingFor.push('a start that is under way to end');
  if (alive.length > 0 || making) return;

  draft.terminal = true;
  const standing = observed.sandboxes.filter(
    (sandbox) => sandbox.state === 'ready' && !memory.stoppedSandboxes.has(sandbox.id),
  );
  for (const sandbox of standing) want(draft, input, { kind: 'stop-sandbox', id: sandbox.id });
  // The runtime shows a sandbox as not ready in the middle of its stop: removing it then meets a network that is half gone.
  const stopping = [...memory.running.values()].some(({ operation }) => operation.kind === 'stop-sandbox');
  const settingUp = memory.running.has('set-up-volumes');
  if (!memory.released && !settingUp) want(draft, input, { kind: 'release-volumes' });
  if (standing.length > 0 || stopping) draft.waitingFor.push('the sandbox to stop');
  if (!memory.released) draft.waitingFor.push('volumes to be released');
  if (standing.length > 0 || stopping || !memory.released) return;

  if (!memory.cgroupRemoved) want(draft, input, { kind: 'remove-cgroup' });
  planFarewell(draft, input, termination);
}

function planStops(
  draft: Draft,
  input: PlanInput,
  termination: Termination,
  alive: readonly ObservedContainer[],
): void {
  const { pod } = input;
  const sidecars = (pod.spec.initContainers ?? []).filter(isSidecar).map((container) => container.name);
  const turnOf = (container: ObservedContainer): number => sidecars.indexOf(container.metadata.name);
  const mainsRun = alive.some((container) => turnOf(container) < 0);
  const last = Math.max(-1, ...alive.map(turnOf));
  const overdue = input.facts.nowMs >= termination.sinceMs + termination.graceSeconds * 1000;
  for (const container of alive) {
    const kill: Kill = {
      id: container.id,
      sinceMs: termination.sinceMs,
      graceSeconds: termination.graceSeconds,
      message: `Stopping container ${container.metadata.name}`,
      restartAnyway: false,
    };
    draft.kills.set(container.metadata.name, kill);
    const ready = planPreStop(draft, input, containerNamed(pod, container.metadata.name), container, kill);
    const turn = turnOf(container);
    const itsTurn = turn < 0 || overdue || (!mainsRun && turn === last);
    if (!itsTurn) draft.waitingFor.push(`the containers before sidecar ${container.metadata.name} to stop`);
    else if (ready) planStop(draft, input, container, kill);
  }
}

/** The pod's last things, once all is stopped and released. */
function planFarewell(draft: Draft, input: PlanInput, termination: Termination): void {
  const { desired, pod, memory } = input;
  if (desired !== undefined) {
    // Its manifest went and came back meanwhile: it begins anew, with the containers that were as its past.
    if (termination.cause === 'removed' && pod.metadata.deletionTimestamp === undefined) {
      draft.done = memory.cgroupRemoved;
      return;
    }
    if (pod.metadata.deletionTimestamp === undefined) {
      if (memory.letGo) planRemoval(draft, input);
      return;
    }
    if (!memory.deletionConfirmed) {
      draft.waitingFor.push('the API server to confirm the deletion');
      if (memory.terminalStatusWritten) want(draft, input, { kind: 'confirm-deletion' });
      return;
    }
  }
  if (!planRemoval(draft, input) || !memory.cgroupRemoved) return;
  if (!memory.filesRemoved) want(draft, input, { kind: 'remove-files' });
  else draft.done = desired === undefined;
}

/** True once the runtime has nothing of the pod any more. */
function planRemoval(draft: Draft, input: PlanInput): boolean {
  const { containers, sandboxes } = input.observed;
  for (const { id } of containers) want(draft, input, { kind: 'remove-container', id });
  if (containers.length > 0) return false;
  for (const { id } of sandboxes) want(draft, input, { kind: 'remove-sandbox', id });
  return sandboxes.length === 0;
}
