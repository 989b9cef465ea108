// All containers of a pod begin anew, in the same sandbox: what a restart rule of one of them may ask for.
import type { Container, Pod } from '../../kube/types/pod.ts';
import { beginsAnew } from './container-status.ts';
import { mayRun, newestOf, type ObservedContainer } from './observed.ts';
import { type Draft, type PlanInput, want } from './plan.ts';
import { restartsAll } from './restart.ts';
import { shownOf } from './shown.ts';

/** It has ended in a way that one of its rules answers with RestartAllContainers. */
export function asksForAll(pod: Pod, container: ObservedContainer): boolean {
  if (container.state !== 'exited') return false;
  const spec = [...(pod.spec.initContainers ?? []), ...pod.spec.containers].find(
    ({ name }) => name === container.metadata.name,
  );
  return spec !== undefined && restartsAll(spec, container.exitCode);
}

/** It has never begun, and nothing is known that keeps it from it. */
function isToBegin(input: PlanInput, { name }: Container): boolean {
  const { observed, memory } = input;
  const newest = newestOf(observed, name);
  return (
    (!newest || newest.state === 'created') &&
    !memory.containers.get(name)?.trouble &&
    !beginsAnew(shownOf(input, name))
  );
}

/**
 * A rule of a container that ended may ask for all of the pod's containers to begin anew: those that run are killed, all are removed, the
 * one whose end asked for it last, so that an agent that is restarted meanwhile finds it. Returns true until nothing is left of them.
 */
export function planRestartAll(draft: Draft, input: PlanInput): boolean {
  const { pod, observed, memory } = input;
  const specs = [...(pod.spec.initContainers ?? []), ...pod.spec.containers];
  const asks = (container: ObservedContainer | undefined): boolean =>
    container !== undefined && asksForAll(pod, container);
  if (!memory.restartAll) {
    if (!specs.some(({ name }) => asks(newestOf(observed, name)))) return false;
    // One that ends at once does not keep those beside it from having begun.
    const regular = pod.spec.containers;
    if (regular.some(({ name }) => asks(newestOf(observed, name))) && regular.some((each) => isToBegin(input, each)))
      return false;
  }
  const all = observed.containers.filter((each) => specs.some((spec) => spec.name === each.metadata.name));
  const starting = [...memory.running.values()].some(({ operation }) => operation.kind === 'start-container');
  if (all.length === 0 && !starting) return false;
  draft.restartAll = true;
  draft.waitingFor.push('all containers to be removed, to begin anew');
  const alive = all.filter(mayRun);
  for (const container of alive) {
    const { name } = container.metadata;
    const message = `Container ${name} is killed to restart all containers of the pod`;
    draft.kills.set(name, {
      id: container.id,
      sinceMs: input.facts.nowMs,
      graceSeconds: 0,
      message,
      restartAnyway: false,
    });
    want(draft, input, { kind: 'stop-container', container: name, id: container.id, graceSeconds: 0, ofSeconds: 0 });
  }
  if (alive.length > 0 || starting) return true;
  const others = all.filter((container) => !asks(container));
  for (const { id } of others.length > 0 ? others : all)
    want(draft, input, { kind: 'remove-container', id, keepLog: true });
  return true;
}
