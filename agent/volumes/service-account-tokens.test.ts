import { describe, expect, it } from 'vitest';
import { ApiError } from '../../kube/errors.ts';
import { createFakeClient } from '../../kube/fake-client.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createServiceAccountTokens, type TokenWish } from './service-account-tokens.ts';

const wish: TokenWish = {
  namespace: 'default',
  serviceAccount: 'sa',
  audiences: [],
  expirationSeconds: 3600,
  pod: { name: 'p', uid: 'u' },
};
const { signal } = new AbortController();

function setUp(lifeSeconds = 3600) {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  let count = 0;
  let failing = false;
  client.answer(
    (call) => call.subresource === 'token',
    (call) => {
      if (failing) throw new Error('down');
      const expirationTimestamp = new Date(clock.now() + lifeSeconds * 1000).toISOString();
      const body = call.body as { spec: object };
      return {
        ...body,
        spec: { ...body.spec, expirationSeconds: lifeSeconds },
        status: { token: `t${++count}`, expirationTimestamp },
      };
    },
  );
  const tokens = createServiceAccountTokens({ client, clock, log: silentLog }, () => 0);
  return {
    clock,
    client,
    tokens,
    fail: (yes: boolean) => {
      failing = yes;
    },
  };
}

describe('service account tokens', () => {
  it('are kept until 80 % of their life', async () => {
    const { clock, tokens } = setUp();
    expect((await tokens.get(wish, signal)).token).toBe('t1');
    await clock.advance(2_879_000);
    expect((await tokens.get(wish, signal)).token).toBe('t1');
    await clock.advance(2_000);
    expect((await tokens.get(wish, signal)).token).toBe('t2');
  });

  it('are renewed after a day however long they live', async () => {
    const { clock, tokens } = setUp(30 * 24 * 3600);
    const { refreshAtMs } = await tokens.get(wish, signal);
    expect(refreshAtMs - clock.now()).toBe(24 * 3_600_000);
  });

  it('are asked for once at a time, and one for each audience', async () => {
    const { tokens, client } = setUp();
    await Promise.all([tokens.get(wish, signal), tokens.get(wish, signal)]);
    await tokens.get({ ...wish, audiences: ['other'] }, signal);
    expect(client.calls.filter((call) => call.subresource === 'token')).toHaveLength(2);
  });

  it('serve while they are valid where no new one comes, and then no longer', async () => {
    const { clock, tokens, fail } = setUp();
    await tokens.get(wish, signal);
    fail(true);
    await clock.advance(3_000_000);
    const old = await tokens.get(wish, signal);
    expect(old.token).toBe('t1');
    expect(old.refreshAtMs - clock.now()).toBe(10_000);
    await clock.advance(700_000);
    await expect(tokens.get(wish, signal)).rejects.toThrow('token expired and refresh failed');
    fail(false);
    expect((await tokens.get(wish, signal)).token).toBe('t2');
  });

  it('are asked for again for a while where the API server does not know yet whose pod it is', async () => {
    const clock = createFakeClock();
    const client = createFakeClient({ clock });
    let refusals = 0;
    client.answer(
      (call) => call.subresource === 'token',
      (call) => {
        if (clock.monotonicMs() < 2_000) {
          refusals++;
          throw new ApiError('forbidden', 'no relationship found', { status: 403 });
        }
        return { ...(call.body as object), status: { token: 't', expirationTimestamp: '2100-01-01T00:00:00Z' } };
      },
    );
    const tokens = createServiceAccountTokens({ client, clock, log: silentLog }, () => 0);
    const early = tokens.get(wish, signal);
    await clock.advance(3_000);
    expect((await early).token).toBe('t');
    expect(refusals).toBeGreaterThan(2);
  });

  it('are forgotten with their pod', async () => {
    const { tokens } = setUp();
    await tokens.get(wish, signal);
    tokens.forget('u');
    expect((await tokens.get(wish, signal)).token).toBe('t2');
  });
});
