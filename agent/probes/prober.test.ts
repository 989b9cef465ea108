import { describe, expect, it } from 'vitest';
import type { Container, Pod, Probe } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import type { ProbeOutcome } from './attempt.ts';
import { createProber, type ProbedContainer } from './prober.ts';

const success: ProbeOutcome = { kind: 'success' };
const failure: ProbeOutcome = { kind: 'failure', message: 'no' };
const timedOut: ProbeOutcome = { kind: 'failure', message: 'late', timedOut: true };
const exec: Probe = { exec: { command: ['true'] }, periodSeconds: 10, failureThreshold: 3 };
const http: Probe = { httpGet: { port: 80 }, periodSeconds: 10, failureThreshold: 3 };
const pod: Pod = { metadata: { name: 'p', namespace: 'n', uid: 'u' }, spec: { containers: [] } };

function lab(probes: Partial<Container>, answer: (at: number, kind: string) => ProbeOutcome | Promise<ProbeOutcome>) {
  const clock = createFakeClock();
  const start = clock.now();
  const events: string[] = [];
  const changes: number[] = [];
  const tries: string[] = [];
  let busy = 0;
  // Each kind has an object of its own, by which it is known below.
  const container: Container = structuredClone({ name: 'c', ...probes });
  for (const kind of ['startupProbe', 'livenessProbe', 'readinessProbe'] as const)
    if (container[kind]) container[kind] = { ...container[kind] };
  const kindOf = (probe: Probe): string =>
    probe === container.startupProbe ? 'startup' : probe === container.livenessProbe ? 'liveness' : 'readiness';
  const prober = createProber({
    runtime: { execSync: async () => Promise.reject(new Error('not used')) },
    clock,
    log: silentLog,
    events: { record: (about, _type, reason, message) => events.push(`${about.fieldPath} ${reason}: ${message}`) },
    onChange: () => changes.push(clock.now() - start),
    random: () => 0.5,
    busyMs: () => busy,
    attempt: (_deps, target, settle) => {
      const kind = kindOf(target.probe);
      tries.push(`${kind}@${clock.now() - start}`);
      let givenUp = false;
      void Promise.resolve(answer(clock.now() - start, kind)).then((outcome) => {
        if (!givenUp) settle(outcome);
      });
      return () => {
        givenUp = true;
      };
    },
  });
  const sync = (more: Partial<ProbedContainer> = {}, terminating = false, ip = '10.0.0.5'): void =>
    prober.sync(pod, ip, [{ container, id: 'id-1', startedAtMs: start, ...more }], terminating);
  const state = () => prober.state(container, 'id-1');
  const makeBusy = (ms: number): void => {
    busy += ms;
  };
  return { clock, events, changes, tries, prober, sync, state, container, makeBusy };
}

describe('readiness', () => {
  it('is probed at once after the initial delay, then each period', async () => {
    const { clock, tries, changes, sync, state } = lab(
      { readinessProbe: { ...exec, initialDelaySeconds: 3 } },
      () => success,
    );
    sync();
    expect(state()).toMatchObject({ started: true, ready: false });
    await clock.advance(2999);
    expect(tries).toEqual([]);
    await clock.advance(1);
    expect(state().ready).toBe(true);
    expect(changes).toEqual([3000]);
    await clock.advance(20_000);
    expect(tries).toEqual(['readiness@3000', 'readiness@13000', 'readiness@23000']);
    expect(changes).toEqual([3000]);
  });

  it('is probed over the network at quarters of a second after the first time, together with others', async () => {
    const { clock, tries, sync } = lab({ readinessProbe: { ...http, initialDelaySeconds: 1 } }, () => success);
    await clock.advance(90);
    sync({ startedAtMs: clock.now() });
    await clock.advance(30_000);
    expect(tries).toEqual(['readiness@1090', 'readiness@11250', 'readiness@21250']);
  });

  it('falls at the failure that reaches the threshold, and says each', async () => {
    const { clock, events, changes, sync, state } = lab({ readinessProbe: exec }, (at) =>
      at < 10_000 ? success : failure,
    );
    sync();
    await clock.advance(29_999);
    expect(state().ready).toBe(true);
    await clock.advance(1);
    expect(state().ready).toBe(false);
    expect(changes).toEqual([0, 30_000]);
    expect(events).toEqual(Array.from({ length: 3 }, () => 'spec.containers{c} Unhealthy: Readiness probe failed: no'));
  });

  it('needs as many successes as it asks for', async () => {
    const { clock, changes, sync } = lab({ readinessProbe: { ...exec, successThreshold: 3 } }, () => success);
    sync();
    await clock.advance(30_000);
    expect(changes).toEqual([20_000]);
  });

  it('finds a container that has just come up before its period is over, without blaming it', async () => {
    const { clock, events, changes, tries, sync } = lab({ readinessProbe: http }, (at) =>
      at < 450 ? failure : success,
    );
    sync();
    await clock.advance(20_000);
    expect(changes).toEqual([700]);
    expect(tries).toEqual(['readiness@0', 'readiness@100', 'readiness@300', 'readiness@700', 'readiness@10750']);
    expect(events).toHaveLength(1);
  });

  it('runs no commands between periods', async () => {
    const { clock, tries, sync } = lab({ readinessProbe: exec }, () => failure);
    sync();
    await clock.advance(9999);
    expect(tries).toEqual(['readiness@0']);
  });

  it('throws away what says nothing of the container', async () => {
    const { clock, tries, events, sync, state } = lab({ readinessProbe: exec }, (at) =>
      at === 0 ? success : { kind: 'error', message: 'broken' },
    );
    sync();
    await clock.advance(30_000);
    expect(state().ready).toBe(true);
    expect(tries).toHaveLength(1 + 3 * 3);
    expect(events[0]).toBe(
      'spec.containers{c} Unhealthy: Readiness probe errored and resulted in unknown state: broken',
    );
  });

  it('counts a redirect elsewhere as a success, with a warning', async () => {
    const { clock, events, sync, state } = lab({ readinessProbe: http }, () => ({
      kind: 'warning',
      message: 'Probe terminated redirects, Response body: ',
    }));
    sync();
    await clock.advance(0);
    expect(state().ready).toBe(true);
    expect(events).toEqual([
      'spec.containers{c} ProbeWarning: Readiness probe warning: Probe terminated redirects, Response body: ',
    ]);
  });
});

describe('startup', () => {
  const all = { startupProbe: exec, readinessProbe: exec, livenessProbe: exec };

  it('holds the others back, and starts them the moment it succeeds', async () => {
    const { clock, tries, changes, sync, state } = lab(all, (at, kind) =>
      kind === 'startup' && at < 10_000 ? failure : success,
    );
    sync();
    await clock.advance(9_999);
    expect(state()).toMatchObject({ started: false, ready: false });
    await clock.advance(1);
    expect(tries).toEqual(['startup@0', 'startup@10000', 'readiness@10000', 'liveness@10000']);
    expect(state()).toMatchObject({ started: true, ready: true });
    expect(changes).toEqual([10_000, 10_000]);
    await clock.advance(10_000);
    expect(tries.filter((each) => each.startsWith('startup'))).toHaveLength(2);
  });

  it('gives up at its threshold', async () => {
    const { clock, tries, sync, state } = lab(all, () => failure);
    sync();
    await clock.advance(60_000);
    expect(tries).toEqual(['startup@0', 'startup@10000', 'startup@20000']);
    expect(state()).toMatchObject({ started: false, failed: { kind: 'startup', message: 'no' } });
  });
});

describe('liveness', () => {
  it('condemns at its threshold, once, and the next container starts anew', async () => {
    const { clock, changes, tries, sync, state, prober, container } = lab({ livenessProbe: exec }, () => failure);
    sync();
    await clock.advance(60_000);
    expect(state().failed).toEqual({ kind: 'liveness', message: 'no' });
    expect(changes).toEqual([20_000]);
    expect(tries).toHaveLength(3);
    prober.sync(pod, '10.0.0.5', [{ container, id: 'id-2', startedAtMs: clock.now() }], false);
    expect(prober.state(container, 'id-2').failed).toBeUndefined();
    await clock.advance(0);
    expect(tries).toHaveLength(4);
  });

  it('ends when the pod terminates, and readiness goes on', async () => {
    const { clock, tries, sync, state } = lab({ livenessProbe: exec, readinessProbe: exec }, (at) =>
      at < 5000 ? success : failure,
    );
    sync();
    await clock.advance(5000);
    sync({}, true);
    await clock.advance(60_000);
    expect(tries.filter((each) => each.startsWith('liveness'))).toEqual(['liveness@0']);
    expect(state()).toMatchObject({ ready: false, failed: undefined });
  });
});

describe('a restart of the agent', () => {
  it('flips nothing, and spreads the first tries', async () => {
    const { clock, tries, changes, sync, state } = lab(
      { startupProbe: exec, readinessProbe: exec, livenessProbe: exec },
      () => success,
    );
    sync({ adopted: { started: true, ready: true }, startedAtMs: 0 });
    expect(state()).toMatchObject({ started: true, ready: true });
    await clock.advance(20_000);
    expect(tries.slice(0, 2)).toEqual(['readiness@5000', 'liveness@5000']);
    expect(tries.some((each) => each.startsWith('startup'))).toBe(false);
    expect(changes).toEqual([]);
  });

  it('tries at once what was not ready', async () => {
    const { clock, changes, sync, state } = lab({ readinessProbe: exec }, () => success);
    sync({ adopted: { started: true, ready: false }, startedAtMs: 0 });
    expect(state().ready).toBe(false);
    await clock.advance(0);
    expect(changes).toEqual([0]);
  });

  it('still needs the threshold to say unready', async () => {
    const { clock, sync, state } = lab({ readinessProbe: exec }, () => failure);
    sync({ adopted: { started: true, ready: true }, startedAtMs: 0 });
    await clock.advance(24_999);
    expect(state().ready).toBe(true);
    await clock.advance(1);
    expect(state().ready).toBe(false);
  });
});

describe('our own stalls', () => {
  const quick: Probe = { ...exec, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1 };

  it('void a timeout that came while we were busy, and try again at once', async () => {
    let first = true;
    const made = lab({ livenessProbe: quick }, () => {
      if (!first) return success;
      first = false;
      made.makeBusy(800);
      return timedOut;
    });
    made.sync();
    await made.clock.advance(100);
    expect(made.tries).toEqual(['liveness@0', 'liveness@0']);
    expect(made.state().failed).toBeUndefined();
    expect(made.events).toEqual([]);
  });

  it('but not for ever', async () => {
    const made = lab({ livenessProbe: quick }, () => {
      made.makeBusy(800);
      return timedOut;
    });
    made.sync();
    await made.clock.advance(100);
    expect(made.tries).toHaveLength(3);
    expect(made.state().failed?.kind).toBe('liveness');
  });

  it('excuse no answer that came', async () => {
    const made = lab({ livenessProbe: quick }, () => {
      made.makeBusy(5000);
      return failure;
    });
    made.sync();
    await made.clock.advance(100);
    expect(made.tries).toHaveLength(1);
    expect(made.state().failed?.kind).toBe('liveness');
  });
});

describe('containers that come and go', () => {
  it('a container without probes is started and ready', () => {
    const { sync, state } = lab({}, () => failure);
    sync();
    expect(state()).toEqual({ started: true, ready: true });
  });

  it('before any sync the spec speaks', () => {
    const { state } = lab({ startupProbe: exec }, () => success);
    expect(state()).toEqual({ started: false, ready: false });
  });

  it('one that is gone is probed no more', async () => {
    const { clock, tries, sync, prober } = lab({ readinessProbe: exec }, () => success);
    sync();
    await clock.advance(0);
    prober.sync(pod, '10.0.0.5', [], false);
    await clock.advance(60_000);
    expect(tries).toHaveLength(1);
    sync();
    prober.remove('u');
    await clock.advance(60_000);
    expect(tries).toHaveLength(1);
    expect(clock.nextDue()).toBeUndefined();
  });

  it('a result that comes too late changes nothing', async () => {
    const late = Promise.withResolvers<ProbeOutcome>();
    const { clock, changes, sync, prober } = lab({ readinessProbe: exec }, () => late.promise);
    sync();
    await clock.advance(0);
    prober.close();
    late.resolve(success);
    await clock.advance(1000);
    expect(changes).toEqual([]);
  });

  it('connects nowhere before the pod has an address', async () => {
    const { clock, tries, sync } = lab({ readinessProbe: http }, () => success);
    sync({}, false, '');
    await clock.advance(5000);
    expect(tries).toEqual([]);
    sync();
    await clock.advance(0);
    expect(tries).toEqual(['readiness@5000']);
  });
});
