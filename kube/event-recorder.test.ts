import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import { ApiError } from './errors.ts';
import { createEventRecorder } from './event-recorder.ts';
import { createFakeClient } from './fake-client.ts';
import { resources } from './resources.ts';

const about = { apiVersion: 'v1', kind: 'Pod', namespace: 'default', name: 'web', uid: 'u1' };

function start(queueLimit = 1000) {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  const dropped: string[] = [];
  const recorder = createEventRecorder(
    { client, clock, log: silentLog, dropped: (why) => void dropped.push(why) },
    { component: 'kubelet', host: 'n1', queueLimit },
  );
  const events = () => client.objects(resources.events);
  return { clock, client, recorder, dropped, events };
}

describe('the event recorder', () => {
  it('writes an event as Kubernetes does', async () => {
    const { clock, recorder, events } = start();
    recorder.record(about, 'Normal', 'Pulled', 'Container image "x" already present');
    await clock.advance(0);
    expect(events()).toHaveLength(1);
    expect(events()[0]).toMatchObject({
      metadata: { name: expect.stringMatching(/^web\.[0-9a-f]{15,16}$/), namespace: 'default' },
      involvedObject: about,
      reason: 'Pulled',
      type: 'Normal',
      count: 1,
      firstTimestamp: '2026-01-01T00:00:00Z',
      source: { component: 'kubelet', host: 'n1' },
      reportingComponent: 'kubelet',
    });
  });

  it('writes the annotations of an event', async () => {
    const { clock, recorder, events } = start();
    recorder.record(about, 'Warning', 'Evicted', 'm', { starved_resource: 'memory' });
    await clock.advance(0);
    expect(events()[0]?.metadata.annotations).toEqual({ starved_resource: 'memory' });
  });

  it('counts the same event up, in a new object where the old one is gone', async () => {
    const { clock, client, recorder, events } = start();
    const record = async (): Promise<void> => {
      recorder.record(about, 'Warning', 'BackOff', 'Back-off restarting');
      await clock.advance(10_000);
    };
    await record();
    await record();
    expect(events()).toHaveLength(1);
    expect(events()[0]).toMatchObject({ count: 2, lastTimestamp: '2026-01-01T00:00:10Z' });
    client.remove(resources.events, { namespace: 'default', name: events()[0]!.metadata.name });
    await record();
    expect(events()).toHaveLength(1);
    expect(events()[0]).toMatchObject({ count: 3, firstTimestamp: '2026-01-01T00:00:00Z' });
  });

  it('combines many that differ by their message alone', async () => {
    const { clock, recorder, events } = start();
    for (let at = 0; at < 14; at++) {
      recorder.record(about, 'Warning', 'Failed', `try ${at}`);
      await clock.advance(1000);
    }
    const combined = events().filter((event) => event.message?.startsWith('(combined from similar events): '));
    expect(events()).toHaveLength(10);
    expect(combined).toHaveLength(1);
    expect(combined[0]).toMatchObject({ count: 5, message: '(combined from similar events): try 13' });
  });

  it('lets 25 through about one object, then one each five minutes', async () => {
    const { clock, recorder, events, dropped } = start();
    for (let at = 0; at < 40; at++) recorder.record(about, 'Warning', `Reason${at}`, 'm');
    await clock.advance(0);
    expect(events()).toHaveLength(25);
    expect(dropped).toEqual(Array.from({ length: 15 }, () => 'spam'));
    await clock.advance(301_000);
    recorder.record(about, 'Warning', 'Later', 'm');
    recorder.record(about, 'Warning', 'Later2', 'm');
    recorder.record({ ...about, name: 'other', uid: 'u2' }, 'Warning', 'Later', 'm');
    await clock.advance(0);
    expect(events()).toHaveLength(27);
  });

  it('waits for a server that is away, and keeps the order', async () => {
    const { clock, client, recorder, events, dropped } = start();
    client.failNext(() => true, new ApiError('unreachable', 'away'), 5);
    recorder.record(about, 'Normal', 'One', 'm');
    recorder.record(about, 'Normal', 'Two', 'm');
    await clock.advance(60_000);
    expect(dropped).toEqual([]);
    const created = client.calls.map((call) => (call.body as { reason?: string }).reason);
    expect(created).toEqual(['One', 'One', 'One', 'One', 'One', 'One', 'Two']);
    expect(events()).toHaveLength(2);
  });

  it('drops what the server refuses, what waits too long and what is too much', async () => {
    const { clock, client, recorder, events, dropped } = start(2);
    client.failNext(() => true, new ApiError('forbidden', 'namespace is being terminated', { status: 403 }));
    recorder.record(about, 'Normal', 'Refused', 'm');
    await clock.advance(0);
    expect(dropped).toEqual(['refused']);
    client.failNext(() => true, new ApiError('unreachable', 'away'), 12);
    for (const reason of ['A', 'B', 'C', 'D']) recorder.record(about, 'Normal', reason, 'm');
    await clock.advance(300_000);
    expect(dropped).toEqual(['refused', 'queue-full', 'queue-full', 'gave-up']);
    expect(events()).toHaveLength(1);
  });

  it('shortens a message to what the API takes', async () => {
    const { clock, recorder, events } = start();
    recorder.record(about, 'Normal', 'Long', 'ä'.repeat(1000));
    await clock.advance(0);
    const { message } = events()[0]!;
    expect(Buffer.byteLength(message!)).toBeLessThanOrEqual(1024);
    expect(message).toMatch(/^ä+\.\.\.$/);
  });

  it('stops after what is queued, or in time', async () => {
    const { clock, client, recorder, events, dropped } = start();
    recorder.record(about, 'Normal', 'One', 'm');
    await recorder.stop();
    expect(events()).toHaveLength(1);
    const second = createEventRecorder(
      { client, clock, log: silentLog, dropped: (why) => void dropped.push(why) },
      { component: 'kubelet', host: 'n1' },
    );
    client.failNext(() => true, new ApiError('unreachable', 'away'), 100);
    second.record(about, 'Normal', 'Never', 'm');
    const stopped = second.stop();
    await clock.advance(2500);
    await stopped;
    expect(dropped).toEqual(['stopped']);
  });
});
