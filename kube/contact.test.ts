import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import { createContact, createRests } from './contact.ts';
import { ApiError } from './errors.ts';
import { createFakeClient } from './fake-client.ts';
import { createReflector } from './reflector.ts';
import { resources } from './resources.ts';

const never = new AbortController().signal;

describe('contact', () => {
  it('cuts a rest short when the server answers somebody, but not below its least', async () => {
    const clock = createFakeClock();
    const contact = createContact(clock, () => 0);
    const ends: string[] = [];
    const rest = (name: string, ms: number, least: number, signal = never): void =>
      void contact
        .rest(ms, least, signal)
        .then((early) => ends.push(`${name} ${early} at ${clock.monotonicMs() - begun}`));
    const begun = clock.monotonicMs();
    const stop = new AbortController();
    rest('long', 30_000, 500);
    rest('told to wait', 30_000, 10_000);
    rest('short', 1_000, 500);
    rest('stopped', 30_000, 500, stop.signal);
    await clock.advance(300);
    stop.abort();
    await clock.advance(600);
    contact.answered();
    contact.answered();
    await clock.advance(40_000);
    expect(ends).toEqual([
      'stopped false at 300',
      'long true at 900',
      'short true at 900',
      'told to wait true at 10000',
    ]);
  });

  it('hurries less where that is in vain', async () => {
    const clock = createFakeClock();
    const contact = createContact(clock, () => 0);
    const rests = createRests(contact, clock);
    const took = async (): Promise<number> => {
      const begun = clock.monotonicMs();
      let over = false;
      const resting = rests.rest(30_000, 0, never).then(() => {
        over = true;
      });
      while (!over) {
        contact.answered();
        await clock.advance(100);
      }
      await resting;
      return clock.monotonicMs() - begun;
    };
    expect([await took(), await took(), await took()]).toEqual([500, 1_000, 2_000]);
    rests.reset();
    expect(await took()).toBe(500);
  });
});

describe('after an outage', () => {
  it('all watchers are back within a second of the first one', async () => {
    const clock = createFakeClock();
    const client = createFakeClient({ clock });
    let away = false;
    const backAt: number[] = [];
    client.failNext(() => away, new ApiError('unreachable', 'no answer'), Number.POSITIVE_INFINITY);
    const stop = new AbortController();
    const reflectors = Array.from({ length: 12 }, () =>
      createReflector({ client, clock, log: silentLog }, { resource: resources.configMaps }),
    );
    const runs = reflectors.map((reflector) => reflector.run(stop.signal));
    await clock.advance(1_000);
    expect(client.openWatches).toBe(12);
    away = true;
    client.endWatches(new ApiError('unreachable', 'the connection broke'));
    // Their back-offs have grown to 30 s by then.
    await clock.advance(180_000);
    expect(client.openWatches).toBe(0);
    away = false;
    for (let waited = 0; client.openWatches < 12 && waited < 60_000; waited += 50) {
      await clock.advance(50);
      while (backAt.length < client.openWatches) backAt.push(clock.monotonicMs());
    }
    expect(client.openWatches).toBe(12);
    expect(backAt.at(-1)! - backAt[0]!).toBeLessThanOrEqual(1_000);
    stop.abort(new Error('over'));
    await clock.advance(0);
    await Promise.all(runs);
  });
});
