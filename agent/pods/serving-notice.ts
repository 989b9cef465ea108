// Tells, at once, that a pod has stopped being ready or is going: what its status in the API is about to say, for those in this process
// who need not wait for it.
import type { Pod, PodStatus } from '../../kube/types/pod.ts';

export interface PodServing {
  readonly ready: boolean;
  readonly terminating: boolean;
}

export interface ServingNotice {
  /** Takes in each status as it is computed. */
  status(pod: Pod, status: PodStatus): void;
  forget(podUid: string): void;
}

/** `tell` is called when something has changed since the first status of a pod. */
export function createServingNotice(tell: (podUid: string, serving: PodServing) => void): ServingNotice {
  const known = new Map<string, PodServing>();
  return {
    status(pod, status) {
      const uid = pod.metadata.uid ?? '';
      const serving = {
        ready: status.conditions?.some((each) => each.type === 'Ready' && each.status === 'True') ?? false,
        terminating: pod.metadata.deletionTimestamp !== undefined,
      };
      const before = known.get(uid);
      known.set(uid, serving);
      if (before && (before.ready !== serving.ready || before.terminating !== serving.terminating)) tell(uid, serving);
    },
    forget: (podUid) => void known.delete(podUid),
  };
}
