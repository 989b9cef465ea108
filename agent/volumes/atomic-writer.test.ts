import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cleanPayloadPath, type PayloadFile, writePayload } from './atomic-writer.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'payload-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

const files = (texts: Record<string, string>, mode = 0o644): Map<string, PayloadFile> =>
  new Map(Object.entries(texts).map(([path, text]) => [path, { data: Buffer.from(text), mode }]));
const write = (texts: Record<string, string>, mode?: number) =>
  writePayload(dir, files(texts, mode), { nowMs: Date.UTC(2026, 10, 21, 12, 0, 5) });
const visible = async (): Promise<string[]> => (await readdir(dir)).filter((name) => !name.startsWith('..')).sort();

describe('writePayload', () => {
  it('shows files through ..data and a folder named by its time', async () => {
    expect(await write({ a: '1', 'd/e/f': '2', 'd/g': '3' })).toBe('written');
    expect(await readlink(join(dir, '..data'))).toMatch(/^\.\.2026_11_21_12_00_05\.\d+$/);
    expect(await readlink(join(dir, 'a'))).toBe('..data/a');
    expect(await readlink(join(dir, 'd'))).toBe('..data/d');
    expect(await readFile(join(dir, 'd/e/f'), 'utf8')).toBe('2');
  });

  it('writes nothing where nothing changed', async () => {
    await write({ a: '1' });
    const before = await readlink(join(dir, '..data'));
    expect(await write({ a: '1' })).toBe('unchanged');
    expect(await readlink(join(dir, '..data'))).toBe(before);
    await write({});
    const empty = await readlink(join(dir, '..data'));
    expect(await write({})).toBe('unchanged');
    expect(await readlink(join(dir, '..data'))).toBe(empty);
  });

  it('removes what is gone, and old folders, but nothing that is not its own', async () => {
    await write({ a: '1', 'b/c': '2' });
    await mkdir(join(dir, 'nested'));
    await writeFile(join(dir, 'theirs'), '');
    await symlink('/etc', join(dir, 'link'));
    await write({ a: '1', d: '3' });
    expect(await visible()).toEqual(['a', 'd', 'link', 'nested', 'theirs']);
    expect((await readdir(dir)).filter((name) => name.startsWith('..2026'))).toHaveLength(1);
  });

  it('writes anew where only the mode changed', async () => {
    await write({ a: '1' }, 0o644);
    expect(await write({ a: '1' }, 0o400)).toBe('written');
    expect((await stat(join(dir, 'a'))).mode & 0o777).toBe(0o400);
  });

  it('mends what a crash left at any point', async () => {
    for (const point of ['payload-folder-made', 'payload-files-written', 'payload-link-made', 'payload-swapped']) {
      await write({ a: 'old', gone: 'x' });
      const crash = new Error('crash');
      const options = {
        nowMs: Date.UTC(2026, 10, 21),
        faultPoint: (name: string) => {
          if (name === point) throw crash;
        },
      };
      await expect(writePayload(dir, files({ a: 'new' }), options)).rejects.toBe(crash);
      expect(['old', 'new']).toContain(await readFile(join(dir, 'a'), 'utf8'));
      await write({ a: 'new' });
      expect(await visible()).toEqual(['a']);
      expect(await readdir(dir)).toHaveLength(3);
    }
  });

  it('always ends with just the payload, whatever was there', async () => {
    const name = fc.constantFrom('a', 'b', 'c/d', 'c/e', 'f/g/h');
    const payload = fc.dictionary(name, fc.string(), { maxKeys: 5 });
    await fc.assert(
      fc.asyncProperty(fc.array(payload, { maxLength: 6 }), async (steps) => {
        for (const texts of steps) {
          await write(texts);
          const entries = await readdir(join(dir, '..data'), { recursive: true, withFileTypes: true });
          const found = entries.filter((entry) => entry.isFile());
          expect(found).toHaveLength(Object.keys(texts).length);
          for (const [path, text] of Object.entries(texts)) expect(await readFile(join(dir, path), 'utf8')).toBe(text);
          expect(await visible()).toEqual([...new Set(Object.keys(texts).map((path) => path.split('/')[0]))].sort());
        }
      }),
      { numRuns: 25 },
    );
  });
});

describe('cleanPayloadPath', () => {
  it.each(['', '/a', '..', 'a/..', 'a/../b', '..a', '..data/x', '.', 'a/'.repeat(3000), 'x'.repeat(256)])(
    'refuses "%s"',
    (path) => expect(() => cleanPayloadPath(path)).toThrow('invalid path'),
  );
  it.each([
    ['a', 'a'],
    ['a//b/', 'a/b'],
    ['./a', 'a'],
    ['a..b', 'a..b'],
    ['.a', '.a'],
  ])('%s is %s', (path, clean) => expect(cleanPayloadPath(path)).toBe(clean));
  it('never lets a path leave', () =>
    fc.assert(
      fc.property(fc.array(fc.constantFrom('..', '.', '', 'a', '..b', '/'), { maxLength: 6 }), (parts) => {
        let clean: string;
        try {
          clean = cleanPayloadPath(parts.join('/'));
        } catch {
          return;
        }
        expect(join('/volume', clean).startsWith('/volume/')).toBe(true);
        expect(clean.startsWith('..')).toBe(false);
      }),
    ));
});
