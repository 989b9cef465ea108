import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createLogRotation, planRotated } from './log-rotation.ts';

describe('what was rotated before', () => {
  it.each([
    ['nothing', [], [], []],
    ['one plain file', ['0.log.20260101-000000'], [], ['0.log.20260101-000000']],
    ['too many', ['0.log.1.gz', '0.log.2.gz', '0.log.3.gz', '0.log.4'], ['0.log.1.gz'], ['0.log.4']],
    ['a half and a double', ['0.log.1', '0.log.1.gz', '0.log.2.tmp'], ['0.log.2.tmp', '0.log.1'], []],
    ['those of others', ['1.log.1', '0.logs'], [], []],
  ])('%s', (_what, names, remove, pack) =>
    expect(planRotated(['0.log', ...names], '0.log', 5)).toEqual({ remove, pack }),
  );
});

describe('log rotation', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sv-log-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it('rotates above the limit, packs what is older, keeps so many', async () => {
    const clock = createFakeClock(Date.UTC(2026, 10, 21, 12));
    const logPath = join(folder, '0.log');
    const rotation = createLogRotation(
      {
        clock,
        log: silentLog,
        running: () => [{ id: 'c', logPath }],
        runtime: { reopenContainerLog: () => writeFile(logPath, '') },
      },
      { maxSizeBytes: 100, maxFiles: 3, intervalMs: 10_000, workers: 2 },
    );
    const { signal } = new AbortController();
    await writeFile(logPath, 'small');
    await rotation.look(signal);
    expect(await readdir(folder)).toEqual(['0.log']);
    for (const letter of ['a', 'b', 'c', 'd']) {
      await writeFile(logPath, letter.repeat(150));
      await clock.advance(1000);
      await rotation.look(signal);
    }
    const names = (await readdir(folder)).sort();
    expect(names).toEqual(['0.log', '0.log.20261121-120003.gz', '0.log.20261121-120004']);
    expect(gunzipSync(await readFile(join(folder, names[1]!))).toString()).toBe('c'.repeat(150));
    expect(await readFile(join(folder, names[2]!), 'utf8')).toBe('d'.repeat(150));
  });

  it('a runtime that does not reopen keeps its file, and a file that is gone is asked for again', async () => {
    const logPath = join(folder, '0.log');
    let fails = true;
    const rotation = createLogRotation(
      {
        clock: createFakeClock(),
        log: silentLog,
        running: () => [{ id: 'c', logPath }],
        runtime: {
          reopenContainerLog: () => (fails ? Promise.reject(new Error('no')) : writeFile(logPath, '')),
        },
      },
      { maxSizeBytes: 10, maxFiles: 3, intervalMs: 10_000, workers: 1 },
    );
    const { signal } = new AbortController();
    await writeFile(logPath, 'x'.repeat(20));
    await rotation.look(signal);
    expect(await readdir(folder)).toEqual(['0.log']);
    await rm(logPath);
    fails = false;
    await rotation.look(signal);
    expect((await stat(logPath)).size).toBe(0);
  });
});
