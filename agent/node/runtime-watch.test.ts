import { describe, expect, it } from 'vitest';
import { createFakeRuntime } from '../../cri/fake-runtime.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { runtimeErrors } from './runtime-state.ts';
import { createRuntimeWatch } from './runtime-watch.ts';

describe('a runtime that hangs or is away', () => {
  it.each(['hang', 'away'] as const)('(%s) is one error after half a minute, and clears by itself', async (how) => {
    const clock = createFakeClock();
    const runtime = createFakeRuntime({ clock });
    let changes = 0;
    const watch = createRuntimeWatch({ runtime, clock, log: silentLog, onChange: () => changes++ });
    const errors = (): string[] => runtimeErrors(watch.state(), clock.monotonicMs());
    const abort = new AbortController();
    void watch.run(abort.signal);
    await clock.advance(100);
    expect(errors()).toEqual([]);
    changes = 0;
    if (how === 'hang') runtime.faults.inject('status', { mode: 'hang', times: Number.POSITIVE_INFINITY });
    else runtime.setDown(true);
    await clock.advance(25_000);
    expect(errors()).toEqual([]);
    await clock.advance(60_000);
    expect(errors()).toEqual(['container runtime is down']);
    expect(changes).toBe(1);
    runtime.faults.clear();
    runtime.setDown(false);
    await clock.advance(15_000);
    expect(errors()).toEqual([]);
    expect(changes).toBe(2);
    abort.abort();
  });
});
