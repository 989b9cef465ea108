// Docker's events as hints. A broken stream is opened again until it stands, and then says `lost`.
import type { Clock } from '../../lib/clock.ts';
import { describeError, type Log } from '../../lib/log.ts';
import { followedEvents } from '../event-buffer.ts';
import type { ContainerEvent, RuntimeEvent, SandboxId } from '../types.ts';
import { abortable, type DockerConnection } from './connection.ts';
import { kindLabel, podUidLabel, sandboxIdLabel } from './labels.ts';

export interface DockerEventsDeps {
  readonly connection: DockerConnection;
  readonly clock: Clock;
  readonly log: Log;
  /** Called before a `stopped` is passed on: what the container said is in its file then. */
  settled(id: string): Promise<void>;
}

const kinds: Readonly<Record<string, ContainerEvent['kind']>> = {
  create: 'created',
  start: 'started',
  die: 'stopped',
  destroy: 'deleted',
  oom: 'oom',
};

/** Undefined for what is not about a sandbox or container of ours, or says nothing of its life. */
export function eventOf(value: unknown): ContainerEvent | undefined {
  const { Type, Action, Actor } = value as {
    Type?: string;
    Action?: string;
    Actor?: { ID?: string; Attributes?: Readonly<Record<string, string>> };
  };
  const kind = kinds[Action ?? ''];
  const labels = Actor?.Attributes ?? {};
  const id = Actor?.ID;
  if (Type !== 'container' || kind === undefined || id === undefined || labels[kindLabel] === undefined)
    return undefined;
  const sandboxId = labels[kindLabel] === 'sandbox' ? id : labels[sandboxIdLabel];
  return { kind, containerId: id, sandboxId: sandboxId as SandboxId | undefined, podUid: labels[podUidLabel] };
}

export const dockerEvents = (deps: DockerEventsDeps, parent: AbortSignal): AsyncIterable<RuntimeEvent> =>
  followedEvents((push, signal) => follow(deps, push, signal), parent);

async function follow(deps: DockerEventsDeps, emit: (event: RuntimeEvent) => void, signal: AbortSignal): Promise<void> {
  let delayMs = 100;
  let saidSo = false;
  while (!signal.aborted) {
    try {
      await readOnce(deps, emit, signal, () => {
        delayMs = 100;
        saidSo = false;
      });
    } catch (error) {
      if (signal.aborted) return;
      if (!saidSo)
        deps.log.warn('Docker’s event stream broke; it is opened again until it stands', {
          error: describeError(error),
        });
      saidSo = true;
    }
    await deps.clock.sleep(delayMs, signal).catch(() => undefined);
    delayMs = Math.min(1_000, delayMs * 2);
  }
}

async function readOnce(
  deps: DockerEventsDeps,
  emit: (event: RuntimeEvent) => void,
  signal: AbortSignal,
  stands: () => void,
): Promise<void> {
  const { connection, clock } = deps;
  // The answer's head is sent a moment before the daemon listens to itself; asked since a little before, it tells that moment too.
  const since = Math.floor(clock.now() / 1000);
  const stream = await connection.call('Events', { signal }, 0, (abortSignal) =>
    connection.docker.getEvents(
      abortable(abortSignal, { filters: { type: ['container' as const], label: [kindLabel] }, since }),
    ),
  );
  stands();
  emit({ kind: 'lost' });
  let rest = '';
  for await (const chunk of stream) {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line.trim() === '') continue;
      const event = eventOf(JSON.parse(line));
      if (!event) continue;
      if (event.kind === 'stopped') void deps.settled(event.containerId).then(() => emit(event));
      else emit(event);
    }
  }
}
