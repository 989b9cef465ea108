import { mkdir, mkdtemp, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createLog, silentLog } from '../../lib/log.ts';
import { createContainerLinks } from './container-links.ts';
import { createHousekeeping, podLogFolders } from './housekeeping.ts';

const pod: Pod = { metadata: { name: 'p', namespace: 'n', uid: 'u' }, spec: { containers: [] } };
let root = '';
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'housekeeping-'));
});
afterAll(() => rm(root, { recursive: true }));

describe('housekeeping', () => {
  it('removes what two rounds in a row find ownerless, and nothing before the sources have told', async () => {
    const clock = createFakeClock();
    const removed: string[] = [];
    let synced = false;
    const alive = new Set(['live']);
    const house = createHousekeeping({
      clock,
      log: silentLog,
      synced: () => synced,
      alive: (uid) => alive.has(uid),
      kept: [
        { what: 'broken', uids: () => ['gone'], remove: () => Promise.reject(new Error('busy')) },
        { what: 'folders', uids: () => ['live', 'gone', 'coming'], remove: (uid) => void removed.push(uid) },
      ],
      links: { add: async () => undefined, remove: async () => undefined, sweep: async () => undefined },
      cgroups: { balance: async () => undefined },
      activePods: () => [],
    });
    const { signal } = new AbortController();
    await house.clean(signal);
    await house.clean(signal);
    expect(removed).toEqual([]);
    synced = true;
    await house.clean(signal);
    alive.add('coming');
    expect(removed).toEqual([]);
    await house.clean(signal);
    expect(removed).toEqual(['gone']);
  });

  it('one that cannot be removed holds up no other, and what has to stay is not said to be removed', async () => {
    const tried: string[] = [];
    const counts: number[][] = [];
    const lines: string[] = [];
    const house = createHousekeeping({
      clock: createFakeClock(),
      log: createLog({ level: 'info', format: 'text', write: (line) => void lines.push(line) }),
      synced: () => true,
      alive: () => false,
      kept: [
        { what: 'broken', uids: () => Promise.reject(new Error('no such folder')), remove: () => undefined },
        {
          what: 'folders',
          uids: () => ['stuck', 'held', 'gone'],
          remove(uid) {
            tried.push(uid);
            if (uid === 'stuck') throw new Error('busy');
          },
          stays: (uid) => Promise.resolve(uid === 'held'),
          cleaned: (removed, failed) => void counts.push([removed, failed]),
        },
      ],
      links: { add: async () => undefined, remove: async () => undefined, sweep: async () => undefined },
      cgroups: { balance: async () => undefined },
      activePods: () => [],
    });
    const { signal } = new AbortController();
    await house.clean(signal);
    await house.clean(signal);
    expect(tried).toEqual(['stuck', 'held', 'gone']);
    expect(counts).toEqual([
      [0, 0],
      [1, 1],
    ]);
    expect(lines.filter((line) => line.includes(' removed '))).toHaveLength(1);
    expect(lines.find((line) => line.includes('removing folders'))).toMatch(/WARN.*uid="stuck".*busy/);
  });

  it('finds folders of logs by their names, and leaves fresh ones and strangers', async () => {
    const clock = createFakeClock(Date.now());
    const logs = join(root, 'pods');
    for (const name of ['n_p_old', 'n_p_fresh', 'stranger']) await mkdir(join(logs, name, 'c'), { recursive: true });
    for (const name of ['n_p_old', 'stranger']) await utimes(join(logs, name), 1, 1);
    const kept = podLogFolders(logs, clock);
    expect(await kept.uids()).toEqual(['old']);
    await kept.remove('old', new AbortController().signal);
    expect((await readdir(logs)).sort()).toEqual(['n_p_fresh', 'stranger']);
  });

  it('keeps links to logs, and takes them away with the log and its rotated parts', async () => {
    const podLogsDir = join(root, 'more', 'pods');
    const links = createContainerLinks({ podLogsDir });
    const folder = join(podLogsDir, 'n_p_u', 'c');
    await mkdir(folder, { recursive: true });
    for (const name of ['0.log', '0.log.20260101-000000.gz', '1.log']) await writeFile(join(folder, name), '');
    await links.add(pod, 'c', 'id0' as never, join(folder, '0.log'));
    await links.add(pod, 'c', 'id1' as never, join(folder, '1.log'));
    await links.add(pod, 'c', 'id1' as never, join(folder, '1.log'));
    const legacy = join(root, 'more', 'containers');
    expect((await readdir(legacy)).sort()).toEqual(['p_n_c-id0.log', 'p_n_c-id1.log']);
    await links.remove(pod, 'c', 'id0' as never, join(folder, '0.log'));
    expect(await readdir(folder)).toEqual(['1.log']);
    await symlink('/nowhere/else.log', join(legacy, 'strange.log'));
    await rm(join(folder, '1.log'));
    await links.sweep();
    expect(await readdir(legacy)).toEqual(['strange.log']);
  });
});
