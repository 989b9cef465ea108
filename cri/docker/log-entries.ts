// Docker's log answers, taken apart into entries, and entries as lines of CRI's log format. Pure.
import { createFrameParser } from './streams.ts';

export interface LogEntry {
  /** RFC 3339 in UTC with nine digits: as text it sorts by time. */
  readonly time: string;
  readonly stream: 'stdout' | 'stderr';
  /** Without the newline that ends it. */
  readonly text: Uint8Array;
  /** More of the same line follows in the next entry. */
  readonly partial: boolean;
}

export interface EntryParser {
  push(chunk: Uint8Array): LogEntry[];
}

const newline = 0x0a;
const space = 0x20;
/** Docker cuts longer lines into pieces of this size. */
const pieceBytes = 16 * 1024;

function entry(stream: LogEntry['stream'], message: Buffer): LogEntry | undefined {
  const at = message.indexOf(space);
  if (at < 0) return undefined;
  const ended = message[message.length - 1] === newline;
  return {
    time: message.toString('latin1', 0, at),
    stream,
    text: message.subarray(at + 1, ended ? message.length - 1 : message.length),
    partial: !ended,
  };
}

/** For answers with timestamps. A terminal's has no frames: there an entry ends with its newline, or when it is as long as pieces are. */
export const createEntryParser = (tty: boolean): EntryParser => (tty ? rawParser() : framedParser());

function framedParser(): EntryParser {
  const frames = createFrameParser();
  return {
    push: (chunk) =>
      frames.push(chunk).flatMap(({ stream, data }) => {
        const found = entry(stream, data);
        return found ? [found] : [];
      }),
  };
}

function rawParser(): EntryParser {
  let rest: Buffer = Buffer.alloc(0);
  return {
    push(chunk) {
      rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
      const entries: LogEntry[] = [];
      for (let start = 0; ; ) {
        const text = rest.indexOf(space, start) + 1;
        if (text === 0) break;
        const line = rest.indexOf(newline, text);
        const ended = line >= 0 && line - text <= pieceBytes;
        if (!ended && rest.length - text < pieceBytes + 1) {
          rest = rest.subarray(start);
          return entries;
        }
        const end = ended ? line + 1 : text + pieceBytes;
        const found = entry('stdout', rest.subarray(start, end));
        if (found) entries.push(found);
        start = end;
        if (start === rest.length) {
          rest = Buffer.alloc(0);
          return entries;
        }
        if (rest.indexOf(space, start) < 0) {
          rest = rest.subarray(start);
          return entries;
        }
      }
      return entries;
    },
  };
}

const tags = { full: Buffer.from(' F '), partial: Buffer.from(' P ') };
const end = Buffer.from('\n');

/** `<time> <stream> F|P <text>`, a line for each. */
export const criLines = (entries: readonly LogEntry[]): Buffer =>
  Buffer.concat(
    entries.flatMap(({ time, stream, text, partial }) => [
      Buffer.from(`${time} ${stream}`),
      partial ? tags.partial : tags.full,
      text,
      end,
    ]),
  );
