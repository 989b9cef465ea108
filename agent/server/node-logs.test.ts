import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { journalArguments, parseNodeLogQuery } from './node-log-query.ts';
import { resolveInside } from './node-logs.ts';

describe('parseNodeLogQuery', () => {
  const parse = (text: string) => parseNodeLogQuery(new URLSearchParams(text));
  it.each([
    '',
    'query=%20',
    'query=--output%3Dx',
    'query=-u',
    'query=a%3Bb',
    'query=a%20b',
    'query=a&query=b&query=c&query=d&query=e',
    'query=a&query=/b',
    'query=/a&query=/b',
    'query=/a&tailLines=1',
    'query=a&tailLines=-1',
    'query=a&tailLines=100001',
    'query=a&tailLines=x',
    'query=a&boot=1',
    'query=a&sinceTime=yesterday',
    'query=a&sinceTime=2026-01-02T00:00:00Z&untilTime=2026-01-01T00:00:00Z',
    'query=a&pattern=a%0Ab',
  ])('refuses %s', (text) => expect(() => parse(text)).toThrow(expect.objectContaining({ status: 400 })));

  it('becomes arguments of journalctl that cannot be taken for others', () => {
    const query = parse('query=kubelet&tailLines=5&sinceTime=2026-01-02T01:00:00%2B01:00&pattern=--x&boot=-1');
    expect(journalArguments(query, query.services)).toEqual([
      '--utc',
      '--no-pager',
      '--output=short-precise',
      '--since=2026-01-02 00:00:00',
      '--pager-end',
      '--lines=5',
      '--unit=kubelet',
      '--grep=--x',
      '--boot=-1',
    ]);
  });
});

describe('resolveInside', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'node-logs-'));
    await mkdir(join(folder, 'log/sub'), { recursive: true });
    await writeFile(join(folder, 'log/sub/a.log'), 'a');
    await writeFile(join(folder, 'secret'), 's');
    await mkdir(join(folder, 'log2'));
    await symlink('../secret', join(folder, 'log/out'));
    await symlink('sub/a.log', join(folder, 'log/in'));
    await symlink('/', join(folder, 'log/root'));
  });
  afterEach(async () => await rm(folder, { recursive: true, force: true }));

  it.each(['sub/a.log', 'in', '', 'sub/../sub/a.log'])('finds %j', async (path) => {
    expect(await resolveInside(join(folder, 'log'), path)).toContain(join(folder, 'log'));
  });
  it.each(['out', '../secret', '../log2', 'root/etc/passwd', 'none', '/etc/passwd', 'sub/a.log/x'])(
    'does not leave for %j',
    async (path) => {
      await expect(resolveInside(join(folder, 'log'), path)).rejects.toMatchObject({ status: 404 });
    },
  );
});
