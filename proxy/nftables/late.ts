// Deletes endpoints that are no longer drawn a moment after they went: a packet that drew one just before still looks it up.
import type { Clock, Timer } from '../../lib/clock.ts';
import type { ElementMap } from './element-map.ts';
import type { ElementId } from './names.ts';
import type { Book } from './plan.ts';
import type { ElementChange } from './script.ts';

const lateMs = 1_000;

export interface LateDeletionsDeps {
  readonly clock: Clock;
  book(): Book;
  /** What is in the kernel is known. */
  isKnown(): boolean;
  serial(work: () => Promise<void>): Promise<void>;
  delete(due: ElementMap<ElementChange>, signal: AbortSignal): Promise<void>;
  onFailure(error: unknown, signal: AbortSignal): void;
}

export interface LateDeletions {
  /** To be called after each write: what the book has to be deleted late is noted. */
  schedule(signal: AbortSignal): void;
  /** Nothing has been noted any more. */
  forget(): void;
  stop(): void;
}

export function createLateDeletions(deps: LateDeletionsDeps): LateDeletions {
  const { clock } = deps;
  let timer: Timer | undefined;
  let since = new Map<ElementId, number>();

  const schedule = (signal: AbortSignal): void => {
    const now = clock.monotonicMs();
    since = new Map([...deps.book().late.keys()].map((id) => [id, since.get(id) ?? now]));
    if (timer || since.size === 0) return;
    timer = clock.setTimer(lateMs, () => {
      timer = undefined;
      if (!signal.aborted) void deps.serial(() => deleteDue(signal));
    });
  };

  const deleteDue = async (signal: AbortSignal): Promise<void> => {
    if (!deps.isKnown() || signal.aborted) return;
    const book = deps.book();
    // A timer may fire a moment early.
    const dueMs = clock.monotonicMs() - lateMs * 0.9;
    const due = new Map<ElementId, ElementChange>();
    for (const [id, value] of book.late)
      if ((since.get(id) ?? dueMs) <= dueMs) due.set(id, { before: value, after: undefined });
    try {
      await deps.delete(due, signal);
      for (const id of due.keys()) book.late.delete(id);
      book.count -= due.size;
    } catch (error) {
      deps.onFailure(error, signal);
    }
    schedule(signal);
  };

  return {
    schedule,
    forget() {
      since = new Map();
    },
    stop() {
      timer?.cancel();
      timer = undefined;
    },
  };
}
