// The agent is killed at each point of set-up, refresh and tear-down at which it can be: a new one brings the pod's volumes up, or takes them down,
// and nobody's data is touched.
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createMounter } from '../../agent/volumes/mounter.ts';
import { readMountTable } from '../../agent/volumes/mount-table.ts';
import { unmountUnder } from '../../agent/volumes/remove-tree.ts';
import { type CsiTestDriver, startCsiDriver } from '../lab/csi-driver.ts';
import { crashAgent, crashDriver, crashPod, eventually, live, podIn } from '../lab/volumes-crash.ts';

const program = resolve(import.meta.dirname, '../lab/volumes-crash.ts');
const uid = crashPod.metadata.uid!;
const signal = (): AbortSignal => AbortSignal.timeout(30_000);

async function runAndKill(root: string, point: number): Promise<{ killed: boolean; visited: string[] }> {
  const child = spawn(process.execPath, [program, root, String(point)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (chunk) => {
    out += String(chunk);
  });
  const killed = await new Promise<boolean>((done) => child.on('close', (_code, by) => done(by === 'SIGKILL')));
  return { killed, visited: killed ? [] : (JSON.parse(out) as string[]) };
}

let base: string;
const roots: { root: string; driver: CsiTestDriver }[] = [];

async function newRoot(): Promise<{ root: string; driver: CsiTestDriver }> {
  const root = await mkdtemp(join(base, 'r'));
  for (const folder of ['host', 'local/data']) await mkdir(join(root, folder), { recursive: true });
  await writeFile(join(root, 'host/precious'), 'host');
  await writeFile(join(root, 'local/data/precious'), 'local');
  const driver = await startCsiDriver({
    name: crashDriver,
    folder: join(root, 'driver'),
    registry: join(root, 'plugins_registry'),
  });
  await mkdir(driver.dataOf('handle'), { recursive: true });
  await writeFile(join(driver.dataOf('handle'), 'precious'), 'csi');
  const made = { root, driver };
  roots.push(made);
  return made;
}

async function dropRoot({ root, driver }: { root: string; driver: CsiTestDriver }): Promise<void> {
  await driver.stop();
  await unmountUnder(createMounter(), root, signal());
  await rm(root, { recursive: true, force: true });
  roots.splice(
    roots.findIndex((each) => each.root === root),
    1,
  );
}

async function expectNothingLeft(root: string, driver: CsiTestDriver): Promise<void> {
  expect((await readMountTable()).under(root).map((mount) => mount.mountPoint)).toEqual([]);
  expect(await readdir(join(root, 'pods')).catch(() => [])).toEqual([]);
  const csi = join(root, 'plugins/kubernetes.io/csi', crashDriver);
  expect(await readdir(csi).catch(() => [])).toEqual([]);
  expect(await readFile(join(root, 'host/precious'), 'utf8')).toBe('host');
  expect(await readFile(join(root, 'local/data/precious'), 'utf8')).toBe('local');
  expect(await readFile(join(driver.dataOf('handle'), 'precious'), 'utf8')).toBe('csi');
}

async function withAgent(root: string, work: (agent: ReturnType<typeof crashAgent>) => Promise<void>): Promise<void> {
  const agent = crashAgent(root, () => undefined);
  const stopping = new AbortController();
  const running = agent.volumes.run(stopping.signal);
  try {
    await work(agent);
  } finally {
    stopping.abort();
    await running;
  }
}

beforeEach(async () => {
  if (process.getuid?.() !== 0) throw new Error('this test needs root');
  base = await mkdtemp(join(tmpdir(), 'stevedore-crash-'));
});
afterEach(async () => {
  for (const each of [...roots]) await dropRoot(each);
  await rm(base, { recursive: true, force: true });
});

describe('an agent killed anywhere', () => {
  it('leaves what a new one can bring up or take down', { timeout: 600_000 }, async () => {
    const whole = await newRoot();
    const { visited } = await runAndKill(whole.root, -1);
    await expectNothingLeft(whole.root, whole.driver);
    await dropRoot(whole);
    // Every kind of volume, and every step of each, is among them.
    for (const name of [
      'empty-dir-made',
      'empty-dir-mounted',
      'files-folder-made',
      'files-mounted',
      'payload-folder-made',
      'payload-files-written',
      'payload-link-made',
      'payload-swapped',
      'files-written',
      'local-folder-made',
      'local-mounted',
      'csi-noted',
      'csi-stage-noted',
      'csi-staged',
      'csi-published',
      'sub-paths-cleared',
      'owned-unmounted',
      'owned-removed',
      'mounted-unmounted',
      'csi-unpublished',
      'csi-unstaged',
      'csi-before-note-removed',
      'volumes-torn-down',
    ])
      expect(visited).toContain(name);

    // Both ways from the first visit of each point; one way from the second, which is another volume's.
    const cases = visited.flatMap((name, point) => {
      const visit = visited.slice(0, point).filter((other) => other === name).length;
      if (visit === 0) return (['up', 'gone'] as const).map((way) => ({ point, way }));
      return visit === 1 ? [{ point, way: point % 2 === 0 ? ('up' as const) : ('gone' as const) }] : [];
    });
    let killed = 0;
    const one = async ({ point, way }: (typeof cases)[number]): Promise<void> => {
      const made = await newRoot();
      const { root, driver } = made;
      const result = await runAndKill(root, point);
      if (result.killed) killed++;
      try {
        await withAgent(root, async (agent) => {
          if (way === 'up') {
            await eventually(() => agent.volumes.setUp(podIn(root), signal()));
            const volumes = join(root, 'pods', uid, 'volumes');
            expect(await readFile(join(volumes, 'kubernetes.io~configmap/config/key'), 'utf8')).toBe('one');
            expect(await readFile(join(volumes, 'kubernetes.io~projected/all/secret'), 'utf8')).toBe('hush');
            expect(await readFile(join(volumes, 'kubernetes.io~local-volume/pv-local/data/precious'), 'utf8')).toBe(
              'local',
            );
            expect(await readFile(join(volumes, 'kubernetes.io~csi/pv-csi/mount/precious'), 'utf8')).toBe('csi');
            expect((await stat(join(volumes, 'kubernetes.io~empty-dir/memory'))).gid).toBe(1234);
            await live(root, agent);
          } else {
            await eventually(() => agent.volumes.tearDown(uid, signal()));
          }
        });
        await expectNothingLeft(root, driver);
      } catch (error) {
        throw new Error(`killed at ${point} (${visited[point]}), then ${way}: ${(error as Error).message}`, {
          cause: error,
        });
      }
      await dropRoot(made);
    };
    const queue = [...cases];
    const hands = await Promise.allSettled(
      [1, 2, 3].map(async () => {
        for (let next = queue.shift(); next; next = queue.shift()) await one(next);
      }),
    );
    expect(hands.flatMap((hand) => (hand.status === 'rejected' ? [(hand.reason as Error).message] : []))).toEqual([]);
    // Side by side work makes the order vary a little: the last points may be passed before they are counted.
    expect(killed).toBeGreaterThan(cases.length * 0.9);
  });
});
