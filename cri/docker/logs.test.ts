// A container that runs, and whose log Docker does not follow: said once, and what comes later is copied all the same.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createLog } from '../../lib/log.ts';
import type { DockerConnection } from './connection.ts';
import { createContainerLogs } from './logs.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-logs-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const frame = (text: string): Buffer => {
  const data = Buffer.from(text);
  const head = Buffer.alloc(8);
  head[0] = 1;
  head.writeUInt32BE(data.length, 4);
  return Buffer.concat([head, data]);
};

it('a container of which Docker takes nothing is told of once, and copied when it does again', async () => {
  const clock = createFakeClock();
  const lines: string[] = [];
  const log = createLog({ level: 'warn', format: 'text', write: (line) => void lines.push(line) });
  let running = true;
  let says: Buffer[] = [];
  let streams = 0;
  const connection = {
    call: (_name: string, _options: unknown, _ms: number, work: (signal: AbortSignal) => Promise<unknown>) =>
      work(new AbortController().signal),
    docker: {
      getContainer: () => ({
        inspect: async () => ({ State: { Running: running, Paused: false } }),
        async logs() {
          streams++;
          const chunks = says;
          says = [];
          return Readable.from(chunks);
        },
      }),
    },
  } as unknown as DockerConnection;
  const logs = createContainerLogs({ connection, clock, log }, join(folder, 'state'));
  const path = join(folder, '0.log');
  const until = async (count: number): Promise<void> => {
    for (let turn = 0; streams < count && turn < 10_000; turn++) await clock.advance(100);
    expect(streams).toBeGreaterThanOrEqual(count);
  };
  await logs.follow({ id: 'c', path, tty: false });
  await until(9);
  expect(lines).toEqual([]);
  await until(40);
  expect(lines.join('')).toMatch(
    /^[^\n]* WARN {2}Docker takes nothing of what a container says [^\n]*container="c"[^\n]*\n$/,
  );
  says = [frame('2026-01-01T00:00:00.000000001Z hello\n')];
  await until(60);
  running = false;
  for (let turn = 0; turn < 100; turn++) await clock.advance(100);
  await logs.close();
  expect(await readFile(path, 'utf8')).toBe('2026-01-01T00:00:00.000000001Z stdout F hello\n');
  // It stood still twice.
  expect(lines).toHaveLength(2);
});
