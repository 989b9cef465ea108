import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { askHolder, claim, ClaimedError } from './claim.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-claim-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

it('one holds it, others are told who, and can have it afterwards', async () => {
  const path = join(folder, 'x');
  expect(await askHolder(path)).toBeUndefined();
  const first = await claim(path, 'pid 1');
  await expect(claim(path, 'pid 2')).rejects.toEqual(new ClaimedError(path, 'pid 1'));
  await first.release();
  const second = await claim(path, 'pid 2');
  expect(await askHolder(path)).toBe('pid 2');
  await second.release();
});

it('is taken over from one who died with it', async () => {
  const path = join(folder, 'x');
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  expect(spawnSync(process.execPath, ['-e', script]).signal).toBe('SIGKILL');
  const mine = await claim(path, 'pid 3');
  await mine.release();
});

it('of ten at the same time one has it', async () => {
  const path = join(folder, 'x');
  const all = await Promise.allSettled(Array.from({ length: 10 }, (_, at) => claim(path, `pid ${at}`)));
  const held = all.filter((each) => each.status === 'fulfilled');
  expect(held).toHaveLength(1);
  await held[0]?.value.release();
});
