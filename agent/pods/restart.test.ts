import { describe, expect, it } from 'vitest';
import type { ObservedContainer } from './observed.ts';
import type { RestartBackoff } from './memory.ts';
import { defaultRestartBackoff, nextBackoff, restartBackoffUpTo } from './restart.ts';

const exit = (attempt: number): ObservedContainer =>
  ({
    id: `c${attempt}`,
    metadata: { name: 'c', attempt },
    startedAtMs: 1_000,
    finishedAtMs: 2_000,
  }) as ObservedContainer;

/** The delays, in seconds, after one exit after another. */
function delays(maxMs: number, exits: number): number[] {
  const options = restartBackoffUpTo(maxMs);
  const found: number[] = [];
  let before: RestartBackoff | undefined;
  for (let attempt = 0; attempt < exits; attempt++) {
    before = nextBackoff(before, exit(attempt), options);
    found.push(before.delayMs / 1000);
  }
  return found;
}

describe('the delay before a container runs again', () => {
  it.each([
    [300_000, [0, 10, 20, 40, 80, 160, 300, 300]],
    [30_000, [0, 10, 20, 30, 30, 30, 30, 30]],
    [10_000, [0, 10, 10, 10, 10, 10, 10, 10]],
    [1_000, [0, 1, 1, 1, 1, 1, 1, 1]],
  ])('doubles up to crashLoopBackOff.maxContainerRestartPeriod: %d ms', (maxMs, expected) =>
    expect(delays(maxMs, expected.length)).toEqual(expected),
  );

  it.each([
    [30_000, 30_000],
    [1_000, 1_000],
  ])('is no longer than that after a restart of the agent either: %d ms', (maxMs, delayMs) =>
    expect(nextBackoff(undefined, exit(9), restartBackoffUpTo(maxMs)).delayMs).toBe(delayMs),
  );

  it("is the kubelet's own where nothing is configured", () =>
    expect(restartBackoffUpTo(300_000)).toEqual(defaultRestartBackoff));
});
