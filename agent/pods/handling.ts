// What the handlers of operations have in common: what they are handed, whom they tell, and how long after a failure comes the next try.
import { RuntimeError } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId } from '../../cri/types.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type EventRecorder, podTarget } from '../../kube/events.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import { describeError, type Log } from '../../lib/log.ts';
import type { Touched } from '../observe/observer.ts';
import type { PodMemory, Trouble } from './memory.ts';
import type { ObservedPod } from './observed.ts';
import type { Operation } from './operations.ts';
import type { PodParts } from './pod-parts.ts';

export interface ExecuteDeps {
  readonly runtime: Runtime;
  /** Undefined where the node runs without an API server. */
  readonly client: KubeClient | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
  readonly parts: PodParts;
  /** For metrics: a sandbox is about to be run, or could not be; or a container of it could not be started the first time. */
  count?(pod: Pod, what: 'begun' | 'failed'): void;
  /** A pod that was admitted cannot be run on this node after all; for a metric. */
  refused?(reason: string): void;
  /** A container could not be made or started; for a metric. */
  startFailed?(pod: Pod, container: string, reason: string, message: string): void;
}

export interface OperationContext {
  readonly pod: Pod;
  readonly memory: PodMemory;
  readonly observed: ObservedPod;
  /** Told of all that the operation has changed in the runtime. Untold, anything of the pod may have changed. */
  touched(what: Touched): void;
  /** True once the runtime shows that container ended; false where it does not come to that. Rejects when the signal aborts. */
  ended(id: ContainerId, signal: AbortSignal): Promise<boolean>;
}

export type Handler<Kind extends Operation['kind']> = (
  context: OperationContext,
  operation: Extract<Operation, { kind: Kind }>,
  signal: AbortSignal,
) => Promise<void>;

/** The handlers of some kinds of operations. */
export type Handlers<Kinds extends Operation['kind']> = { readonly [Kind in Kinds]: Handler<Kind> };

const fieldPathOf = (pod: Pod, name: string): string => {
  if (pod.spec.initContainers?.some((each) => each.name === name)) return `spec.initContainers{${name}}`;
  if (pod.spec.ephemeralContainers?.some((each) => each.name === name)) return `spec.ephemeralContainers{${name}}`;
  return `spec.containers{${name}}`;
};

/** So often a taken name is tried again before the next one is. */
export const takenTries = 3;

export const nameTaken = (error: unknown): boolean => error instanceof RuntimeError && error.code === 'already-exists';

/** The runtime's own words where there are any: they belong in a pod's status without our prefix. */
export const wordsOf = (error: unknown): string =>
  error instanceof RuntimeError ? error.detail : describeError(error);

/** Records an Event about the pod, or about the container of this name. */
export function tellOf({ events }: Pick<ExecuteDeps, 'events'>) {
  return (pod: Pod, name: string | undefined, type: 'Normal' | 'Warning', reason: string, message: string): void =>
    events.record(podTarget(pod, name === undefined ? undefined : fieldPathOf(pod, name)), type, reason, message);
}

/** The trouble that a failure of `what` is, with the time of the next try. */
export function troubleAfter(
  clock: Clock,
  { memory }: OperationContext,
  what: string,
  reason: string,
  message: string,
  before: Trouble | undefined,
  retryAfterMs?: number,
): Trouble {
  const nowMs = clock.now();
  const delayMs = retryAfterMs ?? memory.startDelays.next(what, nowMs);
  return {
    reason,
    message,
    sinceMs: before?.reason === reason ? before.sinceMs : nowMs,
    retryAtMs: nowMs + delayMs,
  };
}
