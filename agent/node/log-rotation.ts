// Keeps containers' logs to their size: a log above the limit is renamed with its time, the runtime opens a new file, and what was rotated
// before is packed. Names are the kubelet's: `0.log`, `0.log.20261121-120000`, `0.log.20261121-110000.gz`.
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId } from '../../cri/types.ts';

export interface LoggedContainer {
  readonly id: ContainerId;
  /** Absolute path of its log. */
  readonly logPath: string;
}

export interface LogRotationDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly runtime: Pick<Runtime, 'reopenContainerLog'>;
  /** Containers that run now. */
  running(): readonly LoggedContainer[];
}

export interface LogRotationOptions {
  readonly maxSizeBytes: number;
  /** The one that is written to included; at least 2. */
  readonly maxFiles: number;
  readonly intervalMs: number;
  /** How many logs are rotated side by side. */
  readonly workers: number;
}

export interface LogRotation {
  run(signal: AbortSignal): Promise<void>;
  /** Looks at all logs once. */
  look(signal: AbortSignal): Promise<void>;
}

const packed = '.gz';
const unfinished = '.tmp';

const stamp = (ms: number): string =>
  new Date(ms).toISOString().replace(/[-:]/g, '').replace('T', '-').replace(/\..*$/, '');

export interface RotationPlan {
  readonly remove: readonly string[];
  readonly pack: readonly string[];
}

/** What to do with the files that were rotated before (names, not paths), so that with a new one there are `maxFiles`. Pure. */
export function planRotated(names: readonly string[], log: string, maxFiles: number): RotationPlan {
  const rotated = names.filter((name) => name.startsWith(`${log}.`)).sort();
  const halves = rotated.filter((name) => name.endsWith(unfinished));
  const whole = rotated.filter((name) => !name.endsWith(unfinished));
  // Packing was cut short after the packed file stood: the plain one is a duplicate.
  const doubles = whole.filter((name) => whole.includes(`${name}${packed}`));
  const kept = whole.filter((name) => !doubles.includes(name));
  const excess = kept.slice(0, Math.max(0, kept.length - (maxFiles - 2)));
  return {
    remove: [...halves, ...doubles, ...excess],
    pack: kept.slice(excess.length).filter((name) => !name.endsWith(packed)),
  };
}

async function pack(path: string): Promise<void> {
  const temporary = `${path}${unfinished}`;
  await pipeline(createReadStream(path), createGzip(), createWriteStream(temporary, { mode: 0o640 }));
  await rename(temporary, `${path}${packed}`);
  await rm(path, { force: true });
}

export function createLogRotation(deps: LogRotationDeps, options: LogRotationOptions): LogRotation {
  const { clock, log, runtime } = deps;

  const rotate = async ({ id, logPath }: LoggedContainer): Promise<void> => {
    const folder = dirname(logPath);
    const plan = planRotated(await readdir(folder), basename(logPath), options.maxFiles);
    for (const name of plan.remove) await rm(join(folder, name), { force: true });
    for (const name of plan.pack) await pack(join(folder, name));
    const rotated = `${logPath}.${stamp(clock.now())}`;
    await rename(logPath, rotated);
    try {
      await runtime.reopenContainerLog(id);
    } catch (error) {
      // The runtime still writes to the renamed file: under its old name nothing is lost, and the next look tries again.
      await rename(rotated, logPath).catch(() => undefined);
      throw error;
    }
  };

  const lookAt = async (container: LoggedContainer): Promise<void> => {
    const size = await stat(container.logPath).then(
      (found) => found.size,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined;
        throw error;
      },
    );
    if (size === undefined) {
      // Somebody removed it, or we ended between renaming and opening anew: the runtime has to open it.
      await mkdir(dirname(container.logPath), { recursive: true });
      await runtime.reopenContainerLog(container.id);
    } else if (size >= options.maxSizeBytes) await rotate(container);
  };

  const look = async (signal: AbortSignal): Promise<void> => {
    const waiting = deps.running().filter(({ logPath }) => logPath !== '');
    const worker = async (): Promise<void> => {
      for (let next = waiting.pop(); next && !signal.aborted; next = waiting.pop()) {
        const { id, logPath } = next;
        await lookAt(next).catch((error: unknown) =>
          log.warn('a container log could not be rotated; trying again', { container: id, path: logPath, error }),
        );
      }
    };
    await Promise.all(Array.from({ length: Math.max(1, options.workers) }, worker));
  };

  return {
    look,
    async run(signal) {
      while (!signal.aborted) {
        await look(signal);
        await clock.sleep(options.intervalMs, signal).catch(() => undefined);
      }
    },
  };
}
