// A pod's QoS class, as the API server computes it when the pod is made.
import type { Pod } from '../kube/types/pod.ts';

type QosClass = 'Guaranteed' | 'Burstable' | 'BestEffort';

export function qosClassOf(pod: Pod): QosClass {
  const podLevel = pod.spec.resources;
  const all =
    podLevel?.requests || podLevel?.limits
      ? [podLevel]
      : [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].map((container) => container.resources ?? {});
  const zero = (value: string | undefined): boolean => value === undefined || Number.parseFloat(value) === 0;
  let any = false;
  let guaranteed = true;
  for (const { requests = {}, limits = {} } of all)
    for (const name of ['cpu', 'memory']) {
      if (!zero(requests[name]) || !zero(limits[name])) any = true;
      if (zero(limits[name]) || (requests[name] ?? limits[name]) !== limits[name]) guaranteed = false;
    }
  if (!any) return 'BestEffort';
  return guaranteed ? 'Guaranteed' : 'Burstable';
}
