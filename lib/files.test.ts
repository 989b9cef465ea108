import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFileReader } from './files.ts';

describe('a file that seldom changes', () => {
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'files-'));
    path = join(folder, 'resolv.conf');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('is read again where it was written, replaced, or came back', async () => {
    const read = createFileReader(path);
    await expect(read()).rejects.toMatchObject({ code: 'ENOENT' });
    writeFileSync(path, 'one');
    expect(await read()).toBe('one');
    writeFileSync(path, 'another');
    expect(await read()).toBe('another');
    writeFileSync(`${path}.new`, 'renamed');
    renameSync(`${path}.new`, path);
    expect(await read()).toBe('renamed');
    rmSync(path);
    await expect(read()).rejects.toMatchObject({ code: 'ENOENT' });
    writeFileSync(path, 'back');
    expect(await read()).toBe('back');
  });
});
