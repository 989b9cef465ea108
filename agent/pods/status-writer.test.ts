import { describe, expect, it } from 'vitest';
import { ApiError } from '../../kube/errors.ts';
import { createFakeClient } from '../../kube/fake-client.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createStatusWriter } from './status-writer.ts';

const pod: Pod = { metadata: { name: 'p', namespace: 'n', uid: 'u', resourceVersion: '1' }, spec: { containers: [] } };

function setUp(refusal: ApiError) {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  client.answer(
    (call) => call.subresource === 'status',
    () => {
      throw refusal;
    },
  );
  const said: string[] = [];
  const say = (message: string): void => void said.push(message);
  const log = { trace: say, debug: say, info: say, warn: say, error: say, child: () => log };
  const writer = createStatusWriter({
    client,
    clock,
    log: log as never,
    current: () => pod,
    onWritten: () => undefined,
  });
  return { clock, client, writer, said };
}

describe('the writer of statuses', () => {
  it.each([
    new ApiError('not-found', 'pods "p" not found', { status: 404 }),
    new ApiError('conflict', 'the UID in the precondition does not match', { status: 409 }),
    new ApiError('invalid', 'Pod "p" is invalid: metadata.uid: Invalid value: "u": field is immutable', {
      status: 422,
    }),
  ])('knows that the pod is gone: $code', async (refusal) => {
    const { clock, client, writer, said } = setUp(refusal);
    writer.submit('u', { phase: 'Failed' });
    await clock.advance(10_000);
    expect(client.calls.filter((call) => call.subresource === 'status')).toHaveLength(1);
    expect(writer.isWritten('u', { phase: 'Failed' })).toBe(true);
    expect(said).toEqual([]);
    await writer.stop();
  });

  it('does not take another refusal for that', async () => {
    const { clock, writer, said } = setUp(new ApiError('invalid', 'Pod "p" is invalid: status.phase', { status: 422 }));
    writer.submit('u', { phase: 'Failed' });
    await clock.advance(10_000);
    expect(writer.isWritten('u', { phase: 'Failed' })).toBe(false);
    expect(said).toHaveLength(1);
    await writer.stop();
  });

  it('writes once what the API shows in other words, and takes it as shown', async () => {
    const clock = createFakeClock();
    const client = createFakeClient({ clock });
    let current = pod;
    client.answer(
      (call) => call.subresource === 'status',
      () => ({
        ...pod,
        metadata: { ...pod.metadata, resourceVersion: '2' },
        status: { phase: 'Failed', message: 'cut' },
      }),
    );
    const log = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, child: () => log };
    const writer = createStatusWriter({
      client,
      clock,
      log: log as never,
      current: () => current,
      onWritten: () => undefined,
    });
    const status = { phase: 'Failed' as const, message: 'cut short by the server' };
    const written = () => client.calls.filter((call) => call.subresource === 'status').length;
    writer.submit('u', status);
    await clock.advance(1_000);
    current = {
      ...pod,
      metadata: { ...pod.metadata, resourceVersion: '2' },
      status: { phase: 'Failed', message: 'cut' },
    };
    writer.submit('u', { ...status });
    await clock.advance(1_000);
    expect(written()).toBe(1);
    expect(writer.isWritten('u', status)).toBe(true);
    // What somebody else changed since is written over.
    current = { ...current, metadata: { ...pod.metadata, resourceVersion: '3' }, status: { phase: 'Running' } };
    writer.submit('u', { ...status });
    await clock.advance(1_000);
    expect(written()).toBe(2);
    await writer.stop();
  });
});
