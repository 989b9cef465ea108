// What a node lacks for a pod beside those it has.
import type { ResourceList } from '../types/meta.ts';
import type { Pod } from '../types/pod.ts';
import { amounts, addTo } from './amounts.ts';
import { podRequests } from './pod-resources.ts';

export interface Shortage {
  readonly resource: string;
  /** Millicores of cpu, whole units of everything else. */
  readonly requested: number;
  readonly used: number;
  readonly capacity: number;
}

/** `example.com/gpu`, and not what is Kubernetes' own. */
export const isExtendedResource = (name: string): boolean =>
  name.includes('/') && !/(^|\.)kubernetes\.io\//.test(name) && !name.startsWith('requests.');

const first = ['cpu', 'memory', 'ephemeral-storage'];

/**
 * In the order the kubelet tells them: pods, cpu, memory, ephemeral storage, the rest by name. Extended resources that the node does not
 * have at all are somebody else's and do not count.
 */
export function shortages(pod: Pod, others: readonly Pod[], allocatable: Readonly<ResourceList>): Shortage[] {
  const capacity = amounts(allocatable);
  const used: Record<string, number> = {};
  for (const other of others) addTo(used, podRequests(other));
  const result: Shortage[] = [];
  const pods = capacity.pods ?? 0;
  if (others.length + 1 > pods) result.push({ resource: 'pods', requested: 1, used: others.length, capacity: pods });
  const requests = podRequests(pod);
  const names = Object.keys(requests).filter((name) => name !== 'pods' && !first.includes(name));
  for (const name of [...first, ...names.sort()]) {
    const requested = requests[name] ?? 0;
    if (requested === 0 || (isExtendedResource(name) && capacity[name] === undefined)) continue;
    const [taken, total] = [used[name] ?? 0, capacity[name] ?? 0];
    if (requested > total - taken) result.push({ resource: name, requested, used: taken, capacity: total });
  }
  return result;
}
