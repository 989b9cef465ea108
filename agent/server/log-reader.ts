// Reads a container's log file: from its end back for a tail, onwards without polling to follow it, across the runtime's rotation.
// What is handed out next is read only when it is asked for, so a slow reader holds one chunk and no more.
import { type FileHandle, open, realpath, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { type FolderWatch, watchFolder } from '../../lib/watch-folder.ts';
import { fixedTime, type LogRecord, parseLogLine, timeMs } from './log-format.ts';

export interface LogReadOptions {
  readonly path: string;
  readonly tailLines?: number | undefined;
  readonly limitBytes?: number | undefined;
  /** Records before this are left out; milliseconds since the epoch. */
  readonly sinceMs?: number | undefined;
  readonly timestamps: boolean;
  readonly stream: 'All' | 'Stdout' | 'Stderr';
  /** Present: go on until the container ended and all is read. Resolves when it ended. */
  readonly ended?: ((signal: AbortSignal) => Promise<void>) | undefined;
}

const chunkBytes = 64 * 1024;
/** A line longer than this is no record of a runtime. */
const maxLineBytes = 4 * 1024 * 1024;
const newline = 0x0a;

/** Where the last `lines` lines of the file begin, as an offset in bytes. Reads from the end. */
export async function tailStart(file: FileHandle, size: number, lines: number): Promise<number> {
  if (lines <= 0) return size;
  const buffer = Buffer.allocUnsafe(chunkBytes);
  let seen = 0;
  for (let end = size; end > 0; ) {
    const start = Math.max(0, end - chunkBytes);
    const { bytesRead } = await file.read(buffer, 0, end - start, start);
    if (bytesRead === 0) return start;
    for (let at = buffer.subarray(0, bytesRead).lastIndexOf(newline); at >= 0; ) {
      // The newline that ends the file ends its last line; it does not begin another.
      if (start + at !== size - 1 && ++seen === lines) return start + at + 1;
      at = at === 0 ? -1 : buffer.lastIndexOf(newline, at - 1);
    }
    end = start;
  }
  return 0;
}

/** Turns records into what the client sees, until the limits it asked for are reached. */
function createShaper(options: LogReadOptions): { shape(line: Buffer, into: Buffer[]): boolean } {
  const { sinceMs, timestamps, stream, tailLines, ended } = options;
  const wanted = stream === 'All' ? undefined : stream === 'Stdout' ? 'stdout' : 'stderr';
  let recordsLeft = tailLines !== undefined && !ended ? tailLines : Number.POSITIVE_INFINITY;
  let bytesLeft = options.limitBytes ?? Number.POSITIVE_INFINITY;
  let lineBegins = true;

  const write = (record: LogRecord, into: Buffer[]): void => {
    if (sinceMs !== undefined && timeMs(record.time) < sinceMs) return;
    if (wanted !== undefined && record.stream !== wanted) return;
    const prefix = timestamps && lineBegins ? Buffer.from(`${fixedTime(record.time)} `, 'latin1') : undefined;
    for (const part of prefix ? [prefix, record.content] : [record.content]) {
      const cut = part.length > bytesLeft ? part.subarray(0, bytesLeft) : part;
      if (cut.length > 0) into.push(cut);
      bytesLeft -= cut.length;
    }
  };

  return {
    shape(line, into) {
      if (recordsLeft <= 0) return false;
      const record = parseLogLine(line);
      if (!record) return true;
      write(record, into);
      recordsLeft--;
      lineBegins = record.content.length === 0 || record.content[record.content.length - 1] === newline;
      return bytesLeft > 0 && recordsLeft > 0;
    },
  };
}

/** Holds back the beginning of a line until its end is read. */
function createLineSplitter(): { push(chunk: Buffer, line: (line: Buffer) => boolean): boolean; rest(): Buffer } {
  let carried: Buffer[] = [];
  let carriedBytes = 0;
  const rest = (): Buffer => {
    const whole = carried.length === 1 ? carried[0]! : Buffer.concat(carried);
    carried = [];
    carriedBytes = 0;
    return whole;
  };
  return {
    push(chunk, line) {
      let from = 0;
      for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, from)) {
        const piece = chunk.subarray(from, at + 1);
        from = at + 1;
        if (carriedBytes > 0) carried.push(piece);
        if (!line(carriedBytes > 0 ? rest() : piece)) return false;
      }
      if (from < chunk.length) {
        if (carriedBytes > maxLineBytes) rest();
        carried.push(Buffer.from(chunk.subarray(from)));
        carriedBytes += chunk.length - from;
      }
      return true;
    },
    rest,
  };
}

/**
 * Opens the log; rejects where that fails (ENOENT: there is none), so that the caller can still answer with an error. The iterable reads
 * on demand and closes what it opened when it ends or is left.
 */
export async function openContainerLog(options: LogReadOptions, signal: AbortSignal): Promise<AsyncIterable<Buffer>> {
  const path = await realpath(options.path);
  const file = await open(path, 'r');
  return readOn(path, file, options, signal);
}

async function* readOn(
  path: string,
  first: FileHandle,
  options: LogReadOptions,
  outer: AbortSignal,
): AsyncGenerator<Buffer> {
  const left = new AbortController();
  const signal = AbortSignal.any([outer, left.signal]);
  const shaper = createShaper(options);
  const lines = createLineSplitter();
  let file = first;
  let next: FileHandle | undefined;
  let watch: FolderWatch | undefined;
  let ended = false;
  let end: Promise<void> | undefined;
  try {
    const size = (await file.stat()).size;
    let position = options.tailLines === undefined ? 0 : await tailStart(file, size, options.tailLines);
    if (!options.ended && options.tailLines === 0) return;
    if (options.ended) {
      watch = watchFolder(dirname(path), basename(path));
      const note = (): void => {
        ended = true;
      };
      end = options.ended(signal).then(note, note);
    }
    for (;;) {
      signal.throwIfAborted();
      // Taken before the read: what a container wrote is in the file before the runtime says that it ended.
      const wasEnded = ended;
      const buffer = Buffer.allocUnsafe(chunkBytes);
      const { bytesRead } = await file.read(buffer, 0, chunkBytes, position);
      if (bytesRead > 0) {
        position += bytesRead;
        const out: Buffer[] = [];
        const more = lines.push(buffer.subarray(0, bytesRead), (line) => shaper.shape(line, out));
        if (out.length > 0) yield Buffer.concat(out);
        if (!more) return;
        continue;
      }
      if (next) {
        await file.close();
        file = next;
        next = undefined;
        position = 0;
        continue;
      }
      if (watch) {
        const turn = await turned(path, file, position);
        if (turn === 'truncated') {
          position = 0;
          lines.rest();
          continue;
        }
        // The old file is read once more to its end before the new one.
        if (turn) {
          next = turn;
          continue;
        }
        if (!wasEnded) {
          await Promise.race([watch.next(signal), ended ? undefined : end]);
          continue;
        }
      }
      const out: Buffer[] = [];
      const rest = lines.rest();
      if (rest.length > 0) shaper.shape(rest, out);
      if (out.length > 0) yield Buffer.concat(out);
      return;
    }
  } finally {
    left.abort();
    watch?.close();
    await next?.close();
    await file.close();
  }
}

/** The file that took the path over, if one did; `truncated` where ours was cut. */
async function turned(path: string, file: FileHandle, position: number): Promise<FileHandle | 'truncated' | undefined> {
  const mine = await file.stat();
  if (mine.size < position) return 'truncated';
  try {
    const there = await stat(path);
    if (there.ino === mine.ino && there.dev === mine.dev) return undefined;
    return await open(path, 'r');
  } catch (error) {
    // Renamed away and not yet made anew: the watch will tell.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
