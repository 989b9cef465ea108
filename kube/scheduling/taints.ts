// Whether a pod tolerates the taints of this node that drive pods away.
import type { Taint } from '../types/core.ts';
import type { Pod, Toleration } from '../types/pod.ts';

const integer = (text: string | undefined): bigint | undefined =>
  text !== undefined && /^-?(0|[1-9]\d*)$/.test(text) ? BigInt(text) : undefined;

export function tolerates(toleration: Toleration, taint: Taint): boolean {
  if (toleration.effect && toleration.effect !== taint.effect) return false;
  if (toleration.key && toleration.key !== taint.key) return false;
  switch (toleration.operator ?? 'Equal') {
    case 'Exists':
      return true;
    case 'Equal':
      return (toleration.value ?? '') === (taint.value ?? '');
    case 'Lt':
    case 'Gt': {
      const [own, wanted] = [integer(taint.value), integer(toleration.value)];
      if (own === undefined || wanted === undefined) return false;
      return toleration.operator === 'Lt' ? own < wanted : own > wanted;
    }
    default:
      return false;
  }
}

/** NoExecute taints only: the others are the scheduler's. */
export const toleratesNoExecute = (pod: Pod, taints: readonly Taint[]): boolean =>
  taints
    .filter((taint) => taint.effect === 'NoExecute')
    .every((taint) => (pod.spec.tolerations ?? []).some((toleration) => tolerates(toleration, taint)));
