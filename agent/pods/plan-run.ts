// What a pod that is to run needs next: volumes and a sandbox side by side, then its containers in the order Kubernetes promises.
// Behaviour follows the kubelet's computePodActions; pulls of later containers' images go ahead of their turn.
import type { SandboxStatus } from '../../cri/types.ts';
import type { Container } from '../../kube/types/pod.ts';
import { isSidecar, judgeSandbox, mayRun, newestOf, type ObservedContainer, sharesProcesses } from './observed.ts';
import { keyOfOperation, type Operation } from './operations.ts';
import { type Draft, graceOf, type PlanInput, wakeAt, want } from './plan.ts';
import { planPreStop, planStop } from './plan-kill.ts';
import { asksForAll, planRestartAll } from './plan-restart-all.ts';
import { formatBackoff, nextBackoff, restartsAfterKill, shouldRestart } from './restart.ts';
import { isOlderThanShown, shownOf } from './shown.ts';

/** Fills the draft; returns true where the pod is finished: all has ended and nothing starts again. */
export function planRun(draft: Draft, input: PlanInput): boolean {
  const { pod, observed, memory, facts } = input;
  if (!memory.admission) {
    draft.waitingFor.push('admission on this node');
    return false;
  }
  const verdict = judgeSandbox(pod, withoutStopped(input));
  if (verdict.kind === 'needed' && finishedWithoutSandbox(input, verdict.attempt)) return true;
  if (!memory.volumesUp) planVolumes(draft, input);
  if (verdict.kind === 'usable') {
    if (planRestartAll(draft, input)) return false;
    planTidying(draft, input, verdict.sandbox);
    return planContainers(draft, input, verdict.sandbox);
  }

  const alive = observed.containers.filter(mayRun);
  for (const container of alive)
    planStop(draft, input, container, {
      id: container.id,
      sinceMs: facts.nowMs,
      graceSeconds: graceOf(pod),
      message: 'Pod sandbox changed, it will be killed and re-created.',
      restartAnyway: false,
    });
  if (alive.length > 0) return false;
  for (const stale of verdict.stale) want(draft, input, { kind: 'stop-sandbox', id: stale.id });
  const stopping = [...memory.running.values()].some(({ operation }) => operation.kind === 'stop-sandbox');
  if (verdict.stale.length > 0 || stopping) {
    draft.waitingFor.push('the old sandbox to stop');
    return false;
  }
  if (memory.sandboxTrouble && memory.sandboxTrouble.retryAtMs > facts.nowMs) {
    wakeAt(draft, memory.sandboxTrouble.retryAtMs);
    draft.waitingFor.push(memory.sandboxTrouble.message);
  } else {
    draft.waitingFor.push('the pod sandbox (network and namespaces)');
    want(draft, input, { kind: 'run-sandbox', attempt: Math.max(verdict.attempt, memory.sandboxNames.least) });
  }
  // Images are fetched while the sandbox comes up.
  for (const container of firstContainers(input)) planPull(draft, input, container);
  return false;
}

/** Of each container the newest ended one is kept, for its log and its last state; of sandboxes those that still have containers. */
function planTidying(draft: Draft, { observed, memory, facts }: PlanInput, current: SandboxStatus): void {
  const tidy = (operation: Operation): void => {
    const key = keyOfOperation(operation);
    // Nothing waits for it: a failure is tried again with the next look, once its time has come.
    const retry = memory.retries.get(key);
    if (!memory.running.has(key) && (retry?.retryAtMs ?? 0) <= facts.nowMs) draft.start.push(operation);
  };
  const kept = new Set<string>();
  for (const { id, state, metadata } of observed.containers) {
    if (state !== 'exited') continue;
    if (kept.has(metadata.name)) tidy({ kind: 'remove-container', id });
    kept.add(metadata.name);
  }
  for (const sandbox of observed.sandboxes)
    if (
      sandbox.id !== current.id &&
      sandbox.state === 'notready' &&
      !observed.containers.some((container) => container.sandboxId === sandbox.id)
    )
      tidy({ kind: 'remove-sandbox', id: sandbox.id });
}

/** The runtime may show a sandbox ready for a moment after we stopped it. */
function withoutStopped(input: PlanInput) {
  const { observed, memory } = input;
  if (memory.stoppedSandboxes.size === 0) return observed;
  return {
    ...observed,
    sandboxes: observed.sandboxes.map((sandbox) =>
      memory.stoppedSandboxes.has(sandbox.id) ? { ...sandbox, state: 'notready' as const } : sandbox,
    ),
  };
}

/** A pod that lost its sandbox and has nothing left to run needs no new one. */
function finishedWithoutSandbox(input: PlanInput, attempt: number): boolean {
  const { pod, observed } = input;
  if (attempt === 0 || observed.containers.length === 0) return false;
  if (pod.spec.restartPolicy === 'Never') return !observed.containers.some(mayRun) || attempt > 0;
  const regular = pod.spec.containers;
  const anyCreated = regular.some((container) => newestOf(observed, container.name));
  const done = (container: Container): boolean => {
    const newest = newestOf(observed, container.name);
    const policy = container.restartPolicy ?? pod.spec.restartPolicy;
    return policy === 'OnFailure' && newest?.state === 'exited' && newest.exitCode === 0;
  };
  return anyCreated && regular.every(done);
}

/** The containers that start first in a new sandbox. */
function firstContainers(input: PlanInput): readonly Container[] {
  const { initContainers = [], containers } = input.pod.spec;
  const [first] = initContainers;
  return first ? [first] : containers;
}

function planVolumes(draft: Draft, input: PlanInput): void {
  const { memory, facts } = input;
  const trouble = memory.volumeTrouble;
  draft.waitingFor.push(trouble?.message ?? 'volumes to be set up');
  if (trouble && trouble.retryAtMs > facts.nowMs) wakeAt(draft, trouble.retryAtMs);
  else want(draft, input, { kind: 'set-up-volumes' });
}

/** Pulls the image where the next start needs it. Returns true once it is there. */
function planPull(draft: Draft, input: PlanInput, container: Container): boolean {
  const { memory, facts } = input;
  const known = memory.containers.get(container.name);
  if (known?.image) return true;
  if (known?.trouble && known.trouble.retryAtMs > facts.nowMs) {
    wakeAt(draft, known.trouble.retryAtMs);
    return false;
  }
  want(draft, input, { kind: 'pull-image', container: container.name });
  return false;
}

type Progress = 'started' | 'in-progress' | 'stuck';

/** Starts the container when it is its turn. `in-progress` holds back those after it, `stuck` does not. */
function planStart(
  draft: Draft,
  input: PlanInput,
  container: Container,
  sandbox: SandboxStatus,
  before: ObservedContainer | undefined,
  held: boolean,
): Progress {
  const { memory, facts } = input;
  const { name } = container;
  const known = memory.containers.get(name);
  if (memory.running.has(`start-container:${name}`)) {
    draft.waitingFor.push(`container ${name} to start`);
    return 'in-progress';
  }
  if (before?.state === 'exited') {
    const restartAnyway = known?.kill?.id === before.id && known.kill.restartAnyway;
    const backoff = restartAnyway
      ? { delayMs: 0, exitId: before.id }
      : nextBackoff(known?.backoff, before, facts.restartBackoff);
    draft.backoffs.set(name, backoff);
    const untilMs = before.finishedAtMs + backoff.delayMs;
    if (backoff.delayMs > 0 && untilMs > facts.nowMs) {
      draft.crashLoops.set(name, backoff.delayMs);
      wakeAt(draft, untilMs);
      draft.waitingFor.push(`back-off ${formatBackoff(backoff.delayMs)} restarting failed container ${name}`);
      return 'stuck';
    }
  }
  if (known?.trouble && known.trouble.retryAtMs > facts.nowMs) {
    wakeAt(draft, known.trouble.retryAtMs);
    draft.waitingFor.push(`container ${name}: ${known.trouble.message}`);
    return 'stuck';
  }
  if (!planPull(draft, input, container)) {
    draft.waitingFor.push(`the image of container ${name}`);
    // A first try that is under way holds the others; one that has failed before does not.
    return known?.trouble ? 'stuck' : 'in-progress';
  }
  if (!memory.volumesUp || held) return 'in-progress';
  if (before?.state === 'created' || before?.state === 'unknown') {
    // Left by a start that was cut off: nobody knows whether it ran.
    if (before.state === 'unknown')
      planStop(draft, input, before, {
        id: before.id,
        sinceMs: facts.nowMs,
        graceSeconds: graceOf(input.pod),
        message: '',
        restartAnyway: false,
      });
    else want(draft, input, { kind: 'remove-container', id: before.id });
    return 'in-progress';
  }
  draft.waitingFor.push(`container ${name} to start`);
  const attempt = nextAttempt(input, container, before);
  const after = before?.ending ? { after: { id: before.id, lingers: sharesProcesses(input.pod) } } : {};
  want(draft, input, { kind: 'start-container', container: name, attempt, sandboxId: sandbox.id, ...after });
  return 'in-progress';
}

/**
 * The process of a container has ended, and the runtime still tidies up after it: where another is to follow at once, it does not wait for
 * that. What is told of the end waits: the runtime may know more of it. Undefined where nothing follows yet.
 */
function planSuccessor(
  draft: Draft,
  input: PlanInput,
  container: Container,
  sandbox: SandboxStatus,
  before: ObservedContainer,
  held: boolean,
): Progress | undefined {
  if (!before.ending) return undefined;
  const { pod, memory, facts } = input;
  const known = memory.containers.get(container.name);
  if (known?.kill?.id === before.id) return undefined;
  const ended: ObservedContainer = { ...before, ...before.ending, state: 'exited' };
  if (asksForAll(pod, ended) || !shouldRestart(pod, container, ended.exitCode)) return undefined;
  if (nextBackoff(known?.backoff, ended, facts.restartBackoff).delayMs > 0) return undefined;
  return planStart(draft, input, container, sandbox, ended, held);
}

/** The restart count of the next start: it never falls, whatever the runtime has forgotten. */
function nextAttempt(input: PlanInput, container: Container, before: ObservedContainer | undefined): number {
  const { memory } = input;
  const shown = shownOf(input, container.name);
  const ranBefore = shown && (shown.state?.terminated || shown.state?.running || shown.lastState?.terminated);
  const forgotten = before ? isOlderThanShown(shown, before) : ranBefore;
  const fromStatus = shown ? shown.restartCount + (forgotten ? 1 : 0) : 0;
  const least = memory.containers.get(container.name)?.leastAttempt ?? 0;
  return Math.max(before ? before.metadata.attempt + 1 : 0, fromStatus, least);
}

/** Looks after a container that runs: hooks and probes. Returns how far it has come. */
function planRunning(
  draft: Draft,
  input: PlanInput,
  container: Container,
  observed: ObservedContainer,
): { readonly progress: Progress; readonly ready: boolean } {
  const { pod, memory, facts } = input;
  const known = memory.containers.get(container.name);
  const kill = known?.kill?.id === observed.id ? known.kill : decideKill(input, container, observed);
  if (kill) {
    draft.kills.set(container.name, kill);
    if (planPreStop(draft, input, container, observed, kill)) planStop(draft, input, observed, kill);
    return { progress: 'stuck', ready: false };
  }
  if (container.lifecycle?.postStart && known?.postStartDone !== observed.id) {
    // After a restart of the agent the hook of a container that was shown running has been run.
    const shown = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])].some(
      (status) => status.containerID?.endsWith(observed.id) && status.state?.running,
    );
    if (!shown) {
      want(draft, input, { kind: 'run-post-start', container: container.name, id: observed.id });
      draft.waitingFor.push(`the postStart hook of container ${container.name}`);
      return { progress: 'in-progress', ready: false };
    }
  }
  const verdict = facts.probe(container, observed.id);
  if (!verdict.started) draft.waitingFor.push(`the startup probe of container ${container.name}`);
  else if (!verdict.ready) draft.waitingFor.push(`the readiness probe of container ${container.name}`);
  return { progress: 'started', ready: verdict.started };
}

function decideKill(input: PlanInput, container: Container, observed: ObservedContainer) {
  const { pod, facts, memory } = input;
  const { name } = container;
  const begin = (message: string, graceSeconds: number, restartAnyway: boolean) => ({
    id: observed.id,
    sinceMs: facts.nowMs,
    graceSeconds,
    message,
    restartAnyway,
  });
  const label = pod.spec.initContainers?.includes(container) ? 'Init container' : 'Container';
  const hash = observed.annotations['io.kubernetes.container.hash'];
  if (hash !== undefined && hash !== facts.hashOf(container))
    return begin(`${label} ${name} definition changed, will be restarted`, graceOf(pod), true);
  const resize = input.resize?.restart.get(name);
  if (resize !== undefined) return { ...begin(resize, graceOf(pod), true), forResize: true };
  if (memory.containers.get(name)?.postStartFailed === observed.id)
    return begin('FailedPostStartHook', graceOf(pod), false);
  const { failed } = facts.probe(container, observed.id);
  if (!failed) return undefined;
  const probe = failed === 'startup' ? container.startupProbe : container.livenessProbe;
  const again = restartsAfterKill(pod, container);
  const message = `${label} ${name} failed ${failed} probe${again ? ', will be restarted' : ''}`;
  return { ...begin(message, Math.max(1, probe?.terminationGracePeriodSeconds ?? graceOf(pod)), false), again };
}

function planContainers(draft: Draft, input: PlanInput, sandbox: SandboxStatus): boolean {
  const { pod, observed } = input;
  for (const container of pod.spec.ephemeralContainers ?? []) {
    const newest = newestOf(observed, container.name);
    // One that ran before runs once: it is not started again when the runtime has forgotten it.
    const state = newest ? undefined : shownOf(input, container.name)?.state;
    if (state?.running || state?.terminated) continue;
    if (!newest || newest.state === 'created') planStart(draft, input, container, sandbox, newest, false);
  }
  const init = planInit(draft, input, sandbox);
  if (init !== 'initialized') return init === 'failed';

  let held = false;
  let kept = 0;
  for (const container of pod.spec.containers) {
    const newest = newestOf(observed, container.name);
    if (newest?.state === 'running') {
      kept++;
      const progress =
        planSuccessor(draft, input, container, sandbox, newest, held) ??
        planRunning(draft, input, container, newest).progress;
      if (progress === 'in-progress') held = true;
      continue;
    }
    if (newest && asksForAll(pod, newest)) {
      // All begin anew once those beside it have begun.
      kept++;
      continue;
    }
    if (!wantsStart(input, container, newest)) continue;
    kept++;
    if (planStart(draft, input, container, sandbox, newest, held) === 'in-progress') held = true;
  }
  return kept === 0;
}

function wantsStart(input: PlanInput, container: Container, newest: ObservedContainer | undefined): boolean {
  if (!newest) {
    // It ran, and the runtime has forgotten it: whether it runs again is as if it had ended as was shown, or was killed.
    const state = shownOf(input, container.name)?.state;
    if (state?.running || state?.terminated)
      return shouldRestart(input.pod, container, state.terminated?.exitCode ?? 137);
  }
  if (newest?.state !== 'exited') return true;
  const kill = input.memory.containers.get(container.name)?.kill;
  if (kill?.id === newest.id && (kill.restartAnyway || kill.again)) return true;
  return shouldRestart(input.pod, container, newest.exitCode);
}

/** The regular containers have ended for good, or are being killed and run no more: a sidecar that ends meanwhile has nobody to serve. */
function completes(input: PlanInput, find: (name: string) => ObservedContainer | undefined): boolean {
  const { pod, memory } = input;
  return pod.spec.containers.every((container) => {
    const newest = find(container.name);
    const kill = memory.containers.get(container.name)?.kill;
    if (newest?.state === 'running') return kill?.id === newest.id && !kill.restartAnyway && !kill.again;
    return newest?.state === 'exited' && !wantsStart(input, container, newest);
  });
}

type InitProgress = 'initialized' | 'waiting' | 'failed';

/** Init containers one after the other, each sidecar once the one before it has started; sidecars are kept running ever after. */
function planInit(draft: Draft, input: PlanInput, sandbox: SandboxStatus): InitProgress {
  const { pod, observed } = input;
  const init = pod.spec.initContainers ?? [];
  const inSandbox = (name: string): ObservedContainer | undefined =>
    observed.containers.find((container) => container.metadata.name === name && container.sandboxId === sandbox.id);
  const initialized = pod.spec.containers.some((container) => inSandbox(container.name));
  // Records of completed init containers may be gone: a later one proves the earlier ones done.
  const furthest = init.findLastIndex((container) => inSandbox(container.name));
  let blocked = false;
  for (const [index, container] of init.entries()) {
    const here = inSandbox(container.name);
    if (isSidecar(container)) {
      if (blocked && !here) continue;
      let started = false;
      if (here?.state === 'running') started = planRunning(draft, input, container, here).ready;
      else if (here?.state === 'exited' && completes(input, inSandbox)) continue;
      else planStart(draft, input, container, sandbox, here ?? newestOf(observed, container.name), false);
      if (!initialized && !started) blocked = true;
      if (blocked && index >= furthest) return 'waiting';
      continue;
    }
    if (initialized || blocked || (index < furthest && !here)) continue;
    if (here?.state === 'running') {
      draft.waitingFor.push(`init container ${container.name} to complete`);
      if (planRunning(draft, input, container, here).progress === 'in-progress') blocked = true;
      return 'waiting';
    }
    if (here?.state === 'exited') {
      if (here.exitCode === 0) continue;
      if (!shouldRestart(pod, container, here.exitCode)) return 'failed';
    }
    const before = here ?? newestOf(observed, container.name);
    const fresh = before && before.sandboxId !== sandbox.id ? undefined : before;
    planStart(draft, input, container, sandbox, fresh, false);
    return 'waiting';
  }
  return blocked ? 'waiting' : 'initialized';
}
