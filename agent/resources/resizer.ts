// In-place resize, carried out: remembers what is allocated to each pod and what its containers have, and brings the two together. The
// pod's worker is the only caller for its pod. The decisions are in resize.ts, the order in resize-steps.ts.
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId, LinuxResources } from '../../cri/types.ts';
import { type EventRecorder, podTarget } from '../../kube/events.ts';
import type { Condition, ResourceList } from '../../kube/types/meta.ts';
import type { Container, Pod, ResourceRequirements } from '../../kube/types/pod.ts';
import { units } from '../../kube/scheduling/amounts.ts';
import type { PodCgroupFacts, ResourceFacts } from './linux-resources.ts';
import type { PodCgroups } from './pod-cgroups.ts';
import {
  type Allocation,
  allocationFromStatus,
  allocationOf,
  containerResize,
  judgeResize,
  resizable,
  withAllocation,
} from './resize.ts';
import {
  type ActualResources,
  equalActual,
  observedResources,
  recognise,
  wantedOfPod,
  wantedResources,
} from './resize-actual.ts';
import {
  type PodResourcesShown,
  podResourcesShown,
  type ResizeEvent,
  type ResizeProgress,
  progressShown,
  resizeConditions,
  resizeMessage,
  statusResources,
} from './resize-status.ts';
import { type MemoryUse, refuseMemoryDecrease, resizeSteps } from './resize-steps.ts';

export interface ResizerDeps {
  readonly runtime: Pick<Runtime, 'updateContainerResources'>;
  readonly cgroups: Pick<PodCgroups, 'configOf' | 'update'>;
  readonly events: EventRecorder;
  /** Bytes in use now, so that no limit is set below them. */
  memoryUse(pod: Pod): Promise<MemoryUse>;
  /** What was allocated before the agent was restarted, where that was kept; else the status it wrote tells. */
  remembered?(podUid: string): Allocation | undefined;
  /** A resize cannot ever be; for a metric. `detail` is why, as the kubelet labels it. */
  infeasible?(detail: string): void;
}

/** A running container, as the runtime tells of it. */
export interface RunningNow {
  readonly name: string;
  readonly id: ContainerId;
  readonly resources: LinuxResources | undefined;
}

export interface Resizer {
  /**
   * Looks at what the pod asks for and returns it with what is allocated to it: what everything else is to go by. `admit` is as
   * judgeResize's. Call it each time the pod is looked at; what is deferred is judged anew.
   */
  review(pod: Pod, admit: Parameters<typeof judgeResize>[2]): Pod;
  /** The pod with what is allocated to it, without a look at what it asks for. */
  allocated(pod: Pod): Pod;
  /** A container was created with what is allocated to it. `pod` is review()'s. */
  created(pod: Pod, container: Container, id: ContainerId): void;
  /** What is to be done for the pod and its containers that run. `pod` is review()'s; `begun`: its cgroup is there. */
  outstanding(
    pod: Pod,
    running: readonly RunningNow[],
    begun: boolean,
  ): {
    /** actuate() has something to do. */
    readonly update: boolean;
    /** Containers to restart instead, with the message for the Event Killing. */
    readonly restart: ReadonlyMap<string, string>;
  };
  /**
   * Brings cgroups and containers to what is allocated. Rejects where it could not; the condition and an Event say why, and it is to be
   * called again.
   */
  actuate(pod: Pod, running: readonly RunningNow[]): Promise<void>;
  /** For a container's status. */
  shown(
    pod: Pod,
    container: Container,
    id: ContainerId,
  ): { readonly allocatedResources?: ResourceList; readonly resources?: ResourceRequirements };
  /** For the pod's status. `pod` is review()'s. */
  podShown(pod: Pod): PodResourcesShown;
  conditions(podUid: string): Condition[];
  /** What is allocated, where that is not what the pod asks for or not what its containers have: to be kept over a restart. */
  unsettled(pod: Pod): Allocation | undefined;
  forget(podUid: string): void;
}

interface Memory {
  allocation: Allocation;
  progress: ResizeProgress;
  /** By container's id. */
  readonly actual: Map<ContainerId, ActualResources>;
  /** What containers made before this agent are taken to have, by name; undefined where a resize was under way. */
  readonly adopted: ReadonlyMap<string, ActualResources> | undefined;
  /** What the pod's cgroup is set to; undefined where a resize was under way when the agent began. */
  whole: ActualResources | undefined;
}

const uidOf = (pod: Pod): string => pod.metadata.uid ?? '';

export function createResizer(deps: ResizerDeps, facts: ResourceFacts & PodCgroupFacts): Resizer {
  const pods = new Map<string, Memory>();

  const memoryOf = (pod: Pod): Memory => {
    const known = pods.get(uidOf(pod));
    if (known) return known;
    const kept = deps.remembered?.(uidOf(pod));
    const allocation = kept ?? allocationFromStatus(pod);
    const progress = progressShown(pod.status?.conditions);
    // What waits for room has changed nothing yet.
    const settled = (!kept || progress.pending !== undefined) && !progress.inProgress;
    const allocated = withAllocation(pod, allocation);
    const fresh: Memory = {
      allocation,
      progress,
      actual: new Map(),
      adopted: settled
        ? new Map(resizable(allocated).map((each) => [each.name, wantedResources(allocated, each)]))
        : undefined,
      whole: settled ? wantedOfPod(allocated, facts) : undefined,
    };
    pods.set(uidOf(pod), fresh);
    return fresh;
  };

  const say = (pod: Pod, event: ResizeEvent, generation: number, error = ''): void =>
    deps.events.record(
      podTarget(pod),
      event === 'ResizeStarted' || event === 'ResizeCompleted' ? 'Normal' : 'Warning',
      event,
      resizeMessage(event, pod, generation, error),
    );

  const actualOf = (pod: Pod, container: Container, now: RunningNow): ActualResources => {
    const memory = memoryOf(pod);
    const known = memory.actual.get(now.id);
    if (known) return known;
    const adopted = memory.adopted?.get(container.name);
    const candidates = [...(adopted ? [adopted] : []), wantedResources(pod, container)];
    // Where the runtime tells nothing, what was under way is done once more.
    if (!now.resources) return adopted ?? { cpuRequest: 0, cpuLimit: 0, memoryRequest: 0, memoryLimit: 0 };
    const memoryRequest = units(memory.allocation.containers.get(container.name)?.requests?.memory);
    return recognise(now.resources, candidates) ?? observedResources(now.resources, memoryRequest);
  };

  const each = (pod: Pod, running: readonly RunningNow[]) =>
    resizable(pod).flatMap((container) => {
      const now = running.find((one) => one.name === container.name);
      return now ? [{ container, now, actual: actualOf(pod, container, now) }] : [];
    });

  return {
    review(pod, admit) {
      const memory = memoryOf(pod);
      const generation = pod.metadata.generation ?? 0;
      const verdict = judgeResize(pod, memory.allocation, admit, facts);
      const { pending, ...progress } = memory.progress;
      if (verdict.kind === 'pending') {
        const changed = pending?.reason !== verdict.reason || pending.generation !== generation;
        memory.progress = { ...progress, pending: { reason: verdict.reason, message: verdict.message, generation } };
        if (changed && verdict.reason === 'Infeasible') deps.infeasible?.('swap_limitation');
        if (changed)
          say(pod, verdict.reason === 'Deferred' ? 'ResizeDeferred' : 'ResizeInfeasible', generation, verdict.message);
      } else if (verdict.kind === 'accept') {
        memory.allocation = allocationOf(pod);
        memory.progress = { inProgress: { generation } };
        say(pod, 'ResizeStarted', generation);
      } else memory.progress = progress;
      return withAllocation(pod, memory.allocation);
    },

    allocated: (pod) => withAllocation(pod, memoryOf(pod).allocation),

    created(pod, container, id) {
      memoryOf(pod).actual.set(id, wantedResources(pod, container));
    },

    outstanding(pod, running, begun) {
      const memory = memoryOf(pod);
      const restart = new Map<string, string>();
      const wanted = wantedOfPod(pod, facts);
      let update = begun && !(memory.whole && equalActual(memory.whole, wanted));
      for (const { container, actual } of each(pod, running)) {
        const verdict = containerResize(pod, container, actual);
        if (verdict.kind === 'restart') restart.set(container.name, verdict.message);
        if (verdict.kind === 'update') update = true;
      }
      if (!update && restart.size === 0 && memory.progress.inProgress) {
        const { generation } = memory.progress.inProgress;
        const { inProgress: _done, ...rest } = memory.progress;
        memory.progress = rest;
        say(pod, 'ResizeCompleted', generation);
      }
      // What is to be restarted ends first: the rest is done before it begins anew, when nobody uses any more what is taken from it.
      return { update: update && restart.size === 0, restart };
    },

    async actuate(pod, running) {
      const memory = memoryOf(pod);
      // What is to be restarted gets its resources when it is created anew.
      const containers = each(pod, running).filter(
        ({ container, actual }) => containerResize(pod, container, actual).kind !== 'restart',
      );
      const generation = memory.progress.inProgress?.generation ?? pod.metadata.generation ?? 0;
      try {
        const current = await deps.cgroups.configOf(pod);
        const refused = refuseMemoryDecrease(pod, current, containers, await deps.memoryUse(pod), facts);
        if (refused !== undefined) throw new Error(refused);
        for (const step of resizeSteps(pod, current, containers, facts)) {
          if (step.kind === 'pod') {
            await deps.cgroups.update(pod, step.resources);
            continue;
          }
          const { now } = containers.find(({ container }) => container.name === step.name)!;
          await deps.runtime.updateContainerResources(now.id, step.resources);
          memory.actual.set(now.id, step.actual);
        }
        memory.whole = wantedOfPod(pod, facts);
        memory.progress = { ...memory.progress, inProgress: { generation } };
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        if (memory.progress.inProgress?.error !== message) say(pod, 'ResizeError', generation, message);
        memory.progress = { ...memory.progress, inProgress: { generation, error: message } };
        throw error;
      }
    },

    shown(pod, container, id) {
      const memory = memoryOf(pod);
      const allocated = memory.allocation.containers.get(container.name) ?? container.resources;
      const actual = memory.actual.get(id);
      const own = { ...container, resources: allocated ?? {} };
      const wanted = wantedResources(pod, own);
      return {
        ...(allocated?.requests ? { allocatedResources: allocated.requests } : {}),
        resources: actual && !equalActual(actual, wanted) ? statusResources(own, actual) : (allocated ?? {}),
      };
    },

    podShown: (pod) => podResourcesShown(pod, memoryOf(pod).whole ?? wantedOfPod(pod, facts)),

    unsettled(pod) {
      const memory = pods.get(uidOf(pod));
      if (!memory) return undefined;
      return memory.progress.inProgress || memory.progress.pending ? memory.allocation : undefined;
    },

    conditions: (podUid) => resizeConditions(pods.get(podUid)?.progress ?? {}),
    forget(podUid) {
      pods.delete(podUid);
    },
  };
}
