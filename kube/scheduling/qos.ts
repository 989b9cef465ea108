// The QoS class of a pod, from its requests and limits of cpu and memory.
import type { ResourceList } from '../types/meta.ts';
import type { Pod, PodSpec } from '../types/pod.ts';
import { millis, units } from './amounts.ts';

export type QosClass = 'Guaranteed' | 'Burstable' | 'BestEffort';

const computeResources = ['cpu', 'memory'] as const;

function positive(list: ResourceList | undefined): Map<string, number> {
  const found = new Map<string, number>();
  for (const name of computeResources) {
    const amount = name === 'cpu' ? millis(list?.[name]) : units(list?.[name]);
    if (amount > 0) found.set(name, amount);
  }
  return found;
}

const add = (to: Map<string, number>, more: ReadonlyMap<string, number>): void => {
  for (const [name, amount] of more) to.set(name, (to.get(name) ?? 0) + amount);
};

/** BestEffort asks for nothing; Guaranteed limits cpu and memory in every container and requests just that; the rest is Burstable. */
export function computeQos(spec: PodSpec): QosClass {
  const requests = new Map<string, number>();
  const limits = new Map<string, number>();
  let guaranteed = true;
  const sources = spec.resources
    ? [spec.resources]
    : [...spec.containers, ...(spec.initContainers ?? [])].map((container) => container.resources);
  for (const resources of sources) {
    add(requests, positive(resources?.requests));
    const limited = positive(resources?.limits);
    add(limits, limited);
    if (limited.size < computeResources.length) guaranteed = false;
  }
  if (requests.size === 0 && limits.size === 0) return 'BestEffort';
  for (const [name, request] of requests) if (limits.get(name) !== request) guaranteed = false;
  return guaranteed && requests.size === limits.size ? 'Guaranteed' : 'Burstable';
}

/** The class the API server wrote into the status, which never changes, else the computed one. */
export const qosOf = (pod: Pod): QosClass => pod.status?.qosClass ?? computeQos(pod.spec);
