// In-place resize, carried out: remembers what is allocated to each pod and what its containers have, and brings the two together. The
// pod's worker is the only caller for its pod. The decisions are in resize.ts, the order in resize-steps.ts.
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId, LinuxResources } from '../../cri/types.ts';
import { type EventRecorder, podTarget } from '../../kube/events.ts';
import type { Condition, ResourceList } from '../../kube/types/meta.ts';
import type { Container, Pod, ResourceRequirements } from '../../kube/types/pod.ts';
import { units } from './amounts.ts';
import type { PodCgroupFacts, ResourceFacts } from './linux-resources.ts';
import type { PodCgroups } from './pod-cgroups.ts';
import {
  type ActualResources,
  type Allocation,
  allocationFromStatus,
  allocationOf,
  containerResize,
  judgeResize,
  observedResources,
  resizable,
  sameActual,
  wantedResources,
  withAllocation,
} from './resize.ts';
import {
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
  /** A container was created with what is allocated to it. `pod` is review()'s. */
  created(pod: Pod, container: Container, id: ContainerId): void;
  /** What is to be done for the containers that run. `pod` is review()'s. */
  outstanding(
    pod: Pod,
    running: readonly RunningNow[],
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
}

const uidOf = (pod: Pod): string => pod.metadata.uid ?? '';

export function createResizer(deps: ResizerDeps, facts: ResourceFacts & PodCgroupFacts): Resizer {
  const pods = new Map<string, Memory>();

  const memoryOf = (pod: Pod): Memory => {
    const known = pods.get(uidOf(pod));
    if (known) return known;
    const fresh: Memory = {
      allocation: deps.remembered?.(uidOf(pod)) ?? allocationFromStatus(pod),
      progress: progressShown(pod.status?.conditions),
      actual: new Map(),
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

  const actualOf = (memory: Memory, container: Container, now: RunningNow): ActualResources | undefined =>
    memory.actual.get(now.id) ??
    // After a restart of the agent: the memory request, which the kernel does not know, was as allocated.
    observedResources(now.resources, units(memory.allocation.get(container.name)?.requests?.memory));

  const each = (pod: Pod, running: readonly RunningNow[]) =>
    resizable(pod).flatMap((container) => {
      const now = running.find((one) => one.name === container.name);
      const actual = now && actualOf(memoryOf(pod), container, now);
      return now && actual ? [{ container, now, actual }] : [];
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
        if (changed)
          say(pod, verdict.reason === 'Deferred' ? 'ResizeDeferred' : 'ResizeInfeasible', generation, verdict.message);
      } else if (verdict.kind === 'accept') {
        memory.allocation = allocationOf(pod);
        memory.progress = { inProgress: { generation } };
        say(pod, 'ResizeStarted', generation);
      } else memory.progress = progress;
      return withAllocation(pod, memory.allocation);
    },

    created(pod, container, id) {
      memoryOf(pod).actual.set(id, wantedResources(pod, container));
    },

    outstanding(pod, running) {
      const memory = memoryOf(pod);
      const restart = new Map<string, string>();
      let update = false;
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
      return { update, restart };
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
      const allocated = memory.allocation.get(container.name) ?? container.resources;
      const actual = memory.actual.get(id);
      const own = { ...container, resources: allocated ?? {} };
      const wanted = wantedResources(pod, own);
      return {
        ...(allocated?.requests ? { allocatedResources: allocated.requests } : {}),
        resources: actual && !sameActual(actual, wanted) ? statusResources(own, actual) : (allocated ?? {}),
      };
    },

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
