// How thresholds and observations become pressure and a decision to reclaim, over time. Pure: state in, state out.
import { byUrgency, crossed, type Observations, type PressureKind, pressureOf } from './eviction-signals.ts';
import type { Threshold } from './thresholds.ts';

export interface EvictionState {
  /** Thresholds met at the last look, their grace over. */
  readonly met: readonly Threshold[];
  readonly firstMetMs: ReadonlyMap<Threshold, number>;
  readonly pressureSeenMs: ReadonlyMap<PressureKind, number>;
  readonly last: Observations;
}

export const calm: EvictionState = { met: [], firstMetMs: new Map(), pressureSeenMs: new Map(), last: new Map() };

export interface EvictionLook {
  readonly state: EvictionState;
  readonly pressure: Readonly<Record<PressureKind, boolean>>;
  /** Thresholds to act on now, the most urgent first. */
  readonly act: readonly Threshold[];
}

/** `nowMs` is of a clock that never jumps. */
export function look(
  before: EvictionState,
  thresholds: readonly Threshold[],
  observations: Observations,
  nowMs: number,
  pressureTransitionMs: number,
): EvictionLook {
  // What was met stays met until the minimum reclaim is reached.
  const now = new Set([...crossed(thresholds, observations, false), ...crossed(before.met, observations, true)]);
  const firstMetMs = new Map([...now].map((threshold) => [threshold, before.firstMetMs.get(threshold) ?? nowMs]));
  const pressureSeenMs = new Map(before.pressureSeenMs);
  for (const { signal } of now) pressureSeenMs.set(pressureOf(signal), nowMs);
  for (const [kind, seenMs] of pressureSeenMs) if (nowMs - seenMs >= pressureTransitionMs) pressureSeenMs.delete(kind);
  const met = [...now].filter((threshold) => nowMs - firstMetMs.get(threshold)! >= threshold.graceMs);
  // Figures that are no newer than those already acted upon say nothing about what that did.
  const fresh = met.filter(({ signal }) => {
    const [seen, last] = [observations.get(signal), before.last.get(signal)];
    return seen !== undefined && (last === undefined || seen.atMs === 0 || seen.atMs > last.atMs);
  });
  return {
    state: { met, firstMetMs, pressureSeenMs, last: observations },
    pressure: {
      memory: pressureSeenMs.has('memory'),
      disk: pressureSeenMs.has('disk'),
      pid: pressureSeenMs.has('pid'),
    },
    act: byUrgency(fresh),
  };
}
