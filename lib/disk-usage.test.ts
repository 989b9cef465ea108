import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { diskUsage, readDu } from './disk-usage.ts';
import { exec } from './exec.ts';

it('reads what du says', () => {
  expect(readDu('4096\t/a b\0' + '12\t/c\td\n\0' + 'nonsense')).toEqual(
    new Map([
      ['/a b', 4096],
      ['/c\td\n', 12],
    ]),
  );
});

it('counts bytes and inodes of folders, and leaves out what is not there', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'disk usage-'));
  try {
    await writeFile(join(folder, 'one'), Buffer.alloc(100_000, 1));
    const run = async (command: string, args: readonly string[]): Promise<string> =>
      (await exec(command, args, { timeoutMs: 10_000 })).stdout;
    const found = await diskUsage([folder, join(folder, 'none')], run);
    expect([...found.keys()]).toEqual([folder]);
    expect(found.get(folder)!.usedBytes).toBeGreaterThanOrEqual(100_000);
    expect(found.get(folder)!.inodesUsed).toBe(2);
    expect(await diskUsage([], () => Promise.reject(new Error('asked')))).toEqual(new Map());
  } finally {
    await rm(folder, { recursive: true });
  }
});
