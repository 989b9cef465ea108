// Does what the plan asks, one handler for each kind of operation. Handlers never decide; what they learn they leave in the pod's memory.
import { isNotFound as runtimeNotFound, RuntimeError } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerConfig, ContainerId, SandboxConfig, SandboxStatus } from '../../cri/types.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isNotFound } from '../../kube/errors.ts';
import { type EventRecorder, podTarget } from '../../kube/events.ts';
import { resources } from '../../kube/resources.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { withTimeout } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import { describeError, type Log } from '../../lib/log.ts';
import type { Touched } from '../observe/observer.ts';
import { type ContainerMemory, memoryOf, type PodMemory, type ReadyImage, type Trouble } from './memory.ts';
import { containerById, type ObservedContainer, type ObservedPod } from './observed.ts';
import type { Operation } from './operations.ts';

/** A failure with a reason that belongs in the container's status. */
export interface ReasonedError extends Error {
  readonly reason: string;
  /** When to try again, where the thrower keeps a back-off of its own. */
  readonly retryAfterMs?: number | undefined;
}

const isReasoned = (error: unknown): error is ReasonedError =>
  error instanceof Error && typeof (error as { reason?: unknown }).reason === 'string';

export interface PodParts {
  /** Folders, /etc/hosts, the cgroup: what must be there before the sandbox is. */
  prepare(pod: Pod): Promise<void>;
  sandbox(pod: Pod, attempt: number): Promise<{ config: SandboxConfig; runtimeHandler: string }>;
  /** Rejects with a ReasonedError (CreateContainerConfigError) where the spec cannot be met. */
  container(
    request: {
      readonly pod: Pod;
      readonly container: Container;
      readonly attempt: number;
      readonly sandbox: SandboxStatus;
      readonly observed: ObservedPod;
      readonly image: ReadyImage;
    },
    signal: AbortSignal,
  ): Promise<{ config: ContainerConfig; sandboxConfig: SandboxConfig }>;
  /** Rejects with a ReasonedError (ErrImagePull, ImagePullBackOff, …). */
  image(pod: Pod, container: Container, signal: AbortSignal): Promise<ReadyImage>;
  setUpVolumes(pod: Pod, signal: AbortSignal): Promise<void>;
  tearDownVolumes(uid: string, signal: AbortSignal): Promise<void>;
  removeCgroup(uid: string, pod: Pod): Promise<void>;
  removeFiles(uid: string, pod: Pod): Promise<void>;
  hook(
    kind: 'postStart' | 'preStop',
    request: {
      readonly pod: Pod;
      readonly container: Container;
      readonly id: ContainerId;
      readonly podIp: string | undefined;
    },
    signal: AbortSignal,
  ): Promise<void>;
  /** A container was made with what is allocated to it. */
  created(pod: Pod, container: Container, id: ContainerId): void;
  /** It runs; its log is at this path. Never waits, never throws. */
  started(pod: Pod, container: Container, id: ContainerId, logPath: string): void;
  /** It is gone from the runtime; so goes its log. */
  removed(pod: Pod, container: ObservedContainer): Promise<void>;
  /** Brings cgroups and running containers to what is allocated to the pod. Rejects where it could not; to be called again. */
  resize(pod: Pod, observed: ObservedPod): Promise<void>;
}

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
  /** A container could not be made or started; for a metric. */
  startFailed?(pod: Pod, container: string, reason: string): void;
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

type Handler<Kind extends Operation['kind']> = (
  context: OperationContext,
  operation: Extract<Operation, { kind: Kind }>,
  signal: AbortSignal,
) => Promise<void>;

type Handlers = { readonly [Kind in Operation['kind']]: Handler<Kind> };

export interface Executor {
  /** Resolves when the operation ended, whatever its end; rejects only for operations that are tried again by the worker. */
  execute(context: OperationContext, operation: Operation, signal: AbortSignal): Promise<void>;
}

const findContainer = (pod: Pod, name: string): Container | undefined =>
  [...pod.spec.containers, ...(pod.spec.initContainers ?? []), ...(pod.spec.ephemeralContainers ?? [])].find(
    (container) => container.name === name,
  );

const fieldPathOf = (pod: Pod, name: string): string => {
  if (pod.spec.initContainers?.some((each) => each.name === name)) return `spec.initContainers{${name}}`;
  if (pod.spec.ephemeralContainers?.some((each) => each.name === name)) return `spec.ephemeralContainers{${name}}`;
  return `spec.containers{${name}}`;
};

/** So often a taken name is tried again before the next one is. */
const takenTries = 3;

const nameTaken = (error: unknown): boolean => error instanceof RuntimeError && error.code === 'already-exists';

/** The runtime's own words where there are any: they belong in a pod's status without our prefix. */
const wordsOf = (error: unknown): string => (error instanceof RuntimeError ? error.detail : describeError(error));

export function createExecutor(deps: ExecuteDeps): Executor {
  const { runtime, clock, events, parts } = deps;

  const tell = (
    pod: Pod,
    name: string | undefined,
    type: 'Normal' | 'Warning',
    reason: string,
    message: string,
  ): void =>
    events.record(podTarget(pod, name === undefined ? undefined : fieldPathOf(pod, name)), type, reason, message);

  const troubleAfter = (
    { memory }: OperationContext,
    what: string,
    reason: string,
    message: string,
    before: Trouble | undefined,
    retryAfterMs?: number,
  ): Trouble => {
    const nowMs = clock.now();
    const delayMs = retryAfterMs ?? memory.startDelays.next(what, nowMs);
    return {
      reason,
      message,
      sinceMs: before?.reason === reason ? before.sinceMs : nowMs,
      retryAtMs: nowMs + delayMs,
    };
  };

  const failStart = (
    context: OperationContext,
    known: ContainerMemory,
    name: string,
    reason: string,
    message: string,
  ): void => {
    known.failures++;
    if (known.failures === 1) deps.count?.(context.pod, 'failed');
    deps.startFailed?.(context.pod, name, reason);
    known.trouble = troubleAfter(context, name, reason, message, known.trouble);
    tell(context.pod, name, 'Warning', 'Failed', `Error: ${message}`);
  };

  const startContainer: Handler<'start-container'> = async (context, operation, signal) => {
    const { pod, memory, observed } = context;
    const { container: name, attempt, sandboxId } = operation;
    const container = findContainer(pod, name);
    const sandbox = observed.sandboxes.find((each) => each.id === sandboxId);
    const known = memoryOf(memory, name);
    if (!container || !sandbox || !known.image) return;
    let made: { config: ContainerConfig; sandboxConfig: SandboxConfig };
    try {
      made = await parts.container({ pod, container, attempt, sandbox, observed, image: known.image }, signal);
    } catch (error) {
      failStart(
        context,
        known,
        name,
        isReasoned(error) ? error.reason : 'CreateContainerConfigError',
        describeError(error),
      );
      return;
    }
    let id: ContainerId;
    try {
      id = await runtime.createContainer(sandboxId, made.config, made.sandboxConfig);
    } catch (error) {
      // The image may have gone between the look and the use.
      known.image = undefined;
      // A name that stays taken though the runtime shows nobody by it belongs to a call that hangs: the next attempt has another.
      if (nameTaken(error) && known.failures >= takenTries - 1) known.leastAttempt = attempt + 1;
      failStart(context, known, name, 'CreateContainerError', wordsOf(error));
      return;
    }
    if (operation.after) {
      const { id: before, lingers } = operation.after;
      if (lingers && !(await context.ended(before, signal)))
        throw new Error(
          `the runtime shows container ${before} running though its process has ended; ${id} is not started`,
        );
      if (memory.termination) return;
    }
    parts.created(pod, container, id);
    tell(pod, name, 'Normal', 'Created', 'Container created');
    try {
      await runtime.startContainer(id);
    } catch (error) {
      failStart(context, known, name, 'RunContainerError', wordsOf(error));
      return;
    }
    parts.started(pod, container, id, `${made.sandboxConfig.logDirectory}/${made.config.logPath}`);
    tell(pod, name, 'Normal', 'Started', 'Container started');
    known.trouble = undefined;
    known.failures = 0;
    // The next start looks at the image again, as its pull policy says.
    known.image = undefined;
    known.kill = undefined;
    context.memory.startDelays.reset(name);
    context.touched({ container: id, sandboxId });
  };

  const podIpOf = ({ observed }: OperationContext): string | undefined =>
    observed.sandboxes.find((sandbox) => sandbox.state === 'ready')?.ips[0];

  const handlers: Handlers = {
    'set-up-volumes': async (context, _operation, signal) => {
      const { pod, memory } = context;
      try {
        await parts.prepare(pod);
        await parts.setUpVolumes(pod, signal);
        memory.volumesUp = true;
        memory.volumeTrouble = undefined;
        memory.startDelays.reset(' volumes');
      } catch (error) {
        if (signal.aborted) return;
        const message = describeError(error);
        const reason = isReasoned(error) ? error.reason : 'FailedMount';
        memory.volumeTrouble = troubleAfter(context, ' volumes', reason, message, memory.volumeTrouble);
        tell(pod, undefined, 'Warning', reason, message);
      }
    },

    'run-sandbox': async (context, { attempt }, signal) => {
      const { pod, memory } = context;
      deps.count?.(pod, 'begun');
      try {
        if (attempt > 0)
          tell(pod, undefined, 'Normal', 'SandboxChanged', 'Pod sandbox changed, it will be killed and re-created.');
        await parts.prepare(pod);
        const { config, runtimeHandler } = await parts.sandbox(pod, attempt);
        const sandbox = await runtime.runSandbox(config, runtimeHandler, { beginUnless: signal });
        context.touched({ sandbox });
        memory.sandboxTrouble = undefined;
        memory.sandboxNames = { ...memory.sandboxNames, taken: 0 };
        memory.startDelays.reset(' sandbox');
      } catch (error) {
        // It had not begun, and is not wanted any more.
        if (signal.aborted && error === signal.reason) return;
        deps.count?.(pod, 'failed');
        const taken = nameTaken(error) ? memory.sandboxNames.taken + 1 : 0;
        memory.sandboxNames = {
          least: taken >= takenTries ? attempt + 1 : memory.sandboxNames.least,
          taken: taken >= takenTries ? 0 : taken,
        };
        const message = `Failed to create pod sandbox: ${error instanceof RuntimeError ? `rpc error: ${error.detail}` : describeError(error)}`;
        memory.sandboxTrouble = troubleAfter(
          context,
          ' sandbox',
          'FailedCreatePodSandBox',
          message,
          memory.sandboxTrouble,
        );
        tell(pod, undefined, 'Warning', 'FailedCreatePodSandBox', message);
      }
    },

    'pull-image': async (context, { container: name }, signal) => {
      const { pod, memory } = context;
      const container = findContainer(pod, name);
      if (!container) return;
      const known = memoryOf(memory, name);
      try {
        known.image = await parts.image(pod, container, signal);
        if (known.trouble && /Image|Inspect|Registry/.test(known.trouble.reason)) known.trouble = undefined;
      } catch (error) {
        if (signal.aborted) return;
        known.trouble = troubleAfter(
          context,
          name,
          isReasoned(error) ? error.reason : 'ErrImagePull',
          describeError(error),
          known.trouble,
          isReasoned(error) ? error.retryAfterMs : undefined,
        );
      }
    },

    'start-container': startContainer,

    'run-post-start': async (context, { container: name, id }, signal) => {
      const { pod, memory } = context;
      const container = findContainer(pod, name);
      const known = memoryOf(memory, name);
      if (!container) return;
      try {
        await parts.hook('postStart', { pod, container, id, podIp: podIpOf(context) }, signal);
        known.postStartDone = id;
      } catch (error) {
        if (signal.aborted) return;
        deps.log.warn('a postStart hook failed; the container is stopped and its restart policy decides', {
          pod: `${pod.metadata.namespace}/${pod.metadata.name}`,
          container: name,
          error,
        });
        known.postStartFailed = id;
        known.trouble = {
          reason: 'PostStartHookError',
          message: describeError(error),
          sinceMs: clock.now(),
          retryAtMs: clock.now(),
        };
      }
    },

    'run-pre-stop': async (context, { container: name, id, deadlineMs }, signal) => {
      const { pod, memory } = context;
      const container = findContainer(pod, name);
      const known = memoryOf(memory, name);
      if (!container) return;
      try {
        await withTimeout(clock, 'preStop hook', Math.max(1, deadlineMs - clock.now()), signal, (inner) =>
          parts.hook('preStop', { pod, container, id, podIp: podIpOf(context) }, inner),
        );
      } catch (error) {
        if (!signal.aborted) {
          deps.log.info('a preStop hook failed; the container is stopped without it', {
            pod: `${pod.metadata.namespace}/${pod.metadata.name}`,
            container: name,
            error,
          });
        }
      }
      known.preStopDone = id;
    },

    'stop-container': async ({ observed, touched }, { id, graceSeconds }) => {
      await runtime.stopContainer(id, graceSeconds, { timeoutMs: graceSeconds * 1000 + 120_000 });
      const sandboxId = containerById(observed, id)?.sandboxId;
      if (sandboxId !== undefined) touched({ container: id, sandboxId });
    },

    'remove-container': async ({ pod, observed }, { id, keepLog }) => {
      await runtime.removeContainer(id);
      const container = containerById(observed, id);
      // What never ran has no log, and the next try may write one by the same name.
      if (container?.state === 'exited' && !keepLog) await parts.removed(pod, container);
    },

    'stop-sandbox': async ({ memory, observed, touched }, { id }) => {
      try {
        await runtime.stopSandbox(id);
      } catch (error) {
        if (!runtimeNotFound(error)) throw error;
      }
      memory.stoppedSandboxes.add(id);
      // What still ran in it was ended with it.
      if (!observed.containers.some((each) => each.sandboxId === id && each.state !== 'exited'))
        touched({ sandbox: id });
    },

    'remove-sandbox': async (_context, { id }) => {
      await runtime.removeSandbox(id);
    },

    'release-volumes': async ({ pod, memory }, _operation, signal) => {
      await parts.tearDownVolumes(pod.metadata.uid ?? '', signal);
      memory.volumesUp = false;
      memory.released = true;
    },

    'remove-cgroup': async ({ pod, memory }) => {
      await parts.removeCgroup(pod.metadata.uid ?? '', pod);
      memory.cgroupRemoved = true;
    },

    'remove-files': async ({ pod, memory }) => {
      await parts.removeFiles(pod.metadata.uid ?? '', pod);
      memory.filesRemoved = true;
    },

    'resize-pod': ({ pod, observed }) => parts.resize(pod, observed),

    'confirm-deletion': async ({ pod, memory }, _operation, signal) => {
      const { name, namespace = 'default', uid } = pod.metadata;
      try {
        await deps.client?.delete(
          resources.pods,
          { namespace, name },
          { gracePeriodSeconds: 0, signal, ...(uid === undefined ? {} : { preconditions: { uid } }) },
        );
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error;
      }
      memory.deletionConfirmed = true;
    },
  };

  return {
    execute: <Kind extends Operation['kind']>(
      context: OperationContext,
      operation: Extract<Operation, { kind: Kind }>,
      signal: AbortSignal,
    ) => (handlers[operation.kind as Kind] as Handler<Kind>)(context, operation, signal),
  };
}
