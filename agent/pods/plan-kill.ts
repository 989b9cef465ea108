// Stopping one container: its preStop hook first, while there is grace, then the stop signal with what is left of it.
import type { Container } from '../../kube/types/pod.ts';
import type { Kill } from './memory.ts';
import type { ObservedContainer } from './observed.ts';
import { keyOfOperation } from './operations.ts';
import { type Draft, minimumGraceSeconds, type PlanInput, wakeAt, want } from './plan.ts';

const endOf = (kill: Kill): number => kill.sinceMs + kill.graceSeconds * 1000;

/** Runs the preStop hook where there is one and time for it. Returns true once the hook is out of the way. */
export function planPreStop(
  draft: Draft,
  input: PlanInput,
  container: Container | undefined,
  observed: ObservedContainer,
  kill: Kill,
): boolean {
  const { memory, facts } = input;
  const name = observed.metadata.name;
  if (!container?.lifecycle?.preStop || memory.containers.get(name)?.preStopDone === observed.id) return true;
  const deadlineMs = endOf(kill);
  const operation = { kind: 'run-pre-stop', container: name, id: observed.id, deadlineMs } as const;
  const key = keyOfOperation(operation);
  if (facts.nowMs >= deadlineMs) {
    if (memory.running.has(key)) draft.abort.push(key);
    return true;
  }
  draft.waitingFor.push(`the preStop hook of container ${name}`);
  wakeAt(draft, deadlineMs);
  want(draft, input, operation);
  return false;
}

/** Stops the container, its preStop hook being out of the way. */
export function planStop(draft: Draft, input: PlanInput, observed: ObservedContainer, kill: Kill): void {
  const leftSeconds = Math.ceil((endOf(kill) - input.facts.nowMs) / 1000);
  const graceSeconds = Math.max(minimumGraceSeconds, leftSeconds);
  draft.waitingFor.push(`container ${observed.metadata.name} to stop (grace ${kill.graceSeconds} s)`);
  want(draft, input, {
    kind: 'stop-container',
    container: observed.metadata.name,
    id: observed.id,
    graceSeconds,
    ofSeconds: kill.graceSeconds,
  });
}
