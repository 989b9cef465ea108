import { appendFile, mkdtemp, open, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type LogReadOptions, openContainerLog, tailStart } from './log-reader.ts';

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'log-reader-'));
  path = join(folder, '0.log');
});
afterEach(async () => await rm(folder, { recursive: true, force: true }));

const line = (second: number, text: string, stream = 'stdout', tag = 'F') =>
  `2026-01-01T00:00:${String(second).padStart(2, '0')}.5Z ${stream} ${tag} ${text}\n`;

const never = new AbortController().signal;
const defaults = { timestamps: false, stream: 'All' as const };
const text = async (options: Partial<LogReadOptions>): Promise<string> => {
  const parts: Buffer[] = [];
  for await (const part of await openContainerLog({ ...defaults, path, ...options }, never)) parts.push(part);
  return Buffer.concat(parts).toString();
};

describe('reading', () => {
  beforeEach(async () => {
    await writeFile(
      path,
      line(1, 'one') +
        line(2, 'two-', 'stderr', 'P') +
        line(3, 'end', 'stderr') +
        'rubbish\n' +
        line(4, 'four') +
        line(5, 'five'),
    );
  });

  it.each<[string, Partial<LogReadOptions>, string]>([
    ['everything', {}, 'one\ntwo-end\nfour\nfive\n'],
    ['a tail', { tailLines: 2 }, 'four\nfive\n'],
    ['a tail longer than the file', { tailLines: 100 }, 'one\ntwo-end\nfour\nfive\n'],
    ['no line', { tailLines: 0 }, ''],
    ['since', { sinceMs: Date.UTC(2026, 0, 1, 0, 0, 4) }, 'four\nfive\n'],
    ['the very time counts', { sinceMs: Date.UTC(2026, 0, 1, 0, 0, 5, 500) }, 'five\n'],
    ['so many bytes', { limitBytes: 6 }, 'one\ntw'],
    ['stdout', { stream: 'Stdout' }, 'one\nfour\nfive\n'],
    ['stderr', { stream: 'Stderr' }, 'two-end\n'],
    [
      'times, once for each line',
      { timestamps: true, limitBytes: 80 },
      '2026-01-01T00:00:01.500000000Z one\n2026-01-01T00:00:02.500000000Z two-end\n2026-01-'.slice(0, 80),
    ],
  ])('%s', async (_name, options, expected) => {
    expect(await text(options)).toBe(expected);
  });

  it('shows a last line that is not finished', async () => {
    await appendFile(path, line(6, 'six').trimEnd());
    expect(await text({ tailLines: 1 })).toBe('six');
  });

  it('rejects before anything is sent where there is no file', async () => {
    await rm(path);
    await expect(text({})).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('tailStart', () => {
  it('begins the last n lines of any file', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 30_000 }), { maxLength: 12 }),
        fc.boolean(),
        fc.integer({ min: 0, max: 14 }),
        async (lengths, ended, count) => {
          const lines = lengths.map((length) => `${'x'.repeat(length)}\n`);
          const content = ended ? lines.join('') : `${lines.join('')}open`;
          const all = ended ? lines : [...lines, 'open'];
          await writeFile(path, content);
          const file = await open(path);
          try {
            const start = await tailStart(file, content.length, count);
            expect(content.slice(start)).toBe(count === 0 ? '' : all.slice(-count).join(''));
          } finally {
            await file.close();
          }
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe('following', () => {
  const follow = (options: Partial<LogReadOptions> = {}) => {
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    let seen = '';
    let wake: () => void = () => undefined;
    const done = (async () => {
      const log = await openContainerLog({ ...defaults, path, ended: () => ended, ...options }, never);
      for await (const part of log) {
        seen += part.toString();
        wake();
      }
    })();
    const until = async (expected: string): Promise<void> => {
      const lateMs = Date.now() + 5_000;
      while (seen !== expected && Date.now() < lateMs)
        await Promise.race([
          new Promise<void>((resolve) => {
            wake = resolve;
          }),
          new Promise((resolve) => setTimeout(resolve, 200)),
        ]);
      expect(seen).toBe(expected);
    };
    return { end, done, until, seen: () => seen };
  };

  it('shows what is written and ends when the container has ended and all is read', async () => {
    await writeFile(path, line(1, 'one'));
    const log = follow();
    await log.until('one\n');
    const two = line(2, 'two');
    await appendFile(path, two.slice(0, 30));
    await appendFile(path, two.slice(30));
    await log.until('one\ntwo\n');
    await appendFile(path, line(3, 'last'));
    log.end();
    await log.done;
    expect(log.seen()).toBe('one\ntwo\nlast\n');
  });

  it('goes on across rotation and truncation without loss', async () => {
    await writeFile(path, line(1, 'one'));
    const log = follow({ tailLines: 0 });
    await new Promise((resolve) => setTimeout(resolve, 50));
    await appendFile(path, line(2, 'two'));
    await rename(path, `${path}.20260101-000000`);
    await appendFile(`${path}.20260101-000000`, line(3, 'three'));
    await writeFile(path, line(4, 'four'));
    await log.until('two\nthree\nfour\n');
    await truncate(path, 0);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await appendFile(path, line(5, 'five'));
    await log.until('two\nthree\nfour\nfive\n');
    log.end();
    await log.done;
  });

  it('lets go of everything when it is aborted', async () => {
    await writeFile(path, line(1, 'one'));
    const controller = new AbortController();
    const waiting = (until: AbortSignal) =>
      new Promise<void>((_resolve, reject) => until.addEventListener('abort', () => reject(until.reason)));
    const log = await openContainerLog({ ...defaults, path, ended: waiting }, controller.signal);
    const reader = log[Symbol.asyncIterator]();
    expect((await reader.next()).value?.toString()).toBe('one\n');
    const next = reader.next();
    controller.abort(new Error('gone'));
    await expect(next).rejects.toThrow('gone');
  });
});
