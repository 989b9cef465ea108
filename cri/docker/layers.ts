// What containers wrote into their own layer. Docker could be asked, and would walk each layer at every question; here `du` walks those of
// all that are asked about in one go, not more often than it can be afforded.
import type { Clock } from '../../lib/clock.ts';
import { type DiskUsage, diskUsage } from '../../lib/disk-usage.ts';
import { exec } from '../../lib/exec.ts';
import { describeError, type Log } from '../../lib/log.ts';
import type { FilesystemUsage } from '../types.ts';
import type { DockerConnection } from './connection.ts';

export interface LayersDeps {
  readonly connection: DockerConnection;
  readonly clock: Clock;
  readonly log: Log;
  /** Default: `du`. */
  readonly walk?: (paths: readonly string[]) => Promise<ReadonlyMap<string, DiskUsage>>;
}

export interface Layers {
  /** By container; those are left out that are gone, and all where the storage driver keeps no folder for each. Never rejects. */
  usage(ids: readonly string[]): Promise<ReadonlyMap<string, FilesystemUsage>>;
  forget(id: string): void;
}

/** Measured anew after ten seconds, as containerd does; after longer where walking took long. */
const leastLifeMs = 10_000;
const lifePerWork = 20;
/** A walk that takes longer goes on by itself; its figures are of the next question. */
const patienceMs = 5_000;

export function createLayers(deps: LayersDeps): Layers {
  const { clock, connection, walk = walkWithDu } = deps;
  /** The folder of each container's layer; empty where it has none. It never changes. */
  const folders = new Map<string, string>();
  const measured = new Map<string, { readonly usage: FilesystemUsage; readonly untilMs: number }>();
  let turn: Promise<unknown> = Promise.resolve();

  async function folderOf(id: string): Promise<string> {
    const known = folders.get(id);
    if (known !== undefined) return known;
    const seen = await connection
      .call('ContainerStats', undefined, 10_000, (abortSignal) =>
        connection.docker.getContainer(id).inspect({ abortSignal }),
      )
      .catch(() => undefined);
    if (!seen) return '';
    const { UpperDir = '' } = (seen.GraphDriver?.Data ?? {}) as { readonly UpperDir?: string };
    folders.set(id, UpperDir);
    return UpperDir;
  }

  async function measure(ids: readonly string[]): Promise<void> {
    const due = ids.filter((id) => (measured.get(id)?.untilMs ?? 0) <= clock.monotonicMs());
    const at = new Map<string, string>();
    for (const id of due) {
      const folder = await folderOf(id);
      if (folder !== '') at.set(folder, id);
    }
    if (at.size === 0) return;
    const begun = clock.monotonicMs();
    const sizes = await walk([...at.keys()]);
    const now = clock.monotonicMs();
    const untilMs = now + Math.max(leastLifeMs, lifePerWork * (now - begun));
    for (const [mountpoint, size] of sizes) {
      const id = at.get(mountpoint);
      if (id !== undefined && folders.has(id))
        measured.set(id, { usage: { timestampMs: clock.now(), mountpoint, ...size }, untilMs });
    }
  }

  return {
    async usage(ids) {
      // Who asks meanwhile finds what was just measured.
      const mine = turn.then(() => measure(ids));
      turn = mine.catch((error: unknown) =>
        deps.log.debug('what containers wrote could not be measured', { error: describeError(error) }),
      );
      const waiting = new AbortController();
      await Promise.race([turn, clock.sleep(patienceMs, waiting.signal).catch(() => undefined)]);
      waiting.abort();
      const found = new Map<string, FilesystemUsage>();
      for (const id of ids) {
        const known = measured.get(id);
        if (known) found.set(id, known.usage);
      }
      return found;
    },
    forget(id) {
      folders.delete(id);
      measured.delete(id);
    },
  };
}

const walkWithDu = (paths: readonly string[]): Promise<Map<string, DiskUsage>> =>
  diskUsage(paths, async (command, args) => (await exec(command, args, { timeoutMs: 60_000 })).stdout);
