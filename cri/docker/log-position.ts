// How far a container's log has been copied. Docker can be asked for entries since a time only, and many entries may share one, or be a
// little out of order (its two streams are read side by side). So a position is an anchor in time a little back, and how many entries
// from there on were taken: asked again, Docker gives the same ones in the same order. Pure.

export interface LogCursor {
  /** A time; empty: the beginning. */
  readonly anchor: string;
  /** Entries from the anchor on that were taken. */
  readonly count: number;
  /** The newest time seen; nothing newer is ever passed over. */
  readonly newest: string;
}

export const beginning: LogCursor = { anchor: '', count: 0, newest: '' };

export interface LogPosition {
  /** An entry with this time was taken. */
  advance(time: string): void;
  cursor(): LogCursor;
  /** A filter for the entries that Docker gives since the anchor: false for those taken already. */
  resume(): (time: string) => boolean;
}

/** How far back the anchor stays. */
const slackMs = 2_000;
const mostKept = 4_096;
const keptAfter = 512;

export function createLogPosition(from: LogCursor = beginning): LogPosition {
  let { anchor, count, newest } = from;
  // Times since the anchor, where all of them are known; the anchor moves up only among these.
  let recent: string[] = [];
  const known = newest;
  let moveAt = mostKept;

  const moveAnchor = (): void => {
    if (recent.length === 0) return;
    const back = new Date(Date.parse(newest) - slackMs).toISOString().replace('Z', '000000Z');
    // So much in so short a time is cut: what came out of order among the last of it is near the end.
    const next = recent.length > 2 * mostKept ? recent.at(-keptAfter)! : back;
    if (next <= anchor || next <= known) return;
    const kept = recent.filter((time) => time >= next);
    anchor = next;
    count = kept.length;
    recent = kept;
  };

  return {
    advance(time) {
      if (time < anchor) return;
      count++;
      recent.push(time);
      if (time > newest) newest = time;
      if (recent.length < moveAt) return;
      moveAnchor();
      moveAt = Math.max(mostKept, recent.length * 2);
    },
    cursor() {
      moveAnchor();
      return { anchor, count, newest };
    },
    resume() {
      let left = count;
      return (time) => {
        if (left > 0 && time <= newest) {
          left--;
          return false;
        }
        left = 0;
        return true;
      };
    },
  };
}

/** Docker's `since`: seconds with nine digits after the point. */
export function sinceOf({ anchor }: LogCursor): string {
  if (anchor === '') return '0';
  const seconds = Math.floor(Date.parse(anchor) / 1000);
  const digits = /\.(\d{1,9})/.exec(anchor)?.[1] ?? '';
  return `${seconds}.${digits.padEnd(9, '0')}`;
}
