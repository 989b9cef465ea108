// oom_score_adj of a container: whom the kernel kills first when the node's memory is used up.
import type { Container, Pod } from '../../kube/types/pod.ts';
import { units } from '../../kube/scheduling/amounts.ts';
import { isNodeCriticalPod } from './critical.ts';
import { hasPodLevelRequests, isSidecar, podRequests } from '../../kube/scheduling/pod-resources.ts';
import { qosOf } from '../../kube/scheduling/qos.ts';

const guaranteed = -997;
const bestEffort = 1000;

const memoryRequest = (container: Container): number => units(container.resources?.requests?.memory);

// What the pod requests beyond its containers' requests is shared among them in equal parts.
function podLevelShare(pod: Pod): number {
  if (!hasPodLevelRequests(pod)) return 0;
  const whole = units(pod.spec.resources?.requests?.memory);
  if (whole === 0) return 0;
  const containers = podRequests(pod, { withoutOverhead: true, withoutPodLevel: true }).memory ?? 0;
  return Math.trunc((whole - containers) / (pod.spec.containers.length + (pod.spec.initContainers?.length ?? 0)));
}

/** Kubernetes' formula. `memoryCapacityBytes` is all of the node's memory. Between -997 and 1000. */
export function oomScoreAdj(pod: Pod, container: Container, memoryCapacityBytes: number): number {
  if (isNodeCriticalPod(pod)) return guaranteed;
  const qos = qosOf(pod);
  if (qos === 'Guaranteed') return guaranteed;
  if (qos === 'BestEffort') return bestEffort;
  const share = podLevelShare(pod);
  const score = (bytes: number): number => 1000 - Math.trunc((1000 * bytes) / Math.max(1, memoryCapacityBytes));
  let adjust = score(memoryRequest(container) + share);
  // A sidecar does not die before the containers it serves.
  if (isSidecar(container) && pod.spec.initContainers?.some((other) => other.name === container.name)) {
    const least = Math.min(...pod.spec.containers.map(memoryRequest));
    adjust = Math.min(adjust, score(least + share));
  }
  if (adjust < 1000 + guaranteed) return 1000 + guaranteed;
  return adjust === bestEffort ? bestEffort - 1 : adjust;
}
