// Takes away the cgroups that held pods, when the pods are gone: `kubepods` of either driver, in every hierarchy.
import { readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { cgroupPath, parseCgroupRoot, sliceName } from '../../agent/resources/cgroup-names.ts';
import { createSystemdSlices, type SystemdSlices } from '../../agent/resources/systemd-slices.ts';
import type { Clock } from '../../lib/clock.ts';

export interface RemoveCgroupsDeps {
  readonly clock: Clock;
  /** Default: systemd's. */
  readonly slices?: Pick<SystemdSlices, 'stop'>;
}

export interface RemoveCgroupsOptions {
  /** KubeletConfiguration's cgroupRoot. */
  readonly cgroupRoot: string;
  /** Where cgroups are mounted. Default /sys/fs/cgroup. */
  readonly mountedAt?: string;
}

const foldersIn = async (path: string): Promise<string[] | undefined> =>
  (await readdir(path, { withFileTypes: true }).catch(() => undefined))
    ?.filter((entry) => entry.isDirectory())
    .map(({ name }) => join(path, name));

/** A cgroup goes when its own are gone; one with a process in it stays. */
async function removeTree(path: string): Promise<void> {
  for (const child of (await foldersIn(path)) ?? []) await removeTree(child);
  await rmdir(path).catch(() => undefined);
}

const waitsMs = [0, 20, 80, 320, 1000, 2000];

/** Resolves with the cgroups that could not be removed, processes being in them. */
export async function removePodCgroups(deps: RemoveCgroupsDeps, options: RemoveCgroupsOptions): Promise<string[]> {
  const { mountedAt = '/sys/fs/cgroup' } = options;
  const name = [...parseCgroupRoot(options.cgroupRoot), 'kubepods'];
  // Version 2 is mounted there itself; version 1 has a folder for each hierarchy.
  const hierarchies = [mountedAt, ...((await foldersIn(mountedAt)) ?? [])];
  const paths = (['systemd', 'cgroupfs'] as const).flatMap((driver) =>
    hierarchies.map((each) => join(each, cgroupPath(name, driver))),
  );
  const present = async (): Promise<string[]> => {
    const found = await Promise.all(paths.map(async (path) => ((await foldersIn(path)) ? [path] : [])));
    return found.flat();
  };
  let left = await present();
  // systemd would make the folder again for a slice that it holds for active.
  if (left.some((path) => path.endsWith('.slice')))
    await (deps.slices ?? createSystemdSlices()).stop(sliceName(name)).catch(() => undefined);
  for (const waitMs of waitsMs) {
    if (left.length === 0) break;
    await deps.clock.sleep(waitMs);
    for (const path of left) await removeTree(path);
    left = await present();
  }
  return left;
}
