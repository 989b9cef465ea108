// One line of a container's log as the runtime wrote it: the CRI format, or Docker's json-file.
//   2016-10-06T00:17:09.669794202Z stdout P log content
// The tag P says that the line goes on in the next record of its stream.

export interface LogRecord {
  /** RFC 3339, as written. */
  readonly time: string;
  readonly stream: 'stdout' | 'stderr';
  /** What the container wrote; ends in a newline unless the record is partial. */
  readonly content: Buffer;
}

const space = 0x20;
const newline = 0x0a;
const brace = 0x7b;
const letterP = 0x50;
const timePattern = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/;
const empty = Buffer.alloc(0);

/** `line` with its newline, if it has one. Undefined where it is no record: such lines are skipped, as the kubelet does. */
export function parseLogLine(line: Buffer): LogRecord | undefined {
  return line[0] === brace ? parseJsonLine(line) : parseCriLine(line);
}

function parseCriLine(line: Buffer): LogRecord | undefined {
  const first = line.indexOf(space);
  if (first < 0) return undefined;
  const second = line.indexOf(space, first + 1);
  if (second < 0) return undefined;
  const third = line.indexOf(space, second + 1);
  if (third < 0) return undefined;
  const time = line.toString('latin1', 0, first);
  if (!timePattern.test(time)) return undefined;
  const stream = line.toString('latin1', first + 1, second);
  if (stream !== 'stdout' && stream !== 'stderr') return undefined;
  // Tags are joined by colons; only the first one matters.
  const tagEnd = line[second + 2];
  const partial = line[second + 1] === letterP && (tagEnd === space || tagEnd === 0x3a);
  const end = partial && line[line.length - 1] === newline ? line.length - 1 : line.length;
  return { time, stream, content: third + 1 < end ? line.subarray(third + 1, end) : empty };
}

function parseJsonLine(line: Buffer): LogRecord | undefined {
  try {
    const value = JSON.parse(line.toString('utf8')) as { log?: unknown; stream?: unknown; time?: unknown };
    const { stream, time, log } = value;
    if ((stream !== 'stdout' && stream !== 'stderr') || typeof time !== 'string' || !timePattern.test(time))
      return undefined;
    return { time, stream, content: Buffer.from(typeof log === 'string' ? log : '', 'utf8') };
  } catch {
    return undefined;
  }
}

/** The time with nine digits after the second, the way `kubectl logs --timestamps` shows it. */
export function fixedTime(time: string): string {
  const parts = timePattern.exec(time);
  return parts ? `${parts[1]}.${(parts[2] ?? '').padEnd(9, '0')}${parts[3]}` : time;
}

/** Milliseconds since the epoch, rounded down; NaN where it is no time. */
export const timeMs = (time: string): number => {
  const parts = timePattern.exec(time);
  return parts ? Date.parse(`${parts[1]}.${(parts[2] ?? '').padEnd(3, '0').slice(0, 3)}${parts[3]}`) : Number.NaN;
};
