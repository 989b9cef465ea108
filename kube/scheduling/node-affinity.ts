// Whether a pod's nodeSelector and required node affinity fit this node.
import { matchesNodeSelectorTerms } from '../selectors.ts';
import type { Node } from '../types/core.ts';
import type { Pod } from '../types/pod.ts';

export function fitsNodeAffinity(pod: Pod, node: Node): boolean {
  const labels = node.metadata.labels ?? {};
  for (const [key, value] of Object.entries(pod.spec.nodeSelector ?? {})) if (labels[key] !== value) return false;
  const required = pod.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  return !required || matchesNodeSelectorTerms(required.nodeSelectorTerms, node);
}
