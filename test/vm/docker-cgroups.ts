// What the cgroups of a pod and its container have to say, by version (the machine's) and by driver (Docker's), and what they say.
import type { World } from './world.ts';

export type Driver = 'systemd' | 'cgroupfs';

/** Prints the folders of pods, in every hierarchy. */
export const podCgroups =
  'find /sys/fs/cgroup -type d -path "*/kubepods*" \\( -name "kubepods-*pod*.slice" -o -name "pod*" -o -name "docker-*" \\)';

interface Figures {
  readonly milliCpu?: number;
  readonly mebibytes?: number;
  /** Default: the limit. */
  readonly requestMilliCpu?: number;
}

/** Below the root of a hierarchy. */
function folderOf(driver: Driver, uid: string, level: string): string {
  if (driver === 'cgroupfs') return `kubepods/${level === '' ? '' : `${level}/`}pod${uid}`;
  const pod = `pod${uid.replaceAll('-', '_')}.slice`;
  return level === ''
    ? `kubepods.slice/kubepods-${pod}`
    : `kubepods.slice/kubepods-${level}.slice/kubepods-${level}-${pod}`;
}

const mebi = 1_048_576;

function wantedOn2({ milliCpu, mebibytes, requestMilliCpu = milliCpu ?? 0 }: Figures, weightOf: WeightOf): string {
  const shares = Math.max(2, Math.floor((requestMilliCpu * 1024) / 1000));
  return `${milliCpu === undefined ? 'max' : milliCpu * 100} 100000 ${weightOf(shares)} ${mebibytes === undefined ? 'max' : mebibytes * mebi}`;
}

function wantedOn1({ milliCpu, mebibytes, requestMilliCpu = milliCpu ?? 0 }: Figures): string {
  const shares = Math.max(2, Math.floor((requestMilliCpu * 1024) / 1000));
  return `${milliCpu === undefined ? -1 : milliCpu * 100} 100000 ${shares} ${mebibytes === undefined ? '9223372036854771712' : mebibytes * mebi}`;
}

type WeightOf = (shares: number) => number;
/** As Kubernetes and runc 1.1 make a weight of shares. */
const linear: WeightOf = (shares) => 1 + Math.floor(((shares - 2) * 9999) / 262_142);

/**
 * Quota, period, shares (weight) and bytes of the pod's cgroup and of its container's, then how many containers (sandbox too) are in it. `name` is
 * a pod's name, or the value of the label `app`.
 */
export async function limits(
  { machine, kubectl }: World,
  driver: Driver,
  name: string,
  level: string,
  figures: Figures,
): Promise<{ found: string; wanted: string }> {
  const which = name === 'web' ? ['-l', 'app=web'] : [name];
  const fields = '{.metadata.uid} {.status.containerStatuses[0].containerID}';
  const pod = name === 'web' ? `{range .items[0:1]}${fields}{end}` : fields;
  const [uid = '', container = ''] = (await kubectl('get', 'pod', ...which, '-o', `jsonpath=${pod}`)).trim().split(' ');
  const folder = folderOf(driver, uid, level);
  const id = container.replace('docker://', '');
  const inner = driver === 'systemd' ? `docker-${id}.scope` : id;
  const isTwo = machine.kind === 'vm';
  const root = '/sys/fs/cgroup';
  const figuresOf = (path: string): string =>
    isTwo
      ? `cd ${root}/${path}; echo $(cat cpu.max cpu.weight memory.max)`
      : `echo $(cat ${root}/cpu/${path}/cpu.cfs_quota_us ${root}/cpu/${path}/cpu.cfs_period_us ${root}/cpu/${path}/cpu.shares ${root}/memory/${path}/memory.limit_in_bytes)`;
  const text = await machine.run(
    [
      figuresOf(folder),
      figuresOf(`${folder}/${inner}`),
      `find ${root}/${isTwo ? '' : 'memory/'}${folder} -mindepth 1 -maxdepth 1 -type d | wc -l`,
    ].join('\n'),
  );
  const one = isTwo ? wantedOn2(figures, linear) : wantedOn1(figures);
  return { found: text.trim().split('\n').join(', '), wanted: [one, one, '2'].join(', ') };
}
