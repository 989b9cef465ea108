// Names of cgroups: a list of parts, written as a path (cgroupfs driver) or as systemd's slices.
export type CgroupDriver = 'cgroupfs' | 'systemd';
export type CgroupName = readonly string[];

/** `/foo/bar` as parts; `/` and the empty string are the root. */
export const parseCgroupRoot = (path: string): CgroupName => path.split('/').filter((part) => part !== '');

const escapePart = (part: string): string => part.replaceAll('-', '_');
const unescapePart = (part: string): string => part.replaceAll('_', '-');

/** The slice's own name, for example `kubepods-burstable-pod1234_abcd.slice`; `-.slice` is systemd's root. */
export const sliceName = (name: CgroupName): string =>
  name.length === 0 ? '-.slice' : `${name.map(escapePart).join('-')}.slice`;

/** The path below the cgroup file system, in either driver; begins with a slash. */
export function cgroupPath(name: CgroupName, driver: CgroupDriver): string {
  if (driver === 'cgroupfs') return `/${name.join('/')}`;
  return `/${name.map((_, index) => sliceName(name.slice(0, index + 1))).join('/')}`;
}

/** The last part of the name of a folder of the cgroup file system. */
export function lastPart(folder: string, driver: CgroupDriver): string {
  if (driver === 'cgroupfs') return folder;
  return unescapePart(
    folder
      .replace(/\.slice$/, '')
      .split('-')
      .at(-1) ?? '',
  );
}

export const podPrefix = 'pod';

/** The pod that a folder is of; undefined where it is none's. */
export function podUidOf(folder: string, driver: CgroupDriver): string | undefined {
  if (driver === 'systemd' && !folder.endsWith('.slice')) return undefined;
  const part = lastPart(folder, driver);
  return part.startsWith(podPrefix) && part.length > podPrefix.length ? part.slice(podPrefix.length) : undefined;
}
