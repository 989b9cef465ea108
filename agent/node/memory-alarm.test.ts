import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Clock } from '../../lib/clock.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { type PodsMemory, podsLeft, watchMemory } from './memory-alarm.ts';

const Mi = 2 ** 20;
const psi = (us: number): string => `some avg10=0.00 avg60=0.00 avg300=0.00 total=${us}\nfull avg10=0.00 total=0\n`;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-alarm-'));
  await mkdir(join(folder, 'proc/pressure'), { recursive: true });
  await host(4096, 0);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** MiB that the host has left, and microseconds that something stalled. */
async function host(available: number, stalled: number): Promise<void> {
  await writeFile(join(folder, 'proc/meminfo'), `MemTotal: 8388608 kB\nMemAvailable: ${available * 1024} kB\n`);
  await writeFile(join(folder, 'proc/pressure/memory'), psi(stalled));
}

/** MiB. */
async function pods(version: 1 | 2, limit: number | 'max', used: number, cache: number): Promise<void> {
  const at = join(folder, 'kubepods');
  await mkdir(at, { recursive: true });
  const bytes = limit === 'max' ? (version === 1 ? '9223372036854771712' : 'max') : String(limit * Mi);
  const [limitFile, usageFile] =
    version === 1 ? ['memory.limit_in_bytes', 'memory.usage_in_bytes'] : ['memory.max', 'memory.current'];
  await writeFile(join(at, limitFile), `${bytes}\n`);
  await writeFile(join(at, usageFile), `${used * Mi}\n`);
  const own = `inactive_file ${version === 1 ? 0 : cache * Mi}\n`;
  await writeFile(join(at, 'memory.stat'), `cache 1\n${own}total_inactive_file ${cache * Mi}\n`);
}

function watching(podsMemory: PodsMemory | undefined) {
  const clock = createFakeClock();
  const stop = new AbortController();
  let alarms = 0;
  // It reads real files: a second is over when it sleeps again.
  let sleeps = 0;
  const asleep = async (times: number): Promise<void> => {
    while (sleeps < times) await sleep(2);
  };
  const counting: Clock = {
    ...clock,
    sleep(ms, signal) {
      sleeps++;
      return clock.sleep(ms, signal);
    },
  };
  const running = watchMemory(
    { clock: counting, proc: join(folder, 'proc') },
    { thresholdBytes: 100 * Mi, podsMemory },
    () => void alarms++,
    stop.signal,
  );
  return {
    /** How many alarms came in a second. */
    async second(): Promise<number> {
      await asleep(1);
      const [before, slept] = [alarms, sleeps];
      await clock.advance(1_000);
      await asleep(slept + 1);
      return alarms - before;
    },
    alarms: () => alarms,
    async end() {
      stop.abort();
      await clock.advance(0);
      await running;
    },
  };
}

describe('what pods have left', () => {
  it.each<[1 | 2, number | 'max', number, number, number | undefined]>([
    [1, 1000, 300, 100, 700],
    [1, 1000, 950, 100, 150],
    [1, 'max', 950, 0, undefined],
    [2, 1000, 300, 100, 700],
    [2, 1000, 950, 100, 150],
    [2, 'max', 950, 0, undefined],
  ])('version %i, limit %s, %i used, %i of it cache', async (version, limit, used, cache, left) => {
    await pods(version, limit, used, cache);
    const found = podsLeft({ version, folder: join(folder, 'kubepods') }, 150 * Mi);
    expect(found === undefined ? undefined : found / Mi).toBe(left);
  });

  it('is unknown where there is no such cgroup', async () => {
    expect(podsLeft({ version: 1, folder: join(folder, 'none') }, 1)).toBeUndefined();
  });
});

describe('the memory alarm', () => {
  it('is quiet where nothing is short', async () => {
    await pods(1, 1000, 300, 0);
    const alarm = watching({ version: 1, folder: join(folder, 'kubepods') });
    expect(await alarm.second()).toBe(0);
    expect(await alarm.second()).toBe(0);
    await alarm.end();
  });

  it('tells when the host is short, and when it stalls', async () => {
    const alarm = watching(undefined);
    expect(await alarm.second()).toBe(0);
    await host(120, 0);
    expect(await alarm.second()).toBe(1);
    await host(4096, 0);
    expect(await alarm.second()).toBe(0);
    await host(4096, 200_000);
    expect(await alarm.second()).toBe(1);
    await alarm.end();
  });

  it.each([1, 2] as const)('tells when pods come near their limit, on version %i', async (version) => {
    const alarm = watching({ version, folder: join(folder, 'kubepods') });
    // Their cgroup is made later.
    expect(await alarm.second()).toBe(0);
    await pods(version, 1000, 900, 200);
    expect(await alarm.second()).toBe(0);
    await pods(version, 1000, 900, 10);
    expect(await alarm.second()).toBe(1);
    await pods(version, 1000, 500, 10);
    expect(await alarm.second()).toBe(0);
    await alarm.end();
  });

  it('on version 2 hears of events at once, also of a cgroup that came later, and once a second at most', async () => {
    const alarm = watching({ version: 2, folder: join(folder, 'kubepods') });
    expect(await alarm.second()).toBe(0);
    await pods(2, 'max', 10, 0);
    const events = join(folder, 'kubepods/memory.events');
    await writeFile(events, 'low 0\noom_kill 0\n');
    expect(await alarm.second()).toBe(0);
    // What was written a moment ago is no event any more.
    await sleep(20);
    expect(alarm.alarms()).toBe(0);
    await writeFile(events, 'low 0\noom_kill 1\n');
    await writeFile(events, 'low 0\noom_kill 2\n');
    for (const deadline = Date.now() + 5_000; alarm.alarms() === 0 && Date.now() < deadline; ) await sleep(10);
    expect(alarm.alarms()).toBe(1);
    await alarm.end();
  });
});
