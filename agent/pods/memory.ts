// What a pod's worker remembers between two looks at the world: what was tried, how it ended, and when to try again. One writer: the
// worker; the plan reads it.
import { type Backoff, createBackoff } from '../../lib/backoff.ts';
import type { ContainerId } from '../../cri/types.ts';
import type { PodStatus } from '../../kube/types/pod.ts';
import type { Operation, OperationKey } from './operations.ts';

/** Why a container is not there yet, in Kubernetes' own reasons (ErrImagePull, CreateContainerConfigError, …). */
export interface Trouble {
  readonly reason: string;
  readonly message: string;
  readonly sinceMs: number;
  /** Not tried again before. */
  readonly retryAtMs: number;
}

/** How often a container was restarted of late. Starts at 0, then 10 s doubling to the maximum. */
export interface RestartBackoff {
  /** The delay in force after the last exit, in milliseconds. */
  delayMs: number;
  /** Which exit it was counted for. */
  exitId: ContainerId;
}

export interface ReadyImage {
  readonly imageRef: string;
  /** The image's own user, for runAsNonRoot. */
  readonly uid: number | undefined;
  readonly username: string;
}

export interface ContainerMemory {
  /** How the last try to pull, create or start it failed. */
  trouble: Trouble | undefined;
  /** Its image, found or pulled for the start that comes next. */
  image: ReadyImage | undefined;
  backoff: RestartBackoff | undefined;
  /** Containers whose postStart hook is done, or that have none. */
  postStartDone: ContainerId | undefined;
  postStartFailed: ContainerId | undefined;
  preStopDone: ContainerId | undefined;
  /** A container that is being stopped though the pod goes on: it failed a probe, or its definition changed. */
  kill: Kill | undefined;
  /** Tries in a row that did not bring up a container, for the back-off of start errors. */
  failures: number;
  /** Attempts below this one have names that the runtime keeps for a call that never ended. */
  leastAttempt: number;
}

export interface Kill {
  readonly id: ContainerId;
  readonly sinceMs: number;
  readonly graceSeconds: number;
  readonly message: string;
  /** Start it again whatever the restart policy says and without back-off: its definition changed. */
  readonly restartAnyway: boolean;
  /** It runs again whatever it ends with, after its back-off: it failed a probe, and the policy is not Never. */
  readonly again?: boolean;
  /** It is restarted to get other resources. */
  readonly forResize?: boolean;
}

export interface Retry {
  readonly failures: number;
  readonly retryAtMs: number;
  readonly message: string;
  /** What was warned of last, so that it is not told again. */
  readonly told?: string | undefined;
}

export type TerminationCause = 'deleted' | 'removed' | 'completed' | 'deadline' | 'evicted' | 'rejected';

export interface Termination {
  readonly cause: TerminationCause;
  readonly sinceMs: number;
  /** How long the containers have from `sinceMs` on; it only ever shrinks. */
  readonly graceSeconds: number;
  /** Overrides the pod's phase. */
  readonly status?: { readonly reason: string; readonly message: string };
  /** A DisruptionTarget condition to set. */
  readonly disruption?: { readonly reason: string; readonly message: string };
}

export interface PodMemory {
  readonly containers: Map<string, ContainerMemory>;
  startTimeMs: number | undefined;
  /** Undefined until it was looked at. */
  admission:
    | { readonly admitted: true }
    | { readonly admitted: false; readonly reason: string; readonly message: string }
    | undefined;
  /** A container ended by a rule that restarts all of the pod: they are removed, and then it begins anew in its sandbox. */
  restartAll: boolean;
  volumesUp: boolean;
  volumeTrouble: Trouble | undefined;
  sandboxTrouble: Trouble | undefined;
  /** As leastAttempt of containers, and how often in a row a name was found taken. */
  sandboxNames: { least: number; taken: number };
  termination: Termination | undefined;
  /** Volumes are released. */
  released: boolean;
  cgroupRemoved: boolean;
  filesRemoved: boolean;
  /** The disk is short: what the runtime keeps of the pod after its end goes before the pod does. */
  letGo: boolean;
  /** The API has confirmed the final deletion, or never knew the pod. */
  deletionConfirmed: boolean;
  /** The status last computed, whether or not it has been written. */
  status: PodStatus | undefined;
  /** The API is known to show a terminal phase, with the final container states. */
  terminalStatusWritten: boolean;
  /** Sandboxes that were stopped by us: the runtime may show them ready for a moment longer. */
  readonly stoppedSandboxes: Set<string>;
  readonly running: Map<OperationKey, RunningOperation>;
  /** Operations that failed and are tried again later. */
  readonly retries: Map<OperationKey, Retry>;
  /** How long until each is. */
  readonly retryDelays: Backoff<OperationKey>;
  /** The same for what does not fail as an operation: the start of a container by its name, or ` sandbox`, ` volumes`. */
  readonly startDelays: Backoff;
  /** Moments for `stevedore why`. */
  readonly timeline: { readonly what: string; readonly atMs: number; readonly tookMs?: number }[];
}

export interface RunningOperation {
  readonly operation: Operation;
  readonly startedAtMs: number;
  readonly abort: AbortController;
}

export function createMemory(): PodMemory {
  return {
    containers: new Map(),
    startTimeMs: undefined,
    admission: undefined,
    restartAll: false,
    volumesUp: false,
    volumeTrouble: undefined,
    sandboxTrouble: undefined,
    sandboxNames: { least: 0, taken: 0 },
    termination: undefined,
    released: false,
    cgroupRemoved: false,
    filesRemoved: false,
    letGo: false,
    deletionConfirmed: false,
    status: undefined,
    terminalStatusWritten: false,
    stoppedSandboxes: new Set(),
    running: new Map(),
    retries: new Map(),
    retryDelays: createBackoff({ initialMs: 200, maxMs: 30_000 }),
    startDelays: createBackoff({ initialMs: 1_000, maxMs: 60_000 }),
    timeline: [],
  };
}

export function memoryOf(memory: PodMemory, container: string): ContainerMemory {
  const known = memory.containers.get(container);
  if (known) return known;
  const fresh: ContainerMemory = {
    trouble: undefined,
    image: undefined,
    backoff: undefined,
    postStartDone: undefined,
    postStartFailed: undefined,
    preStopDone: undefined,
    kill: undefined,
    failures: 0,
    leastAttempt: 0,
  };
  memory.containers.set(container, fresh);
  return fresh;
}
