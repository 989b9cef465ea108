// Takes away what pods that are gone have left behind: folders and volumes, cgroups, logs, links to logs, remembered state. What is alive is
// asked of the workers, the sources and the runtime; before every source has told of its pods nothing is touched. Never across a mount.
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import { exec } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { createNap } from '../../lib/nap.ts';
import type { PodCgroups } from '../resources/pod-cgroups.ts';
import type { ContainerLinks } from './container-links.ts';

/** Things kept by a pod's uid. */
export interface KeptByUid {
  readonly what: string;
  uids(): Promise<readonly string[]> | readonly string[];
  remove(uid: string, signal: AbortSignal): Promise<void> | void;
  /** Whether something is there all the same after `remove`; it was told of and is no failure. Default: nothing is. */
  stays?(uid: string): Promise<boolean>;
  /** How many were removed in a round, and how many could not be; for a metric. */
  cleaned?(removed: number, failed: number): void;
}

export interface HousekeepingDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Every source has told of its pods. */
  synced(): boolean;
  /** The pod is wanted, has a worker, or the runtime has something of it. */
  alive(uid: string): boolean;
  readonly kept: readonly KeptByUid[];
  readonly links: ContainerLinks;
  readonly cgroups: Pick<PodCgroups, 'balance'>;
  /** Pods that use resources now. */
  activePods(): readonly Pod[];
}

export interface HousekeepingOptions {
  /** Default 30,000. */
  readonly everyMs?: number;
}

export interface Housekeeping {
  /** Pods came or went: the shares of the classes are balanced soon. */
  podsChanged(): void;
  /** One round over everything. */
  clean(signal: AbortSignal): Promise<void>;
  run(signal: AbortSignal): Promise<void>;
}

export function createHousekeeping(deps: HousekeepingDeps, options: HousekeepingOptions = {}): Housekeeping {
  const { clock, log } = deps;
  const everyMs = options.everyMs ?? 30_000;
  const nap = createNap(clock);
  let changed = true;
  // One round may see what a pod that comes at this moment is making: only what two rounds in a row find ownerless goes.
  let suspects = new Set<string>();

  const cleanKind = async (
    { what, uids, remove, stays, cleaned }: KeptByUid,
    found: Set<string>,
    signal: AbortSignal,
  ): Promise<void> => {
    let removed = 0;
    let failed = 0;
    const failure = (error: unknown, fields: { uid?: string } = {}): void => {
      failed++;
      log.warn(`removing ${what} of pods that are gone failed; tried again`, { ...fields, error, retryInMs: everyMs });
    };
    const all = await (async () => await uids())().catch((error: unknown) => {
      failure(error);
      return [];
    });
    for (const uid of all) {
      if (signal.aborted) return;
      if (deps.alive(uid)) continue;
      const key = `${what} ${uid}`;
      found.add(key);
      if (!suspects.has(key)) continue;
      try {
        await remove(uid, signal);
        found.delete(key);
        if (await stays?.(uid)) continue;
        removed++;
        log.info(`removed ${what} of a pod that is gone`, { uid });
      } catch (error) {
        if (signal.aborted) return;
        // One that cannot be removed holds up no other.
        failure(error, { uid });
      }
    }
    cleaned?.(removed, failed);
  };

  const clean = async (signal: AbortSignal): Promise<void> => {
    if (!deps.synced()) return;
    const found = new Set<string>();
    for (const kind of deps.kept) {
      await cleanKind(kind, found, signal);
      if (signal.aborted) return;
    }
    suspects = found;
    await deps.links.sweep().catch((error: unknown) => log.warn('dead links to logs are not removed', { error }));
  };

  const balance = async (): Promise<void> => {
    changed = false;
    await deps.cgroups.balance(deps.activePods()).catch((error: unknown) => {
      log.warn('the shares of Burstable pods are not set; tried again', { error });
      changed = true;
    });
  };

  return {
    podsChanged() {
      changed = true;
      nap.wake();
    },
    clean,
    async run(signal) {
      let cleanedMs = Number.NEGATIVE_INFINITY;
      while (!signal.aborted) {
        if (changed) await balance();
        if (clock.monotonicMs() - cleanedMs >= everyMs && deps.synced()) {
          await clean(signal);
          cleanedMs = clock.monotonicMs();
        }
        await clock.sleep(100, signal).catch(() => undefined);
        const restMs = deps.synced() ? cleanedMs + everyMs - clock.monotonicMs() : 1_000;
        if (!changed) await nap.take(Math.max(0, restMs), signal);
      }
    },
  };
}

/** `<namespace>_<name>_<uid>` folders of logs. */
export function podLogFolders(podLogsDir: string, clock: Clock): KeptByUid {
  const uidOf = (name: string): string | undefined => /^[^_]+_[^_]+_([^_]+)$/.exec(name)?.[1];
  return {
    what: 'logs',
    async uids() {
      const names = await readdir(podLogsDir).catch(() => []);
      const uids: string[] = [];
      for (const name of names) {
        const uid = uidOf(name);
        const info = uid === undefined ? undefined : await stat(join(podLogsDir, name)).catch(() => undefined);
        // Another agent beside this one may share the folder: what is fresh is not looked at.
        if (uid !== undefined && info?.isDirectory() && clock.now() - info.mtimeMs > 60_000) uids.push(uid);
      }
      return uids;
    },
    async remove(uid, signal) {
      for (const name of await readdir(podLogsDir).catch(() => []))
        if (uidOf(name) === uid)
          await exec('rm', ['--recursive', '--force', '--one-file-system', '--', join(podLogsDir, name)], { signal });
    },
  };
}
