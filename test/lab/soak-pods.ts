// Pods that come and go in bursts, and what must be as before when they are gone: cgroups, mounts (network namespaces are mounts too),
// processes, interfaces, addresses, records of the runtime, folders, and the daemon's own memory, files and threads.
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { demoImageName } from '../../cri/local-images.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { LabNode } from './node.ts';
import { listProcesses } from './process-tree.ts';

export interface SoakOptions {
  /** Pods of one burst. */
  readonly pods: number;
  readonly times: number;
  /** For each direction of a burst; default 10 minutes. */
  readonly timeoutMs?: number;
  onRound?(round: SoakRound): void;
}

export interface SoakRound {
  /** From the first request to the last pod ready, and to the last one gone; milliseconds. */
  readonly upMs: number;
  readonly downMs: number;
  /** Kinds of things that the burst had and that did not go, with how many more there are than before; empty: none. */
  readonly left: Readonly<Record<string, number>>;
  /**
   * Shims of which the runtime itself knows no more: it removed the sandbox and said so. containerd 1.6 loses one where its own ten seconds for
   * deleting a task run out while the shim does delete it; nothing that speaks CRI can end it. Since the beginning.
   */
  readonly forgotten: number;
  /** The daemon's, MiB and counts, when the burst was gone. */
  readonly residentMiB: number;
  readonly anonymousMiB: number;
  readonly files: number;
  readonly threads: number;
}

const entries = async (path: string): Promise<number> => (await readdir(path).catch(() => [])).length;

async function podCgroups(root: string): Promise<number> {
  let count = 0;
  const below = async (folder: string): Promise<void> => {
    for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
      if (!entry.isDirectory()) continue;
      if (/pod[0-9a-f]{8}[-_]/.test(entry.name)) count++;
      await below(join(folder, entry.name));
    }
  };
  const hierarchies = await readdir('/sys/fs/cgroup', { withFileTypes: true });
  for (const path of ['', ...hierarchies.filter((each) => each.isDirectory()).map(({ name }) => name)])
    await below(join('/sys/fs/cgroup', path, root));
  return count;
}

/** What there is of everything that pods bring; the more of it, the more is held. Shims are told of by their ids. */
export async function holdings(node: LabNode): Promise<{ counts: Record<string, number>; forgotten: number }> {
  const dir = dirname(node.rootDir);
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .filter((line) => (line.split(' ')[4] ?? '').startsWith(`${dir}/`));
  const processes = await listProcesses();
  const [containers, tasks, links] = await Promise.all([
    node.engine.containers(),
    node.engine.running(),
    node.host.exec('ip', ['-o', 'link', 'show', 'type', 'veth']),
  ]);
  const ipam = join(dir, 'c', 'ipam');
  const networks = await readdir(ipam).catch(() => []);
  const addresses = await Promise.all(
    networks.map(
      async (name) => (await readdir(join(ipam, name))).filter((each) => /^[0-9a-f]+[.:]/.test(each)).length,
    ),
  );
  // Asked after the processes: what is new is known.
  const shims = processes
    .filter(({ command }) => command.some((word) => word.startsWith(`${dir}/`)) && command[0]?.includes('shim'))
    .map(({ command }) => command[command.indexOf('-id') + 1] ?? '');
  const known = new Set([...containers, ...tasks]);
  const counts = {
    cgroups: await podCgroups(node.name),
    mounts: mounts.length,
    'network namespaces': mounts.filter((line) => line.includes(' - nsfs ')).length,
    shims: shims.filter((id) => known.has(id)).length,
    containers: containers.length,
    tasks: tasks.length,
    interfaces: links.stdout.split('\n').filter((line) => line.trim() !== '').length,
    addresses: addresses.reduce((sum, each) => sum + each, 0),
    'folders of pods': await entries(join(node.rootDir, 'pods')),
    'folders of logs': await entries(join(dir, 'pods')),
    'kept states': await entries(join(node.rootDir, 'pod-state')),
  };
  return { counts, forgotten: shims.length - counts.shims };
}

async function daemon(pid: number): Promise<Pick<SoakRound, 'residentMiB' | 'anonymousMiB' | 'files' | 'threads'>> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  return {
    residentMiB: Math.round(field('VmRSS') / 1024),
    anonymousMiB: Math.round(field('RssAnon') / 1024),
    files: await entries(`/proc/${pid}/fd`),
    threads: field('Threads'),
  };
}

const podOf = (name: string): Pod => ({
  metadata: { name, namespace: 'default', labels: { soak: 'pods' } },
  spec: {
    terminationGracePeriodSeconds: 5,
    containers: [
      {
        name: 'c',
        image: demoImageName,
        imagePullPolicy: 'IfNotPresent',
        command: ['/bin/sh', '-c', 'trap "exit 0" TERM; sleep 100000 & wait'],
        resources: { requests: { cpu: '1m', memory: '1Mi' }, limits: { memory: '32Mi' } },
        volumeMounts: [
          { name: 'disk', mountPath: '/disk' },
          { name: 'memory', mountPath: '/memory' },
        ],
      },
    ],
    volumes: [
      { name: 'disk', emptyDir: {} },
      { name: 'memory', emptyDir: { medium: 'Memory' } },
    ],
  },
});

async function each<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const queue = [...items];
  const lane = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: 16 }, lane));
}

/** Settling is waited for this long: a shim takes a moment to end, and dead containers are collected on a timer. */
const settleMs = 90_000;

/** Runs the bursts; the node must have room for them (maxPods). Rejects where pods do not come or go; what is left is in the rounds. */
export async function soakPods(node: LabNode, options: SoakOptions): Promise<SoakRound[]> {
  const { pods, times, timeoutMs = 600_000 } = options;
  const api = node.cluster.admin;
  const { counts: before } = await holdings(node);
  const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
    const deadline = Date.now() + timeoutMs;
    while (!(await holds())) {
      if (Date.now() > deadline) throw new Error(`${what}: not after ${timeoutMs} ms\n${await node.report()}`);
      await sleep(200);
    }
  };
  const list = async (): Promise<readonly Pod[]> =>
    (await api.list(resources.pods, { namespace: 'default', labelSelector: 'soak=pods' })).items;
  const rounds: SoakRound[] = [];
  for (let round = 0; round < times; round++) {
    const names = Array.from({ length: pods }, (_, at) => `soak-${round}-${at}`);
    let begun = performance.now();
    await each(names, (name) => api.create(resources.pods, podOf(name)));
    await until(`${pods} pods ready`, async () =>
      (await list()).every(({ status }) =>
        status?.conditions?.some(({ type, status: holds }) => type === 'Ready' && holds === 'True'),
      ),
    );
    const upMs = Math.round(performance.now() - begun);
    const { counts: held } = await holdings(node);
    for (const [what, count] of Object.entries(before))
      if (what !== 'kept states' && held[what]! < count + pods)
        throw new Error(
          `${pods} pods have ${held[what]} ${what}, ${count} of them from before: they are not counted right`,
        );
    begun = performance.now();
    await each(names, (name) => api.delete(resources.pods, { namespace: 'default', name }));
    await until(`${pods} pods gone`, async () => (await list()).length === 0);
    const downMs = Math.round(performance.now() - begun);
    const deadline = Date.now() + settleMs;
    let left: Record<string, number> = {};
    let forgotten = 0;
    for (;;) {
      const now = await holdings(node);
      left = Object.fromEntries(
        Object.entries(now.counts).flatMap(([what, count]) =>
          count > before[what]! ? [[what, count - before[what]!]] : [],
        ),
      );
      forgotten = now.forgotten;
      if ((Object.keys(left).length === 0 && forgotten === 0) || Date.now() > deadline) break;
      await sleep(500);
    }
    const done: SoakRound = { upMs, downMs, left, forgotten, ...(await daemon(node.pid()!)) };
    rounds.push(done);
    options.onRound?.(done);
  }
  return rounds;
}

/** What grew from the third burst (caches are full by then) to the last two, in words; empty: nothing did. */
export function growth(
  rounds: readonly SoakRound[],
  limits: { readonly anonymousMiB: number; readonly files: number },
): string[] {
  if (rounds.length < 4) return [];
  const early = rounds[2]!;
  const late = rounds.slice(-2);
  const least = (of: (round: SoakRound) => number): number => Math.min(...late.map(of));
  const found: string[] = [];
  for (const [what, of, limit] of [
    ['MiB of anonymous memory', (round: SoakRound) => round.anonymousMiB, limits.anonymousMiB],
    ['open files', (round: SoakRound) => round.files, limits.files],
    ['threads', (round: SoakRound) => round.threads, 2],
  ] as const)
    if (least(of) - of(early) > limit)
      found.push(`${what}: ${of(early)} after burst 3, at least ${least(of)} at the end`);
  return found;
}
