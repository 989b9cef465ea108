// Which pods give way to a critical one: as few and as small as possible, BestEffort before Burstable before Guaranteed.
import type { Pod } from '../../kube/types/pod.ts';
import { isCriticalPod } from '../resources/critical.ts';
import { podRequests } from '../../kube/scheduling/pod-resources.ts';
import { qosOf } from '../../kube/scheduling/qos.ts';
import type { Shortage } from '../../kube/scheduling/fit.ts';

interface Need {
  readonly resource: string;
  readonly amount: number;
}

interface Candidate {
  readonly pod: Pod;
  readonly requests: Readonly<Record<string, number>>;
}

/** Whether `pod` may take the place of `other`. */
export function mayPreempt(pod: Pod, other: Pod): boolean {
  if (isCriticalPod(pod) && !isCriticalPod(other)) return true;
  const [own, others] = [pod.spec.priority, other.spec.priority];
  return own !== undefined && others !== undefined && own > others;
}

const requestOf = (candidate: Candidate, resource: string): number =>
  resource === 'pods' ? 1 : (candidate.requests[resource] ?? 0);

const subtract = (needs: readonly Need[], candidates: readonly Candidate[]): Need[] =>
  needs.flatMap(({ resource, amount }) => {
    const rest = candidates.reduce((left, candidate) => left - requestOf(candidate, resource), amount);
    return rest > 0 ? [{ resource, amount: rest }] : [];
  });

// How much would still be wanting, each need weighing the same.
const distance = (needs: readonly Need[], candidate: Candidate): number =>
  needs.reduce((sum, { resource, amount }) => {
    const rest = amount - requestOf(candidate, resource);
    return rest > 0 ? sum + (rest / amount) ** 2 : sum;
  }, 0);

const smaller = (one: Candidate, other: Candidate): boolean => {
  for (const resource of ['memory', 'cpu']) {
    const difference = requestOf(one, resource) - requestOf(other, resource);
    if (difference !== 0) return difference < 0;
  }
  return true;
};

function choose(candidates: readonly Candidate[], needs: readonly Need[]): Candidate[] {
  const left = [...candidates];
  const chosen: Candidate[] = [];
  for (let open = needs; open.length > 0 && left.length > 0; ) {
    let best = left[0]!;
    for (const candidate of left) {
      const [a, b] = [distance(open, candidate), distance(open, best)];
      if (a < b || (a === b && candidate !== best && smaller(candidate, best))) best = candidate;
    }
    chosen.push(best);
    left.splice(left.indexOf(best), 1);
    open = subtract(open, [best]);
  }
  return chosen;
}

/** Undefined where even all of them would not be enough. */
export function podsToPreempt(
  pod: Pod,
  others: readonly Pod[],
  shortages: readonly Shortage[],
): readonly Pod[] | undefined {
  const needs = shortages.map(({ resource, requested, used, capacity }) => ({
    resource,
    amount: requested - (capacity - used),
  }));
  const candidates = others
    .filter((other) => mayPreempt(pod, other))
    .map((other): Candidate => ({ pod: other, requests: podRequests(other) }));
  if (subtract(needs, candidates).length > 0) return undefined;
  const of = (qos: string): Candidate[] => candidates.filter((candidate) => qosOf(candidate.pod) === qos);
  const [bestEffort, burstable] = [of('BestEffort'), of('Burstable')];
  const guaranteed = choose(of('Guaranteed'), subtract(needs, [...bestEffort, ...burstable]));
  const chosenBurstable = choose(burstable, subtract(needs, [...bestEffort, ...guaranteed]));
  const chosenBestEffort = choose(bestEffort, subtract(needs, [...chosenBurstable, ...guaranteed]));
  return [...chosenBestEffort, ...chosenBurstable, ...guaranteed].map((candidate) => candidate.pod);
}
