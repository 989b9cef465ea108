// In-place resize as the pods' workers see it: the resizer with this node's room, the runtime's records and statistics.
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId } from '../../cri/types.ts';
import type { EventRecorder } from '../../kube/events.ts';
import type { Condition, ResourceList } from '../../kube/types/meta.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { shortages } from '../../kube/scheduling/fit.ts';
import { requestedResizes } from '../resources/requested-resizes.ts';
import type { PodCgroupFacts, ResourceFacts } from '../resources/linux-resources.ts';
import type { PodCgroups } from '../resources/pod-cgroups.ts';
import { createResizer, type Resizer, type RunningNow } from '../resources/resizer.ts';
import type { Clock } from '../../lib/clock.ts';
import type { KubeletMetrics } from '../server/kubelet-metrics.ts';
import type { ObservedPod } from './observed.ts';
import type { PodState } from './pod-state.ts';
import type { PodWorkersDeps } from './pod-workers.ts';

export interface PodResizeDeps {
  readonly runtime: Pick<Runtime, 'updateContainerResources' | 'listContainerStats'>;
  readonly cgroups: Pick<PodCgroups, 'configOf' | 'update'>;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly metrics: Pick<KubeletMetrics, 'resizeDuration' | 'infeasibleResizes' | 'requestedResizes'>;
  allocatable(): Readonly<ResourceList>;
  /** What was allocated before a restart of the agent. */
  kept(podUid: string): Pick<PodState, 'allocation' | 'podAllocation'> | undefined;
}

export interface PodResize extends NonNullable<PodWorkersDeps['resize']> {
  created(pod: Pod, container: Container, id: ContainerId): void;
  /** Rejects where it could not be carried out; the pod's condition says why. */
  actuate(pod: Pod, observed: ObservedPod): Promise<void>;
  shown: Resizer['shown'];
  podShown: Resizer['podShown'];
  conditions(podUid: string): Condition[];
  /** The pod's source has another spec of it. */
  asked(before: Pod, now: Pod): void;
  forget(podUid: string): void;
}

const runningOf = (observed: ObservedPod): RunningNow[] => {
  const seen = new Set<string>();
  return observed.containers.flatMap((each) => {
    const { name } = each.metadata;
    if (seen.has(name)) return [];
    seen.add(name);
    return each.state === 'running' ? [{ name, id: each.id, resources: each.resources }] : [];
  });
};

export function createPodResize(deps: PodResizeDeps, facts: ResourceFacts & PodCgroupFacts): PodResize {
  const resizer = createResizer(
    {
      ...deps,
      infeasible: (detail) => deps.metrics.infeasibleResizes.inc({ reason_detail: detail }),
      async memoryUse(pod) {
        const stats = await deps.runtime.listContainerStats({ podUid: pod.metadata.uid ?? '' });
        const containers = new Map(
          stats.map(({ metadata, memory }) => [metadata.name, memory?.usageBytes ?? memory?.workingSetBytes ?? 0]),
        );
        return { pod: [...containers.values()].reduce((sum, bytes) => sum + bytes, 0), containers };
      },
      remembered: (uid) => {
        const kept = deps.kept(uid);
        if (!kept?.allocation) return undefined;
        return { pod: kept.podAllocation, containers: new Map(Object.entries(kept.allocation)) };
      },
    },
    facts,
  );
  return {
    review: (pod, others) =>
      resizer.review(pod, (asked) => {
        const [short] = shortages(asked, others, deps.allocatable());
        if (!short) return { admitted: true };
        const { resource, requested, used, capacity } = short;
        return {
          admitted: false,
          message: `Node didn't have enough resource: ${resource}, requested: ${requested}, used: ${used}, capacity: ${capacity}`,
        };
      }),
    allocated: (pod) => resizer.allocated(pod),
    fits: (pod, others) => shortages(pod, others, deps.allocatable()).length === 0,
    outstanding: (pod, observed) => resizer.outstanding(pod, runningOf(observed), observed.sandboxes.length > 0),
    unsettled: (pod) => {
      const allocation = resizer.unsettled(pod);
      return {
        ...(allocation ? { allocation: Object.fromEntries(allocation.containers) } : {}),
        ...(allocation?.pod ? { podAllocation: allocation.pod } : {}),
      };
    },
    created: (pod, container, id) => resizer.created(pod, container, id),
    async actuate(pod, observed) {
      const begunMs = deps.clock.monotonicMs();
      const took = (success: boolean): void =>
        deps.metrics.resizeDuration.observe({ success: String(success) }, deps.clock.monotonicMs() - begunMs);
      try {
        await resizer.actuate(pod, runningOf(observed));
      } catch (error) {
        took(false);
        throw error;
      }
      took(true);
    },
    asked(before, now) {
      for (const change of requestedResizes(before, now)) deps.metrics.requestedResizes.inc(change);
    },
    shown: (pod, container, id) => resizer.shown(pod, container, id),
    podShown: (pod) => resizer.podShown(pod),
    conditions: (uid) => resizer.conditions(uid),
    forget: (uid) => resizer.forget(uid),
  };
}
