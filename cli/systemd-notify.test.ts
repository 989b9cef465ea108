import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import { keepWatchdog, watchdogMs } from './systemd-notify.ts';

describe('the watchdog’s limit', () => {
  const socket = { NOTIFY_SOCKET: '/run/systemd/notify' };
  it.each([
    [{}, undefined],
    [{ WATCHDOG_USEC: '60000000' }, undefined],
    [socket, undefined],
    [{ ...socket, WATCHDOG_USEC: '0' }, undefined],
    [{ ...socket, WATCHDOG_USEC: 'x' }, undefined],
    [{ ...socket, WATCHDOG_USEC: '60000000' }, 60_000],
    [{ ...socket, WATCHDOG_USEC: '60000000', WATCHDOG_PID: '7' }, 60_000],
    [{ ...socket, WATCHDOG_USEC: '60000000', WATCHDOG_PID: '8' }, undefined],
  ])('%j', (environment, expected) => expect(watchdogMs(environment, 7)).toBe(expected));
});

describe('the watchdog', () => {
  it('is told four times within each limit, until the signal aborts', async () => {
    const clock = createFakeClock();
    const told: number[] = [];
    const stop = new AbortController();
    const startMs = clock.monotonicMs();
    const done = keepWatchdog(
      {
        clock,
        log: silentLog,
        notify: async (state) => void told.push(state === 'WATCHDOG=1' ? clock.monotonicMs() - startMs : -1),
      },
      60_000,
      stop.signal,
    );
    await clock.advance(50_000);
    expect(told).toEqual([15_000, 30_000, 45_000]);
    stop.abort(new Error('stopping'));
    await expect(done).rejects.toThrow('stopping');
  });

  it('is not told where systemd does not ask', async () => {
    const clock = createFakeClock();
    const stop = new AbortController();
    let told = 0;
    const done = keepWatchdog({ clock, log: silentLog, notify: async () => void told++ }, undefined, stop.signal);
    await clock.advance(600_000);
    stop.abort(new Error('stopping'));
    await done;
    expect(told).toBe(0);
  });
});
