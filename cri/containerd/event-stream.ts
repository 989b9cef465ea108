// What happens in the runtime, from whichever of three sources it has:
//
//   CRI's GetContainerEvents ──unimplemented──▶ containerd's own event service ──unimplemented──▶ `lost` every second
//
// A broken stream is opened again from the first source on (the runtime may have been upgraded), and says `lost` when it stands.
import { describeError, type Log } from '../../lib/log.ts';
import type { Clock } from '../../lib/clock.ts';
import { isNotFound, isUnimplemented } from '../errors.ts';
import type {
  ContainerEvent,
  ContainerId,
  ContainerInspection,
  EndingEvent,
  RuntimeEvent,
  SandboxId,
} from '../types.ts';
import type { Connection } from './connection.ts';
import { ContainerSubject, Envelope, SubscribeRequest, TaskExit } from './gen/containerd-events.ts';
import { inspectionFromWire } from './from-wire.ts';
import * as wire from './gen/cri.ts';
import { followedEvents } from '../event-buffer.ts';

export interface EventStreamDeps {
  readonly connection: Connection;
  readonly clock: Clock;
  readonly log: Log;
}

type Emit = (event: RuntimeEvent) => void;

const podUidLabel = 'io.kubernetes.pod.uid';
const service = '/runtime.v1.RuntimeService';
const subscribe = '/containerd.services.events.v1.Events/Subscribe';
const relistMs = 1_000;
/** How long the slowest source is used before the better ones are tried again. */
const relistsBeforeRetry = 30;

const criKinds: Record<wire.ContainerEventType, 'created' | 'started' | 'stopped' | 'deleted'> = {
  [wire.ContainerEventType.CONTAINER_CREATED_EVENT]: 'created',
  [wire.ContainerEventType.CONTAINER_STARTED_EVENT]: 'started',
  [wire.ContainerEventType.CONTAINER_STOPPED_EVENT]: 'stopped',
  [wire.ContainerEventType.CONTAINER_DELETED_EVENT]: 'deleted',
};

export const runtimeEvents = (deps: EventStreamDeps, parent: AbortSignal): AsyncIterable<RuntimeEvent> =>
  followedEvents((push, signal) => follow(deps, push, signal), parent);

/** Runs until the signal aborts; never rejects. */
async function follow(deps: EventStreamDeps, emit: Emit, signal: AbortSignal): Promise<void> {
  const { clock, log } = deps;
  const sources = [fromCri, fromContainerd, fromRelisting];
  let source = 0;
  let delayMs = 100;
  let saidSo = false;
  const opened: Emit = (event) => {
    delayMs = 100;
    saidSo = false;
    emit(event);
  };
  while (!signal.aborted) {
    try {
      await sources[source]!(deps, opened, signal);
      source = 0;
    } catch (error) {
      if (signal.aborted) return;
      if (isUnimplemented(error) && source < sources.length - 1) {
        source++;
        continue;
      }
      source = 0;
      if (!saidSo)
        log.warn('the runtime’s event stream broke; it is opened again until it stands', {
          error: describeError(error),
        });
      saidSo = true;
    }
    await clock.sleep(delayMs, signal).catch(() => undefined);
    delayMs = Math.min(1_000, delayMs * 2);
  }
}

/**
 * A server accepts a stream without a word, so a call made after it stands for its answer: what the runtime did before that call
 * returned may be missing from the stream, what it does afterwards is not.
 */
async function* opening<T>(deps: EventStreamDeps, items: AsyncIterable<T>, onOpen: () => void): AsyncIterable<T> {
  const iterator = items[Symbol.asyncIterator]();
  let first = iterator.next();
  const accepted = deps.connection
    .unary(`${service}/Version`, wire.VersionRequest, wire.VersionResponse, { version: 'v1' }, { timeoutMs: 30_000 })
    .then(() => 'accepted' as const);
  accepted.catch(() => undefined);
  first.catch(() => undefined);
  try {
    const winner = await Promise.race([first.then(() => 'item' as const), accepted]);
    if (winner === 'item') await accepted;
    onOpen();
    for (;;) {
      const result = await first;
      if (result.done) return;
      yield result.value;
      first = iterator.next();
    }
  } finally {
    await iterator.return?.();
  }
}

/** The stream's own failure in place of silence: an ended stream is a broken one. */
async function fromCri(deps: EventStreamDeps, emit: Emit, parent: AbortSignal): Promise<void> {
  const own = new AbortController();
  const signal = AbortSignal.any([parent, own.signal]);
  let endings: Promise<void> | undefined;
  const stands = (): void => {
    emit({ kind: 'lost' });
    endings = tellBeside(deps, emit, signal);
  };
  try {
    await readCri(deps, emit, stands, signal);
  } finally {
    own.abort();
    await endings;
  }
}

async function readCri(deps: EventStreamDeps, emit: Emit, stands: () => void, signal: AbortSignal): Promise<void> {
  const items = deps.connection.stream(
    `${service}/GetContainerEvents`,
    wire.Empty,
    wire.ContainerEventResponse,
    {},
    signal,
  );
  for await (const item of opening(deps, items, stands)) emit(eventOfCri(item));
}

/** As the CRI tells it; the pod is known by the label that a kubelet puts on what it makes: others' sandboxes have a uid too, and are none of ours. */
export function eventOfCri(item: wire.ContainerEventResponse): ContainerEvent {
  const kind = criKinds[item.containerEventType] ?? 'stopped';
  const sandbox = item.podSandboxStatus;
  const status = kind === 'created' ? undefined : item.containersStatuses.find(({ id }) => id === item.containerId);
  return {
    kind,
    containerId: item.containerId,
    sandboxId: sandbox && sandbox.id !== '' ? (sandbox.id as SandboxId) : undefined,
    podUid: sandbox?.labels[podUidLabel] || undefined,
    ...(status ? { inspection: inspectionFromWire(status, {}) } : {}),
  };
}

const imagesTold: RuntimeEvent = { kind: 'images', told: true };
const imagesUntold: RuntimeEvent = { kind: 'images', told: false };
const isAboutImages = ({ topic }: Envelope): boolean => topic.startsWith('/images/');

/** What containerd tells and its CRI does not, or later: exits, and images. Best effort: a runtime without that service says nothing here. */
async function tellBeside(deps: EventStreamDeps, emit: Emit, signal: AbortSignal): Promise<void> {
  const { connection, clock } = deps;
  while (!signal.aborted) {
    try {
      const filters = ['namespace==k8s.io,topic=="/tasks/exit"', 'namespace==k8s.io,topic~="^/images/"'];
      const items = connection.stream(subscribe, SubscribeRequest, Envelope, { filters }, signal);
      for await (const envelope of opening(deps, items, () => emit(imagesTold)))
        if (isAboutImages(envelope)) emit(imagesTold);
        else if (taskOf(envelope) !== undefined) emit(endingOf(envelope));
    } catch (error) {
      if (isUnimplemented(error)) return;
    } finally {
      emit(imagesUntold);
    }
    await clock.sleep(1_000, signal).catch(() => undefined);
  }
}

async function fromContainerd(deps: EventStreamDeps, emit: Emit, signal: AbortSignal): Promise<void> {
  const items = deps.connection.stream(
    subscribe,
    SubscribeRequest,
    Envelope,
    { filters: ['namespace==k8s.io,topic~="^/(tasks|containers|images)/"'] },
    signal,
  );
  // Exits that the CRI may not have noted yet; it does so when it has deleted the task.
  const exits = new Map<string, () => void>();
  const hold = async (id: string): Promise<void> => {
    const deleted = new Promise<void>((resolve) => exits.set(id, resolve));
    const event = await settled(deps, id, deleted, signal);
    exits.delete(id);
    emit(event);
  };
  const stands = (): void => {
    emit({ kind: 'lost' });
    emit(imagesTold);
  };
  try {
    for await (const envelope of opening(deps, items, stands)) {
      if (envelope.topic === '/tasks/delete') exits.get(taskOf(envelope) ?? '')?.();
      if (isAboutImages(envelope)) emit(imagesTold);
      const event = eventOfEnvelope(envelope);
      if (!event) continue;
      if (event.kind !== 'stopped') {
        emit(event);
        continue;
      }
      emit(endingOf(envelope));
      void hold(event.containerId);
    }
  } finally {
    emit(imagesUntold);
  }
}

/** The container whose task, not an exec in it, the event is about. */
function taskOf(envelope: Envelope): string | undefined {
  const { containerId, id } = TaskExit.decode(envelope.event?.value ?? new Uint8Array());
  return id === containerId || id === '' ? containerId : undefined;
}

/** What an exit says of itself, while the CRI still tidies up after it. */
export function endingOf(envelope: Envelope): EndingEvent {
  const { containerId, exitStatus, exitedAt } = TaskExit.decode(envelope.event?.value ?? new Uint8Array());
  const finishedAtMs = exitedAt ? Number(exitedAt.seconds) * 1000 + Math.floor(exitedAt.nanos / 1e6) : 0;
  return { kind: 'ending', containerId, exitCode: exitStatus, finishedAtMs };
}

/** Undefined for what says nothing of a container's life: an exec that ended, a checkpoint, a paused task. */
export function eventOfEnvelope(envelope: Envelope): ContainerEvent | undefined {
  const bytes = envelope.event?.value ?? new Uint8Array();
  const about = (kind: ContainerEvent['kind']): ContainerEvent => ({
    kind,
    containerId: ContainerSubject.decode(bytes).containerId,
    sandboxId: undefined,
    podUid: undefined,
  });
  switch (envelope.topic) {
    case '/tasks/exit':
      return taskOf(envelope) === undefined ? undefined : about('stopped');
    case '/tasks/start':
      return about('started');
    case '/tasks/oom':
      return about('oom');
    case '/containers/create':
      return about('created');
    case '/containers/delete':
      return about('deleted');
    default:
      return undefined;
  }
}

/** How often to look once the task is deleted: the CRI notes the end some 30 ms later, and each look takes time from what it does meanwhile. */
const settleDelaysMs = [20, 10, 10, 15, 25, 40, 80, 160, 320];
/** How long the deletion of the task is waited for. It has no event where the shim is gone. */
const deletionMs = 300;

/**
 * containerd tells of an exit before its CRI has noted it, and who asks at once is told `running`. So the event is held until the CRI
 * agrees, or about a second has passed. It also learns the pod that way.
 */
async function settled(
  deps: EventStreamDeps,
  id: string,
  deleted: Promise<void>,
  signal: AbortSignal,
): Promise<ContainerEvent> {
  const event: ContainerEvent = { kind: 'stopped', containerId: id, sandboxId: undefined, podUid: undefined };
  const timer = new AbortController();
  const late = deps.clock.sleep(deletionMs, AbortSignal.any([signal, timer.signal])).catch(() => undefined);
  await Promise.race([deleted, late]);
  timer.abort();
  try {
    for (const delayMs of settleDelaysMs) {
      if (delayMs > 0) await deps.clock.sleep(delayMs, signal);
      const inspection = await ended(deps, id, signal);
      if (inspection) return { ...event, podUid: inspection.labels[podUidLabel] || undefined, inspection };
    }
    return event;
  } catch (error) {
    return isNotFound(error) ? sandboxSettled(deps, event, signal).catch(() => event) : event;
  }
}

/** A container that the CRI shows as ended; undefined while it runs. */
async function ended(deps: EventStreamDeps, id: string, signal: AbortSignal): Promise<ContainerInspection | undefined> {
  const { status, info } = await deps.connection.unary(
    `${service}/ContainerStatus`,
    wire.ContainerStatusRequest,
    wire.ContainerStatusResponse,
    { containerId: id as ContainerId },
    { timeoutMs: 5_000, signal },
  );
  if (!status || status.state === wire.ContainerState.CONTAINER_RUNNING) return undefined;
  return inspectionFromWire(status, info);
}

async function sandboxSettled(
  deps: EventStreamDeps,
  event: ContainerEvent,
  signal: AbortSignal,
): Promise<ContainerEvent> {
  const id = event.containerId;
  for (const delayMs of settleDelaysMs) {
    if (delayMs > 0) await deps.clock.sleep(delayMs, signal);
    const { status } = await deps.connection.unary(
      `${service}/PodSandboxStatus`,
      wire.PodSandboxStatusRequest,
      wire.PodSandboxStatusResponse,
      { podSandboxId: id },
      { timeoutMs: 5_000, signal },
    );
    if (status && status.state === wire.PodSandboxState.SANDBOX_NOTREADY)
      return { ...event, sandboxId: id as SandboxId, podUid: status.labels[podUidLabel] || undefined };
  }
  return { ...event, sandboxId: id as SandboxId };
}

/** No stream at all: the listener is made to look every second. */
async function fromRelisting(deps: EventStreamDeps, emit: Emit, signal: AbortSignal): Promise<void> {
  for (let count = 0; count < relistsBeforeRetry && !signal.aborted; count++) {
    emit({ kind: 'lost' });
    await deps.clock.sleep(relistMs, signal);
  }
}
