// One probe of one container: when it is made, and what its results add up to.
//
//   waiting ──due──▶ trying ──outcome──▶ waiting      held: the container is done for, or has started; nothing more is tried
//      ▲               │ voided (our own event loop stalled): again at once
//      └───────────────┘
import type { Clock, Timer } from '../../lib/clock.ts';
import type { Probe } from '../../kube/types/pod.ts';
import { type ProbeOutcome, timeoutMsOf } from './attempt.ts';

export type ProbeKind = 'startup' | 'liveness' | 'readiness';

export interface ProbeWorkerDeps {
  readonly clock: Clock;
  /** See lib/event-loop.ts. */
  readonly busyMs: () => number;
  /** Starts one try; see startProbe. */
  attempt(settle: (outcome: ProbeOutcome) => void): () => void;
  /** Every outcome that counts, for Events and metrics; `quiet` ones were tried between two periods. */
  report(outcome: ProbeOutcome, quiet: boolean, tookMs: number): void;
  /** The threshold was reached. May be called again with the same result. */
  settle(result: 'success' | 'failure', message: string): void;
}

export interface ProbeWorkerOptions {
  readonly kind: ProbeKind;
  readonly probe: Probe;
  /** When the first try is due, in milliseconds of clock.now(). */
  readonly firstAtMs: number;
}

export interface ProbeWorker {
  stop(): void;
}

// A timer this late means that the loop stalled: what it ended may have had an answer waiting.
const stallMs = 200;
const maxVoids = 2;
const maxErrorTries = 3;
/** Between the first tries of a container that is just starting: sooner than its period, as long as trying is cheap. */
const eagerMs = [100, 200, 400, 800, 1600, 3200] as const;

/**
 * After the first try probes over the network come at whole quarters of a second, those of many containers together: waking up for each alone
 * costs twice the processor time. Commands in containers do not: started together they would hold each other up.
 */
const gridMs = 250;

export function createProbeWorker(deps: ProbeWorkerDeps, options: ProbeWorkerOptions): ProbeWorker {
  const { clock } = deps;
  const { kind, probe } = options;
  const periodMs = (probe.periodSeconds || 10) * 1000;
  const needed = { success: probe.successThreshold || 1, failure: probe.failureThreshold || 3 };
  let stopped = false;
  /** Of the try that is under way. */
  let giveUp: (() => void) | undefined;
  let timer: Timer | undefined;
  let last: 'success' | 'failure' | undefined;
  let run = 0;
  let settled = false;
  let voids = 0;
  let eager = 0;
  // Ticks keep their distance from the first, whatever a try takes.
  let tickAt = options.firstAtMs;

  const isEager = (): boolean => !settled && probe.exec === undefined && kind !== 'liveness';

  const wait = (untilMs: number, quiet: boolean): void => {
    timer = clock.setTimer(Math.max(0, untilMs - clock.now()), () => go(quiet));
  };

  const next = (outcome: ProbeOutcome): void => {
    const now = clock.now();
    const failed = outcome.kind === 'failure' || outcome.kind === 'error';
    const soon = failed && isEager() ? eagerMs[eager] : undefined;
    if (soon !== undefined && now + soon < tickAt) {
      eager++;
      wait(now + soon, true);
      return;
    }
    // After a suspend or a long stall the missed ticks are not made up for.
    if (tickAt <= now) tickAt = now;
    else if (probe.exec === undefined) tickAt = Math.ceil(tickAt / gridMs) * gridMs;
    wait(tickAt, false);
  };

  const stalled = (outcome: ProbeOutcome, tookMs: number, busyBefore: number): boolean =>
    outcome.kind === 'failure' &&
    outcome.timedOut === true &&
    voids < maxVoids &&
    (tookMs > timeoutMsOf(probe) + stallMs || deps.busyMs() - busyBefore > timeoutMsOf(probe) / 2);

  /** True where the probe is held from now on. */
  const count = (result: 'success' | 'failure', message: string, quiet: boolean): boolean => {
    // A quiet try may find the container up; that it is not up yet is for the next tick to say.
    if (quiet && result === 'failure') return false;
    run = last === result ? run + 1 : 1;
    last = result;
    if (quiet) tickAt = clock.now() + periodMs;
    if (run < needed[result]) return false;
    settled = true;
    const held = kind === 'startup' || (kind === 'liveness' && result === 'failure');
    if (held) stopped = true;
    deps.settle(result, message);
    return held;
  };

  const finish = (outcome: ProbeOutcome, quiet: boolean, tookMs: number, busyBefore: number): void => {
    if (stalled(outcome, tookMs, busyBefore)) {
      voids++;
      if (!quiet) tickAt -= periodMs;
      timer = clock.setTimer(0, () => go(quiet));
      return;
    }
    voids = 0;
    deps.report(outcome, quiet, tookMs);
    if (outcome.kind === 'gone') return;
    if (outcome.kind !== 'error') {
      const message = outcome.kind === 'failure' ? outcome.message : '';
      if (count(outcome.kind === 'failure' ? 'failure' : 'success', message, quiet)) return;
    }
    // What was told may have stopped us.
    if (!stopped) next(outcome);
  };

  function go(quiet: boolean): void {
    if (!quiet) tickAt += periodMs;
    const startedMs = clock.monotonicMs();
    const busyBefore = deps.busyMs();
    let tries = 0;
    const once = (): void => {
      tries++;
      giveUp = deps.attempt((outcome) => {
        giveUp = undefined;
        if (outcome.kind === 'error' && tries < maxErrorTries) once();
        else finish(outcome, quiet, clock.monotonicMs() - startedMs, busyBefore);
      });
    };
    once();
  }

  wait(options.firstAtMs, false);
  return {
    stop() {
      stopped = true;
      timer?.cancel();
      giveUp?.();
      giveUp = undefined;
    },
  };
}
