// Resizes that wait for room, and in which order it goes to them, as in the kubelet: by priority, then Guaranteed pods, then who has waited
// longest. One that looks while room comes does not take it from one before it.
import type { Pod } from '../../kube/types/pod.ts';
import { qosOf } from '../../kube/scheduling/qos.ts';

export interface DeferredResizes {
  /** `pod` as it is asked for. */
  wait(uid: string, pod: Pod, nowMs: number): void;
  forget(uid: string): void;
  /** In the order in which they are to be looked at. */
  uids(): readonly string[];
  /**
   * The pods beside this one, with those that come before it as they are asked for, where that fits: their room is not for this one.
   * `others` are pods with what is allocated to them.
   */
  beside(
    uid: string,
    others: readonly Pod[],
    fits: (pod: Pod, beside: readonly Pod[]) => boolean,
    self: Pod,
  ): readonly Pod[];
}

interface Waiting {
  pod: Pod;
  readonly sinceMs: number;
}

const uidOf = (pod: Pod): string => pod.metadata.uid ?? '';

export function createDeferredResizes(): DeferredResizes {
  const waiting = new Map<string, Waiting>();
  const before = (one: Waiting, other: Waiting): number => {
    const guaranteed = ({ pod }: Waiting): number => (qosOf(pod) === 'Guaranteed' ? 1 : 0);
    return (
      (other.pod.spec.priority ?? 0) - (one.pod.spec.priority ?? 0) ||
      guaranteed(other) - guaranteed(one) ||
      one.sinceMs - other.sinceMs
    );
  };
  const ranked = (): [string, Waiting][] => [...waiting].sort(([, one], [, other]) => before(one, other));
  return {
    wait(uid, pod, nowMs) {
      const known = waiting.get(uid);
      if (known) known.pod = pod;
      else waiting.set(uid, { pod, sinceMs: nowMs });
    },
    forget: (uid) => void waiting.delete(uid),
    uids: () => ranked().map(([uid]) => uid),
    beside(uid, others, fits, self) {
      let beside = [...others];
      const order = ranked();
      const own = order.findIndex(([each]) => each === uid);
      // Whoever has not waited yet comes last.
      for (const [each, { pod }] of own === -1 ? order : order.slice(0, own)) {
        if (each === uid || !beside.some((other) => uidOf(other) === each)) continue;
        const rest = beside.filter((other) => uidOf(other) !== each);
        if (fits(pod, [...rest, self])) beside = [...rest, pod];
      }
      return beside;
    },
  };
}
