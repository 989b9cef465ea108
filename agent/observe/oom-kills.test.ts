import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../lib/log.ts';
import { createOomKills, killedContainers } from './oom-kills.ts';

const id = 'ab'.repeat(32);
const other = 'cd'.repeat(32);
const line = (cgroup: string): string =>
  `4,58001,24307606908,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/kubepods,task_memcg=${cgroup},task=tail,pid=13131,uid=0`;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-oom-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('the kernel’s words about a kill', () => {
  it.each<[string, string[]]>([
    [line(`/kubepods/burstable/podu/${id}`), [id]],
    [line(`/kubepods.slice/kubepods-podu.slice/cri-containerd-${id}.scope`), [id]],
    // A node that is itself a container.
    [line(`/docker/${other}/kubepods/podu/${id}`), [other, id]],
    [line('/system.slice/sshd.service'), []],
    [`6,1,1,-;veth ${id}: task_memcg=/${id}`, []],
  ])('%s', (text, ids) => expect(killedContainers(text)).toEqual(ids));
});

describe('kills for want of memory', () => {
  it('are those that the kernel’s log names, also when they come later', async () => {
    const kmsg = join(folder, 'kmsg');
    await writeFile(kmsg, `${line(`/kubepods/podu/${other}`)}\n`);
    const kills = createOomKills({ log: silentLog, kmsg, podFolder: () => undefined });
    expect(await kills.killed('u', id)).toBe(false);
    expect(await kills.killed('u', other)).toBe(true);
    await writeFile(kmsg, `${line(`/kubepods/podu/${id}`)}\n`, { flag: 'a' });
    expect(await kills.killed('u', id)).toBe(true);
    kills.close();
  });

  it('are counted in the pod’s cgroup where the log cannot be read', async () => {
    const events = (count: number): Promise<void> =>
      writeFile(join(folder, 'memory.events'), `low 0\nhigh 0\nmax 9\noom 9\noom_kill ${count}\noom_group_kill 0\n`);
    const kills = createOomKills({ log: silentLog, kmsg: join(folder, 'none'), podFolder: () => folder });
    await events(3);
    await kills.begin('u');
    expect(await kills.killed('u', id)).toBe(false);
    await events(4);
    expect(await kills.killed('u', id)).toBe(true);
    expect(await kills.killed('u', other)).toBe(false);
    // A pod that was never begun has a cgroup that is new.
    kills.forget('u');
    expect(await kills.killed('u', id)).toBe(true);
  });

  it('are not known where neither tells', async () => {
    const kills = createOomKills({ log: silentLog, kmsg: join(folder, 'none'), podFolder: () => undefined });
    await kills.begin('u');
    expect(await kills.killed('u', id)).toBe(false);
  });
});
