// Copies the output of running containers from Docker's log into files of CRI's format. One follower for each container, from its start to
// the last entry after its end; a broken connection or a restart of either daemon goes on where the file ends.
import { join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import { describeError, type Log } from '../../lib/log.ts';
import { isNotFound, RuntimeError } from '../errors.ts';
import type { DockerConnection } from './connection.ts';
import { createEntryParser } from './log-entries.ts';
import { forgetLog, type LogFile, logFinished, openLogFile } from './log-file.ts';
import { sinceOf } from './log-position.ts';

export interface LogsDeps {
  readonly connection: DockerConnection;
  readonly clock: Clock;
  readonly log: Log;
}

export interface LogSource {
  readonly id: string;
  readonly path: string;
  readonly tty: boolean;
}

export interface ContainerLogs {
  /** Does nothing where the container is followed already, has no path, or was copied to its end. */
  follow(source: LogSource): Promise<void>;
  /** Resolves when all that a stopped container said is in its file, at most after `timeoutMs`. */
  drained(id: string, timeoutMs: number): Promise<void>;
  /** Rejects with `invalid` where the container is not followed. */
  reopen(id: string): Promise<void>;
  /** Stops following and forgets; the file stays. */
  forget(id: string): Promise<void>;
  close(): Promise<void>;
}

interface Follower {
  readonly file: Promise<LogFile>;
  readonly ended: Promise<void>;
  stop(): void;
}

export function createContainerLogs(deps: LogsDeps, stateDir: string): ContainerLogs {
  const followers = new Map<string, Follower>();
  const cursorOf = (id: string): string => join(stateDir, 'logs', `${id}.json`);
  let closed = false;

  const start = (source: LogSource): Follower => {
    const controller = new AbortController();
    const file = openLogFile(source.path, cursorOf(source.id));
    const ended = file
      .then(async (opened) => {
        const finished = await copyToEnd(deps, source, opened, controller.signal);
        await opened.close(finished);
      })
      .catch((error: unknown) => {
        deps.log.error('a container’s log is no longer written; the container runs on', {
          container: source.id,
          file: source.path,
          error: describeError(error),
        });
      })
      .finally(() => followers.delete(source.id));
    return { file, ended, stop: () => controller.abort() };
  };

  return {
    async follow(source) {
      if (closed || source.path === '' || followers.has(source.id)) return;
      if (await logFinished(cursorOf(source.id))) return;
      if (followers.has(source.id)) return;
      const follower = start(source);
      followers.set(source.id, follower);
      await follower.file.catch(() => undefined);
    },
    async drained(id, timeoutMs) {
      const follower = followers.get(id);
      if (!follower) return;
      const waiting = new AbortController();
      await Promise.race([follower.ended, deps.clock.sleep(timeoutMs, waiting.signal).catch(() => undefined)]);
      waiting.abort();
    },
    async reopen(id) {
      const follower = followers.get(id);
      if (!follower) throw new RuntimeError('invalid', 'ReopenContainerLog', `container ${id} is not running`);
      try {
        await (await follower.file).reopen();
      } catch (error) {
        throw new RuntimeError('unknown', 'ReopenContainerLog', describeError(error), error);
      }
    },
    async forget(id) {
      const follower = followers.get(id);
      follower?.stop();
      await follower?.ended;
      await forgetLog(cursorOf(id));
    },
    async close() {
      closed = true;
      const all = [...followers.values()];
      for (const follower of all) follower.stop();
      await Promise.all(all.map(({ ended }) => ended));
    },
  };
}

/** A stream that ended so often while its container ran is one that Docker does not follow. */
const unfollowed = 10;

/** Resolves with whether the container ended and all of it was copied. */
async function copyToEnd(deps: LogsDeps, source: LogSource, file: LogFile, signal: AbortSignal): Promise<boolean> {
  let delayMs = 50;
  let ends = 0;
  while (!signal.aborted) {
    try {
      // What a container says just before its end may come after the stream's; so an ended one is read once more.
      const running = await isRunning(deps, source.id, signal);
      const taken = await copyOnce(deps, source, file, signal);
      if (!running) return true;
      if (taken > 0) delayMs = 50;
      ends = taken > 0 ? 0 : ends + 1;
      // Docker 20.10 takes a container up without its output where a command was about to start in it just when the engine went away.
      if (ends === unfollowed)
        deps.log.warn(
          'Docker takes nothing of what a container says since it was started again: no log is written, and the container stands still once its pipe is full; ' +
            'starting Docker again mends it, and loses nothing',
          { container: source.id, file: source.path },
        );
    } catch (error) {
      if (signal.aborted) return false;
      if (isNotFound(error)) return true;
      deps.log.debug('following a container’s log failed; it is tried again', {
        container: source.id,
        error: describeError(error),
      });
    }
    if (await isRunning(deps, source.id, signal).catch(() => true)) {
      await deps.clock.sleep(delayMs, signal).catch(() => undefined);
      delayMs = Math.min(1_000, delayMs * 2);
    }
  }
  return false;
}

async function isRunning(deps: LogsDeps, id: string, signal: AbortSignal): Promise<boolean> {
  const { State } = await deps.connection.call('ContainerStatus', { signal }, 30_000, (abortSignal) =>
    deps.connection.docker.getContainer(id).inspect({ abortSignal }),
  );
  return State.Running || State.Paused;
}

async function copyOnce(
  { connection }: LogsDeps,
  source: LogSource,
  file: LogFile,
  signal: AbortSignal,
): Promise<number> {
  const since = sinceOf(file.position.cursor());
  const isNew = file.position.resume();
  // Following a container that does not run ends with its last entry.
  const options = { follow: true as const, stdout: true, stderr: true, timestamps: true, since, abortSignal: signal };
  const stream = await connection.call('ContainerLogs', { signal }, 0, () =>
    // The typings know no `since` with nanoseconds.
    connection.docker.getContainer(source.id).logs(options as unknown as typeof options & { since: number }),
  );
  const parser = createEntryParser(source.tty);
  let taken = 0;
  for await (const chunk of stream) {
    const entries = parser.push(chunk as unknown as Uint8Array).filter(({ time }) => isNew(time));
    taken += entries.length;
    await file.append(entries);
  }
  return taken;
}
