// Keeps the kernel equal to the desired state, in one IP family: takes what is dirty, has the backend write it, and sees to it that one
// service port that cannot be written holds up no other.
//
//              change                        written
//   settled ──────────▶ writing (part) ──────────────────▶ settled
//      │                     │ failed
//      │ foreign change,     ▼
//      │ hourly check     broken ── back-off, 100 ms… ──▶ writing (read the kernel, then all of it) ──▶ settled
//      └────────────────────────────────────────────────▶        │ refused: halves, down to the guilty port
//                                                                 └──▶ settled without it; it is reported
import { createBackoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import { createSlices } from '../lib/slices.ts';
import { describeError, type Log } from '../lib/log.ts';
import { bisectRefused } from './bisect.ts';
import {
  type ApplyResult,
  type Changes,
  type ForeignChange,
  isRejected,
  type NetfilterError,
  type RulesBackend,
} from './backend.ts';
import type { ServicePortKey, ServicePortState } from './model.ts';
import type { ProxyState } from './state.ts';

/** What one service port had in the kernel, and what it has now. */
export interface Written {
  readonly key: ServicePortKey;
  readonly before: ServicePortState | undefined;
  readonly after: ServicePortState | undefined;
}

export interface SyncOutcome {
  readonly full: boolean;
  readonly durationMs: number;
  readonly result: ApplyResult;
  readonly written: readonly Written[];
}

export interface SyncDeps {
  readonly backend: RulesBackend;
  readonly state: ProxyState;
  readonly clock: Clock;
  readonly log: Log;
  /** A write begins: it takes all changes that came until now. */
  onBegin?(): void;
  /** After each success. Its failure is its own affair: it must not throw. */
  onWritten(outcome: SyncOutcome): void;
  /** A write failed, for whatever reason, after so long in milliseconds. */
  onFailure(error: unknown, full: boolean, durationMs: number): void;
  /** A service port was refused by the kernel or its tool; it is told once for each state of the port. */
  onRefused(key: ServicePortKey, state: ServicePortState | undefined, error: NetfilterError): void;
  /** Others touched our rules, or a deletion failed. */
  onForeign?(change: ForeignChange): void;
}

export interface SyncOptions {
  /** Everything is read from the kernel and compared this often, in milliseconds. Default one hour. */
  readonly checkEveryMs?: number;
  /** At least so long between two writes, in milliseconds; 0, the default: as fast as the kernel is. */
  readonly minGapMs?: number;
}

export interface Sync {
  /** Something is dirty. */
  wake(): void;
  /** Everything is to be read and compared, soon: others may have changed it. */
  check(why: string): void;
  /** What rules are made of has changed: everything is to be read and written at once, or a part that brings the change with it. */
  rewrite(due: 'full' | 'part'): void;
  /** True once everything was written. */
  readonly synced: boolean;
  /** Why nothing could be written lately; undefined where all is well. */
  readonly trouble: string | undefined;
  /** Service ports the kernel refuses, and what it said. */
  refused(): ReadonlyMap<ServicePortKey, string>;
  /** Runs until the signal aborts. Start it when all reflectors are synced. */
  run(signal: AbortSignal): Promise<void>;
}

// In a burst: wait until nothing came for `quietMs`, `burstMs` at most.
const quietMs = 8;
const burstMs = 100;
// Foreign changes come in droves (a firewall reloads): read the kernel when they are through, but soon.
const foreignQuietMs = 100;
const refusedRetryMs = 60_000;

export function createSync(deps: SyncDeps, options: SyncOptions = {}): Sync {
  const { backend, state, clock, log } = deps;
  const { checkEveryMs = 3_600_000, minGapMs = 0 } = options;
  const { family } = backend;
  const desired = state.desired(family);
  const backoff = createBackoff<'write'>({ initialMs: 100, maxMs: 30_000 });
  const mends = createBackoff<'foreign'>({ initialMs: foreignQuietMs, maxMs: 30_000, resetAfterMs: 5_000 });
  const inKernel = new Map<ServicePortKey, ServicePortState>();
  const refused = new Map<ServicePortKey, { error: string; state: ServicePortState | undefined }>();
  let changes = 0;
  let checkPending = false;
  // A part is to be written even if nothing is dirty.
  let partDue = false;
  let waker: (() => void) | undefined;
  let fullDueMs = 0;
  let synced = false;
  let trouble: string | undefined;
  let lastEndMs = Number.NEGATIVE_INFINITY;

  const wake = (): void => {
    changes++;
    waker?.();
  };

  // Until a wake or `ms`, whichever is first.
  const pause = (ms: number, signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      const done = (): void => {
        timer.cancel();
        signal.removeEventListener('abort', done);
        waker = undefined;
        resolve();
      };
      const timer = clock.setTimer(ms, done);
      signal.addEventListener('abort', done, { once: true });
      waker = done;
      if (signal.aborted) done();
    });

  const settle = async (signal: AbortSignal): Promise<void> => {
    const startMs = clock.monotonicMs();
    const sinceLast = startMs - lastEndMs;
    if (sinceLast < minGapMs) await clock.sleep(minGapMs - sinceLast, signal);
    else if (sinceLast > burstMs) return;
    for (let seen = -1; seen !== changes && clock.monotonicMs() - startMs < burstMs; ) {
      seen = changes;
      await clock.sleep(quietMs, signal);
    }
  };

  const note = (full: boolean, startedMs: number, result: ApplyResult, written: readonly Written[]): void => {
    for (const { key, after } of written) {
      if (after) inKernel.set(key, after);
      else inKernel.delete(key);
      // What was written may be what worked last: then it is still to be tried.
      if (after === desired.get(key)) refused.delete(key);
    }
    deps.onWritten({ full, durationMs: clock.monotonicMs() - startedMs, result, written });
  };

  const writtenOf = ({ upserts, removals }: Changes): Written[] => [
    ...upserts.map((after) => ({ key: after.port.key, before: inKernel.get(after.port.key), after })),
    ...removals.map((key) => ({ key, before: inKernel.get(key), after: undefined })),
  ];

  const refuse = (key: ServicePortKey, error: NetfilterError): void => {
    const wanted = desired.get(key);
    if (refused.get(key)?.state !== wanted) deps.onRefused(key, wanted, error);
    refused.set(key, { error: error.message, state: wanted });
  };

  const apply = async (part: Changes, full: boolean, startedMs: number, signal: AbortSignal): Promise<void> => {
    let result: ApplyResult;
    try {
      result = await backend.apply(part, desired, { signal, full });
    } catch (error) {
      if (!signal.aborted) deps.onFailure(error, full, clock.monotonicMs() - startedMs);
      throw error;
    }
    note(full, startedMs, result, writtenOf(part));
  };

  const applyPart = (part: Changes, signal: AbortSignal): Promise<void> =>
    apply(part, false, clock.monotonicMs(), signal);

  const bisect = (part: Changes, error: NetfilterError, signal: AbortSignal): Promise<void> =>
    bisectRefused({ apply: applyPart, refuse }, part, error, signal);

  const allStates = async (): Promise<ServicePortState[]> => {
    const states: ServicePortState[] = [];
    const slices = createSlices(clock);
    for (const key of [...desired.keys()]) {
      // A refused port keeps the rules that worked last, if any.
      const wanted = desired.get(key);
      const known = refused.get(key);
      const chosen = known && known.state === wanted ? inKernel.get(key) : wanted;
      if (chosen) states.push(chosen);
      const pause = slices.giveWay();
      if (pause) await pause;
    }
    return states;
  };

  const applyAll = async (signal: AbortSignal): Promise<void> => {
    const startedMs = clock.monotonicMs();
    const reading = backend.adopt(signal);
    reading.catch(() => undefined);
    const upserts = await allStates();
    await backend.prepare?.(upserts, desired);
    await reading;
    const keep = new Set(upserts.map((after) => after.port.key));
    const removals = [...inKernel.keys()].filter((key) => !keep.has(key));
    const everything: Changes = { upserts, removals };
    try {
      await apply(everything, true, startedMs, signal);
    } catch (error) {
      if (!isRejected(error)) throw error;
      const before = new Set([...refused.values()].map((known) => known.state));
      await bisect({ upserts, removals: [] }, error, signal);
      // Nothing was found guilty: the fault lies elsewhere, and trying on at once would not end.
      if ([...refused.values()].every((known) => before.has(known.state))) throw error;
      await applyAll(signal);
    }
  };

  // Each by itself: what it was refused for may have gone.
  const retryRefused = async (signal: AbortSignal): Promise<void> => {
    for (const key of [...refused.keys()]) {
      const wanted = desired.get(key);
      if (!wanted) {
        refused.delete(key);
        continue;
      }
      try {
        await applyPart({ upserts: [wanted], removals: [] }, signal);
      } catch (error) {
        if (!isRejected(error)) throw error;
        refuse(key, error);
      }
    }
  };

  const writeDirty = async (signal: AbortSignal): Promise<void> => {
    // By itself: no service port is to blame where it is refused.
    if (partDue) {
      partDue = false;
      await applyPart({ upserts: [], removals: [] }, signal);
      if (state.dirtyCount(family) === 0) return;
    }
    const keys = state.takeDirty(family);
    deps.onBegin?.();
    const upserts: ServicePortState[] = [];
    const removals: ServicePortKey[] = [];
    for (const key of keys) {
      const wanted = desired.get(key);
      if (wanted) upserts.push(wanted);
      else removals.push(key);
    }
    const part: Changes = { upserts, removals };
    try {
      await applyPart(part, signal);
    } catch (error) {
      if (!isRejected(error)) throw error;
      // What is refused because others took away what it builds on is nobody's fault: news of them may still be under way.
      if (!checkPending) await clock.sleep(foreignQuietMs, signal);
      if (checkPending) return;
      await bisect(part, error, signal);
      // The kernel may not be as it was believed to be: what was refused now may be fine after reading it.
      if (refused.size > 0) fullDueMs = Math.min(fullDueMs, clock.monotonicMs() + refusedRetryMs);
    }
  };

  const writeOnce = async (full: boolean, signal: AbortSignal): Promise<void> => {
    try {
      if (full) {
        // What is asked for from here on is asked for after this reading, and is not made good by it.
        checkPending = false;
        fullDueMs = Number.POSITIVE_INFINITY;
        partDue = false;
        state.takeDirty(family);
        deps.onBegin?.();
        await applyAll(signal);
        await retryRefused(signal);
        fullDueMs = Math.min(fullDueMs, clock.monotonicMs() + (refused.size > 0 ? refusedRetryMs : checkEveryMs));
        synced = true;
      } else {
        await writeDirty(signal);
      }
      trouble = undefined;
      backoff.reset('write');
    } catch (error) {
      if (signal.aborted) return;
      trouble = describeError(error);
      const delayMs = backoff.next('write', clock.monotonicMs());
      log.warn(`could not write the rules for ${family}; everything is read and written again`, {
        error,
        inMs: Math.round(delayMs),
      });
      fullDueMs = clock.monotonicMs() + delayMs;
      await clock.sleep(delayMs, signal).catch(() => undefined);
    } finally {
      lastEndMs = clock.monotonicMs();
    }
  };

  const check = (why: string): void => {
    if (checkPending) return;
    checkPending = true;
    const delayMs = mends.next('foreign', clock.monotonicMs());
    fullDueMs = Math.min(fullDueMs, clock.monotonicMs() + delayMs);
    log.info(`the rules for ${family} are compared with the kernel`, { why, inMs: Math.round(delayMs) });
    waker?.();
  };

  const loop = async (signal: AbortSignal): Promise<void> => {
    while (!signal.aborted) {
      const waitMs = fullDueMs - clock.monotonicMs();
      if (waitMs <= 0) await writeOnce(true, signal);
      else if (state.dirtyCount(family) === 0 && !partDue) await pause(waitMs, signal);
      else {
        await settle(signal).catch(() => undefined);
        if (!signal.aborted) await writeOnce(false, signal);
      }
    }
  };

  return {
    wake,
    check,
    rewrite(due) {
      if (due === 'full') fullDueMs = clock.monotonicMs();
      else partDue = true;
      wake();
    },
    get synced() {
      return synced;
    },
    get trouble() {
      return trouble;
    },
    refused: () => new Map([...refused].map(([key, { error }]) => [key, error])),
    async run(signal) {
      fullDueMs = clock.monotonicMs();
      await Promise.all([
        loop(signal),
        backend.watchForeign((change) => {
          if (!change.routine) deps.onForeign?.(change);
          check(change.what);
        }, signal),
      ]);
    },
  };
}
