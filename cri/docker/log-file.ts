// A container's log file in CRI's format, and the cursor beside it in the state folder. The cursor is saved now and then; what the file
// holds beyond it is counted when the file is opened again, so that neither a crash nor a rotation loses or repeats an entry.

import type { FileHandle } from 'node:fs/promises';
import { mkdir, open, readdir, readFile, rm, stat, truncate } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { readFileIfThere, writeFileAtomic } from '../../lib/files.ts';
import { criLines, type LogEntry } from './log-entries.ts';
import { beginning, createLogPosition, type LogCursor, type LogPosition } from './log-position.ts';

export interface LogFile {
  readonly position: LogPosition;
  append(entries: readonly LogEntry[]): Promise<void>;
  /** Goes on in a new file: the old one was moved away. */
  reopen(): Promise<void>;
  /** Whether everything was copied; then there is nothing to do after a restart. */
  close(finished: boolean): Promise<void>;
}

interface Saved extends LogCursor {
  readonly inode: number;
  /** Size of the file when the cursor was saved. */
  readonly offset: number;
  readonly finished: boolean;
}

const saveEveryBytes = 1024 * 1024;

async function readSaved(path: string): Promise<Saved | undefined> {
  try {
    return JSON.parse((await readFileIfThere(path)) ?? 'null') ?? undefined;
  } catch {
    return undefined;
  }
}

export const logFinished = async (cursorPath: string): Promise<boolean> =>
  (await readSaved(cursorPath))?.finished === true;
export const forgetLog = (cursorPath: string): Promise<void> => rm(cursorPath, { force: true });

/** The file that had this inode, under whatever name a rotation gave it. */
async function findInode(path: string, inode: number): Promise<string | undefined> {
  const folder = dirname(path);
  const names = await readdir(folder).catch(() => []);
  const mine = [path, ...names.map((name) => join(folder, name)).filter((each) => each.startsWith(`${path}.`))];
  for (const each of mine) if ((await stat(each).catch(() => undefined))?.ino === inode) return each;
  return undefined;
}

/** Counts what stands beyond the cursor, and cuts off a line that a crash left half written. */
async function catchUp(path: string, saved: Saved, position: LogPosition): Promise<void> {
  const found = await findInode(path, saved.inode);
  if (!found) return;
  const content = await readFile(found);
  const whole = content.lastIndexOf(0x0a) + 1;
  if (whole < content.length && whole >= saved.offset) await truncate(found, whole);
  for (let start = saved.offset; start < whole; ) {
    const end = content.indexOf(0x0a, start);
    const space = content.indexOf(0x20, start);
    if (space > start && space < end) position.advance(content.toString('latin1', start, space));
    start = end + 1;
  }
}

export async function openLogFile(path: string, cursorPath: string): Promise<LogFile> {
  await mkdir(dirname(path), { recursive: true });
  await mkdir(dirname(cursorPath), { recursive: true, mode: 0o700 });
  const saved = await readSaved(cursorPath);
  const position = createLogPosition(saved ?? beginning);
  if (saved) await catchUp(path, saved, position);

  let file: FileHandle;
  let inode = 0;
  let size = 0;
  let savedAt = 0;
  const save = async (finished: boolean): Promise<void> => {
    const cursor: Saved = { ...position.cursor(), inode, offset: size, finished };
    await writeFileAtomic(cursorPath, JSON.stringify(cursor), 0o600);
    savedAt = size;
  };
  const start = async (): Promise<void> => {
    file = await open(path, 'a', 0o640);
    const { ino, size: bytes } = await file.stat();
    inode = ino;
    size = bytes;
    await save(false);
  };
  await start();

  // Writing and reopening follow one another.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = last.then(work);
    last = turn.catch(() => undefined);
    return turn;
  };

  return {
    position,
    append: (entries) =>
      inTurn(async () => {
        if (entries.length === 0) return;
        const bytes = criLines(entries);
        await file.appendFile(bytes);
        size += bytes.length;
        for (const { time } of entries) position.advance(time);
        if (size - savedAt > saveEveryBytes) await save(false);
      }),
    reopen: () =>
      inTurn(async () => {
        await file.close();
        await start();
      }),
    close: (finished) =>
      inTurn(async () => {
        await save(finished);
        await file.close();
      }),
  };
}
