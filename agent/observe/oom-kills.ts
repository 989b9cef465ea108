// Whether the kernel killed a container for want of memory, where the runtime does not know: it may hear of the exit before it hears of the
// kill, or never, since the container's cgroup goes with the container. The kernel's log names the cgroup, and in it the container; where
// that cannot be read, cgroup version 2 counts kills in the pod's cgroup, which outlives the container. Asked for ends that look like a
// kill only.
import { constants, closeSync, openSync, readSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { describeError, type Log } from '../../lib/log.ts';

export interface OomKillsDeps {
  readonly log: Log;
  /** Default: /dev/kmsg. */
  readonly kmsg?: string;
  /** The folder of the pod's cgroup of version 2; undefined on version 1. */
  podFolder(uid: string): string | undefined;
}

export interface OomKills {
  /** The pod is looked at for the first time: kills before now are not those of containers that end later. */
  begin(uid: string): Promise<void>;
  killed(uid: string, containerId: string): Promise<boolean>;
  forget(uid: string): void;
}

/** Ids of containers in a line of the kernel's log about a kill; empty: it is about something else. */
export function killedContainers(line: string): string[] {
  if (!line.includes('oom-kill:')) return [];
  const cgroup = /\btask_memcg=([^,]*)/.exec(line)?.[1] ?? '';
  return cgroup.match(/[0-9a-f]{64}/g) ?? [];
}

/** A record has this many bytes at most; a shorter buffer is refused. */
const recordBytes = 8192;
/** Read in one go; then others have their turn. */
const recordsAtATime = 200;
/** Records of kills that are remembered for questions to come. */
const remembered = 1_000;

/** Reads on where it stopped; the first time from the beginning, which may be ten thousand records. */
function createKernelLog(path: string) {
  let file: number | undefined;
  const killed = new Set<string>();
  const buffer = Buffer.alloc(recordBytes);
  /** False where there is no more for now. */
  const readOne = (): boolean => {
    try {
      const bytes = readSync(file!, buffer, 0, buffer.length, null);
      if (bytes === 0) return false;
      for (const id of killedContainers(buffer.toString('utf8', 0, bytes))) killed.add(id);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EAGAIN') return false;
      // Records went before they were read: on with those that are there.
      if (code === 'EPIPE') return true;
      throw error;
    }
  };
  return {
    async has(id: string): Promise<boolean> {
      if (killed.has(id)) return true;
      file ??= openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
      for (let more = true; more; ) {
        for (let count = 0; more && count < recordsAtATime; count++) more = readOne();
        if (more) await turn();
      }
      for (const old of killed) {
        if (killed.size <= remembered) break;
        killed.delete(old);
      }
      return killed.has(id);
    },
    close() {
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
  };
}

export function createOomKills(deps: OomKillsDeps): OomKills & { close(): void } {
  const path = deps.kmsg ?? '/dev/kmsg';
  let kernelLog: ReturnType<typeof createKernelLog> | undefined = createKernelLog(path);
  const counts = new Map<string, number>();

  const count = async (uid: string): Promise<number | undefined> => {
    const folder = deps.podFolder(uid);
    if (folder === undefined) return undefined;
    const text = await readFile(join(folder, 'memory.events'), 'utf8').catch(() => '');
    const found = /^oom_kill (\d+)/m.exec(text)?.[1];
    return found === undefined ? undefined : Number(found);
  };

  return {
    async begin(uid) {
      counts.set(uid, (await count(uid)) ?? 0);
    },
    async killed(uid, containerId) {
      if (kernelLog)
        try {
          return await kernelLog.has(containerId);
        } catch (error) {
          deps.log.info(
            'the kernel’s log cannot be read; kills for want of memory are known from the runtime and from cgroups',
            {
              path,
              error: describeError(error),
            },
          );
          kernelLog.close();
          kernelLog = undefined;
        }
      const now = await count(uid);
      if (now === undefined) return false;
      const before = counts.get(uid) ?? 0;
      counts.set(uid, now);
      return now > before;
    },
    forget: (uid) => void counts.delete(uid),
    close: () => kernelLog?.close(),
  };
}
