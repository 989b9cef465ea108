import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createFakeClock } from './fake-clock.ts';
import { isAwaited, lockFile } from './file-lock.ts';

const table = (...lines: string[]): string => `${lines.join('\n')}\n`;

describe('who waits for a lock', () => {
  it.each([
    ['nobody', table('1: FLOCK  ADVISORY  WRITE 7 fe:00:99 0 EOF'), false],
    [
      'somebody',
      table('1: FLOCK  ADVISORY  WRITE 7 fe:00:99 0 EOF', '1: -> FLOCK  ADVISORY  WRITE 8 fe:00:99 0 EOF'),
      true,
    ],
    ['somebody, for another file', table('2: -> FLOCK  ADVISORY  WRITE 8 fe:00:100 0 EOF'), false],
    ['somebody, for another kind of lock', table('2: -> POSIX  ADVISORY  WRITE 8 fe:00:99 0 EOF'), false],
  ])('%s', (_who, locks, expected) => expect(isAwaited(locks, 99)).toBe(expected));
});

describe('a locked file', () => {
  const undo: (() => unknown)[] = [];
  afterEach(async () => {
    for (const each of undo.splice(0)) await each();
  });
  const signal = AbortSignal.timeout(20_000);

  it('is held until it is released, and whoever waits for it is noticed', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'file-lock-'));
    undo.push(() => rm(folder, { recursive: true }));
    const path = join(folder, 'kubelet.lock');
    const clock = createFakeClock();
    const lock = await lockFile({ clock }, path, signal);
    undo.push(() => lock.release());
    const another = spawn('flock', ['--exclusive', '--timeout', '15', path, 'true']);
    undo.push(() => another.kill());
    const theirs = new Promise((resolve) => another.once('close', resolve));
    const wanted = lock.wanted(signal);
    let why: string | undefined;
    void wanted.then((told) => (why = told));
    for (let tries = 0; why === undefined && tries < 200; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 25));
      await clock.advance(1_000);
    }
    expect(why).toBe('somebody else waits for the lock');
    lock.release();
    expect(await theirs).toBe(0);
  });

  it('that cannot be made is told of', async () => {
    await expect(lockFile({ clock: createFakeClock() }, '/nowhere/at/all', signal)).rejects.toThrow(
      /cannot lock \/nowhere\/at\/all: .*No such file/,
    );
  });
});
