// What containers wrote: asked of the engine once for each, walked together, and not again before it is due.
import { expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import type { DockerConnection } from './connection.ts';
import type { DiskUsage } from '../../lib/disk-usage.ts';
import { createLayers } from './layers.ts';

function lab(walkMs: number) {
  const clock = createFakeClock();
  const asked: string[] = [];
  const walks: string[][] = [];
  const connection = {
    call: (_name: string, _options: unknown, _ms: number, work: (signal: AbortSignal) => Promise<unknown>) =>
      work(new AbortController().signal),
    docker: {
      getContainer: (id: string) => ({
        async inspect() {
          asked.push(id);
          if (id === 'gone') throw new Error('no such container');
          return { GraphDriver: { Data: id === 'vfs' ? null : { UpperDir: `/layers/${id}` } } };
        },
      }),
    },
  } as unknown as DockerConnection;
  const layers = createLayers({
    connection,
    clock,
    log: silentLog,
    async walk(paths) {
      walks.push([...paths]);
      await clock.advance(walkMs);
      return new Map<string, DiskUsage>(paths.map((path) => [path, { usedBytes: walks.length, inodesUsed: 2 }]));
    },
  });
  return { clock, asked, walks, layers };
}

it('are walked together, and what is gone or has no folder is left out', async () => {
  const { asked, walks, layers } = lab(0);
  const [found] = await Promise.all([layers.usage(['a', 'gone', 'vfs', 'b']), layers.usage(['a'])]);
  expect([...found]).toEqual([
    ['a', expect.objectContaining({ mountpoint: '/layers/a', usedBytes: 1, inodesUsed: 2 })],
    ['b', expect.objectContaining({ mountpoint: '/layers/b' })],
  ]);
  expect(walks).toEqual([['/layers/a', '/layers/b']]);
  await layers.usage(['vfs', 'gone']);
  expect(asked).toEqual(['a', 'gone', 'vfs', 'b', 'gone']);
});

it.each([
  [100, 10_000],
  [2_000, 40_000],
])('walks of %i ms are done again after %i ms', async (walkMs, lifeMs) => {
  const { clock, walks, layers } = lab(walkMs);
  await layers.usage(['a']);
  await clock.advance(lifeMs - 1);
  expect((await layers.usage(['a'])).get('a')?.usedBytes).toBe(1);
  await clock.advance(1);
  expect((await layers.usage(['a'])).get('a')?.usedBytes).toBe(2);
  expect(walks).toHaveLength(2);
  layers.forget('a');
  expect((await layers.usage(['a'])).get('a')?.usedBytes).toBe(3);
});

it('a walk that takes long holds nobody up; what it found is told the next time', async () => {
  const { walks, layers } = lab(6_000);
  expect((await layers.usage(['a'])).size).toBe(0);
  expect((await layers.usage(['a'])).get('a')?.usedBytes).toBe(1);
  expect(walks).toHaveLength(1);
});
