import { describe, expect, it } from 'vitest';
import { preempted } from '../admission/admit-pod.ts';
import { resources } from '../../kube/resources.ts';
import { silentLog } from '../../lib/log.ts';
import type { PodParts } from './pod-parts.ts';
import { createPodLab } from '../../test/lab/pod-lab.ts';

const one = (name = 'c') => [{ name, image: 'i' }];

describe('a pod from its binding to its end', () => {
  it('runs, is shown, ends and goes', async () => {
    const lab = createPodLab();
    lab.bind('a', { containers: one() });
    await lab.clock.advance(2_000);
    expect(lab.pod('a')?.status).toMatchObject({
      phase: 'Running',
      containerStatuses: [{ ready: true, restartCount: 0 }],
    });
    await lab.delete('a', 5);
    await lab.clock.advance(10_000);
    expect(lab.pod('a')).toBeUndefined();
    expect(lab.runtime.sandboxes()).toEqual([]);
    await lab.stop();
  });

  it('is not begun any more when it is deleted while its sandbox waits for its turn', async () => {
    const lab = createPodLab({ lanes: 1 });
    lab.runtime.faults.inject('runSandbox', { mode: 'late', ms: 1_500 });
    lab.bind('slow', { containers: one() });
    await lab.clock.advance(100);
    lab.bind('waits', { containers: one() });
    lab.bind('next', { containers: one() });
    await lab.clock.advance(500);
    await lab.delete('waits', 5);
    await lab.clock.advance(500);
    // Before the first sandbox stands.
    expect(lab.pod('waits')).toBeUndefined();
    await lab.clock.advance(5_000);
    const made = lab.runtime.faults.calls.filter(({ call }) => call === 'runSandbox');
    expect(made).toHaveLength(2);
    expect(lab.running('slow')).toEqual(['c']);
    expect(lab.running('next')).toEqual(['c']);
    expect(lab.events.filter((each) => each.startsWith('FailedCreatePodSandBox'))).toEqual([]);
    await lab.stop();
  });

  it('keeps CrashLoopBackOff, its count and its container over a restart of the agent', async () => {
    const lab = createPodLab();
    lab.runtime.behave('i', { exitAfterMs: 100, exitCode: 1 });
    lab.bind('a', { containers: one() });
    await lab.clock.advance(15_000);
    const before = lab.pod('a')?.status?.containerStatuses?.[0];
    expect(before).toMatchObject({ restartCount: 2, state: { waiting: { reason: 'CrashLoopBackOff' } } });
    lab.restart();
    await lab.clock.advance(1_000);
    expect(lab.pod('a')?.status?.containerStatuses?.[0]).toEqual(before);
    await lab.clock.advance(20_000);
    expect(lab.pod('a')?.status?.containerStatuses?.[0]?.restartCount).toBe(3);
    await lab.stop();
  });

  it('does not start a pod again that has ended, after a restart and with nothing left in the runtime', async () => {
    const lab = createPodLab();
    lab.runtime.behave('i', { exitAfterMs: 100, exitCode: 0 });
    lab.bind('a', { containers: one(), restartPolicy: 'Never' });
    await lab.clock.advance(2_000);
    expect(lab.pod('a')?.status?.phase).toBe('Succeeded');
    const shown = lab.pod('a')?.status;
    for (const { id } of lab.runtime.containers()) await lab.runtime.removeContainer(id);
    for (const { id } of lab.runtime.sandboxes()) await lab.runtime.removeSandbox(id);
    lab.restart();
    await lab.clock.advance(120_000);
    expect(lab.runtime.containers()).toEqual([]);
    expect(lab.pod('a')?.status?.containerStatuses).toEqual(shown?.containerStatuses);
    await lab.stop();
  });

  it('lets go of what the runtime keeps of ended pods when the disk is short; what is shown of them stays', async () => {
    const lab = createPodLab();
    lab.runtime.behave('ends', { exitAfterMs: 100, exitCode: 0 });
    lab.bind('a', { containers: [{ name: 'c', image: 'ends' }], restartPolicy: 'Never' });
    lab.bind('b', { containers: one() });
    await lab.clock.advance(2_000);
    const shown = lab.pod('a')?.status;
    expect(shown?.phase).toBe('Succeeded');
    const letGo = lab.agent().workers.letGo(new AbortController().signal);
    await lab.clock.advance(1_000);
    await letGo;
    expect(lab.runtime.containers()).toHaveLength(1);
    expect(lab.running('b')).toEqual(['c']);
    expect(lab.runtime.sandboxes()).toHaveLength(1);
    await lab.clock.advance(120_000);
    expect(lab.pod('a')?.status?.containerStatuses).toEqual(shown?.containerStatuses);
    expect(lab.pod('a')?.status?.phase).toBe('Succeeded');
    await lab.delete('a', 0);
    await lab.clock.advance(5_000);
    expect(lab.pod('a')).toBeUndefined();
    await lab.stop();
  });

  it('evicted: keeps why over a restart, and is Failed only when nothing runs', async () => {
    const lab = createPodLab();
    lab.runtime.behave('i', { onStop: 'ignore' });
    lab.bind('a', { containers: one() });
    await lab.clock.advance(2_000);
    lab.agent().workers.evict('uid-a', { reason: 'Evicted', message: 'no room', graceSeconds: 20 });
    await lab.clock.advance(1_000);
    expect(lab.pod('a')?.status?.phase).toBe('Running');
    lab.restart();
    await lab.clock.advance(5_000);
    expect(lab.pod('a')?.status?.phase).toBe('Running');
    await lab.clock.advance(30_000);
    expect(lab.pod('a')?.status).toMatchObject({ phase: 'Failed', reason: 'Evicted', message: 'no room' });
    await lab.stop();
  });

  it.each([
    ['all exit with 0: succeeded, without the reason', 0, [], { phase: 'Succeeded' }],
    [
      'one does not: failed, with the reason',
      0,
      ['j'],
      { phase: 'Failed', reason: 'Preempting', message: 'Preempted in order to admit critical pod' },
    ],
    [
      'none does: failed, with the reason',
      143,
      [],
      { phase: 'Failed', reason: 'Preempting', message: 'Preempted in order to admit critical pod' },
    ],
  ])('preempted, %s; the condition is there in any case', async (_name, exitCode, failing, expected) => {
    const lab = createPodLab();
    lab.runtime.behave('i', { onStop: { exitCode } });
    for (const image of failing) lab.runtime.behave(image, { onStop: { exitCode: 1 } });
    lab.bind('a', { containers: [...one(), ...failing.map((image) => ({ name: image, image }))] });
    await lab.clock.advance(2_000);
    lab.agent().workers.evict('uid-a', { ...preempted, graceSeconds: 20 });
    await lab.clock.advance(30_000);
    const { phase, reason, message, conditions } = lab.pod('a')?.status ?? {};
    expect({ phase, ...(reason ? { reason } : {}), ...(message ? { message } : {}) }).toEqual(expected);
    expect(conditions?.find(({ type }) => type === 'DisruptionTarget')).toMatchObject({
      status: 'True',
      reason: 'TerminationByKubelet',
      message: 'Pod was preempted by Kubelet to accommodate a critical pod.',
    });
    await lab.stop();
  });

  it('keeps the newest dead container of each name and removes older ones', async () => {
    const lab = createPodLab();
    lab.runtime.behave('i', { exitAfterMs: 100, exitCode: 1 });
    lab.bind('a', { containers: one() });
    await lab.clock.advance(200_000);
    expect(lab.pod('a')?.status?.containerStatuses?.[0]?.restartCount).toBeGreaterThan(3);
    expect(lab.runtime.containers()).toHaveLength(1);
    await lab.stop();
  });

  it('gets over a start that never answers', async () => {
    const lab = createPodLab();
    lab.runtime.faults.inject('startContainer', { mode: 'hang' });
    lab.bind('a', { containers: one() });
    lab.bind('b', { containers: one() });
    await lab.clock.advance(5_000);
    expect([...lab.running('a'), ...lab.running('b')]).toHaveLength(1);
    await lab.clock.advance(180_000);
    expect([lab.running('a'), lab.running('b')]).toEqual([['c'], ['c']]);
    await lab.stop();
  });

  it.each([
    'runSandbox',
    'createContainer',
    'startContainer',
    'stopContainer',
    'stopSandbox',
    'removeContainer',
  ] as const)('gets over %s that is carried out, but answers with a broken connection', async (call) => {
    const lab = createPodLab();
    lab.runtime.faults.inject(call, { mode: 'fail', applied: true });
    lab.bind('a', { containers: one() });
    await lab.clock.advance(60_000);
    expect(lab.running('a')).toEqual(['c']);
    await lab.delete('a', 2);
    await lab.clock.advance(60_000);
    expect(lab.pod('a')).toBeUndefined();
    expect(lab.runtime.sandboxes()).toEqual([]);
    expect(lab.runtime.violations).toEqual([]);
    await lab.stop();
  });
});

describe('an operation that the runtime refuses', () => {
  it.each([
    { times: 1, told: 0 },
    { times: 4, told: 1 },
  ])('$times times is warned of $told times', async ({ times, told }) => {
    const warnings: string[] = [];
    const lab = createPodLab({ log: { ...silentLog, warn: (message) => void warnings.push(message) } });
    lab.bind('a', { containers: one() });
    await lab.clock.advance(2_000);
    lab.runtime.faults.inject('stopContainer', { mode: 'fail', times });
    await lab.delete('a', 2);
    await lab.clock.advance(60_000);
    expect(lab.pod('a')).toBeUndefined();
    expect(warnings.filter((message) => message.startsWith('stop-container'))).toHaveLength(told);
    await lab.stop();
  });
});

it('a runtime that is away is complained of once for each pod, and once more when it is away again', async () => {
  const warnings: string[] = [];
  const lab = createPodLab({ log: { ...silentLog, warn: (message) => void warnings.push(message) } });
  lab.bind('a', { containers: one() });
  await lab.clock.advance(2_000);
  const looks = (): number => warnings.filter((message) => message.startsWith('looking after a pod failed')).length;
  for (const times of [1, 2]) {
    // What failed makes the next look ask the runtime for all of the pod.
    lab.runtime.faults.inject('createContainer', { mode: 'fail' });
    lab.runtime.faults.inject('listSandboxes', { mode: 'fail', times: 6 });
    for (const { id, state } of lab.runtime.containers()) if (state === 'running') lab.runtime.kill(id, 1);
    await lab.clock.advance(120_000);
    expect(looks()).toBe(times);
  }
  expect(lab.running('a')).toEqual(['c']);
  await lab.stop();
});

it('a container that is replaced for its image is not shown as ended before it runs again', async () => {
  const lab = createPodLab();
  lab.bind('a', { containers: one() });
  await lab.clock.advance(2_000);
  const pod = lab.pod('a')!;
  lab.runtime.faults.inject('startContainer', { mode: 'late', ms: 900 });
  await lab.client.update(resources.pods, { ...pod, spec: { ...pod.spec, containers: [{ name: 'c', image: 'j' }] } });
  const seen = new Set<string>();
  for (let step = 0; step < 300; step++) {
    await lab.clock.advance(10);
    const status = lab.pod('a')?.status;
    const ready = status?.conditions?.find(({ type }) => type === 'Ready')?.status;
    seen.add(
      `${ready} ${Object.keys(status?.containerStatuses?.[0]?.state ?? {})} ${status?.containerStatuses?.[0]?.restartCount}`,
    );
  }
  expect([...seen]).toEqual(['True running 0', 'True running 1']);
  await lab.stop();
});

describe('names that a hung call of the runtime keeps', () => {
  it.each(['runSandbox', 'createContainer'] as const)('%s goes on with the next attempt', async (call) => {
    const lab = createPodLab();
    lab.runtime.faults.inject(call, { mode: 'fail', code: 'already-exists', times: 3 });
    lab.bind('a', { containers: one() });
    await lab.clock.advance(30_000);
    expect(lab.running('a')).toEqual(['c']);
    const attempts = [
      lab.runtime.sandboxes()[0]?.config.metadata.attempt,
      lab.runtime.containers()[0]?.config.metadata.attempt,
    ];
    expect(attempts).toEqual(call === 'runSandbox' ? [1, 0] : [0, 1]);
    await lab.stop();
  });
});

describe('what a maintainer would warn of', () => {
  it('a container that ran and is nowhere now ended with 137, and does not run again under Never', async () => {
    const lab = createPodLab();
    lab.bind('a', { containers: one(), restartPolicy: 'Never' });
    await lab.clock.advance(2_000);
    lab.runtime.mapEvents(() => []);
    lab.agent().workers.account('uid-a');
    for (const { id } of lab.runtime.containers()) await lab.runtime.removeContainer(id);
    lab.restart();
    await lab.clock.advance(120_000);
    expect(lab.runtime.containers()).toEqual([]);
    expect(lab.pod('a')?.status).toMatchObject({
      phase: 'Failed',
      containerStatuses: [{ state: { terminated: { exitCode: 137, reason: 'ContainerStatusUnknown' } } }],
    });
    await lab.stop();
  });

  it('a pod deleted and made again by the same name, seen as one change, is two pods', async () => {
    const lab = createPodLab();
    lab.bind('a', { containers: one() });
    await lab.clock.advance(2_000);
    const release = lab.client.holdNext(({ verb }) => verb === 'list');
    lab.client.expireHistory();
    lab.client.endWatches();
    const { remove } = lab.client;
    const { resources } = await import('../../kube/resources.ts');
    remove.call(lab.client, resources.pods, { namespace: 'n', name: 'a' });
    lab.bind('a', { containers: one('other') }, { uid: 'uid-second' });
    release();
    await lab.clock.advance(30_000);
    expect(lab.running('a')).toEqual(['other']);
    expect(lab.runtime.sandboxes().map(({ config }) => config.metadata.uid)).toEqual(['uid-second']);
    await lab.stop();
  });

  it('a forced deletion in the middle of a stop shortens the grace by a second call, and the pod ends all the same', async () => {
    const lab = createPodLab();
    lab.runtime.behave('i', { onStop: 'ignore' });
    lab.bind('a', { containers: one(), terminationGracePeriodSeconds: 600 });
    await lab.clock.advance(2_000);
    await lab.delete('a', 600);
    await lab.clock.advance(5_000);
    expect(lab.running('a')).toEqual(['c']);
    await lab.delete('a', 0);
    await lab.clock.advance(10_000);
    expect(lab.runtime.faults.calls.filter(({ call }) => call === 'stopContainer')).toHaveLength(2);
    expect(lab.runtime.sandboxes()).toEqual([]);
    await lab.stop();
  });

  it('nothing unknown is killed before the API server has told of its pods', async () => {
    const lab = createPodLab();
    lab.bind('a', { containers: one() });
    await lab.clock.advance(2_000);
    const release = lab.client.holdNext(({ verb }) => verb === 'list' || verb === 'watch');
    lab.restart();
    await lab.clock.advance(25_000);
    expect(lab.running('a')).toEqual(['c']);
    release();
    await lab.clock.advance(60_000);
    expect(lab.running('a')).toEqual(['c']);
    expect(lab.runtime.faults.calls.filter(({ call }) => call === 'stopContainer')).toEqual([]);
    await lab.stop();
  });

  it('a pod that is gone from the API while the agent is away ends in order', async () => {
    const lab = createPodLab();
    lab.bind('a', { containers: one() });
    await lab.clock.advance(2_000);
    const { resources } = await import('../../kube/resources.ts');
    lab.agent().kill();
    lab.client.remove(resources.pods, { namespace: 'n', name: 'a' });
    lab.restart();
    await lab.clock.advance(60_000);
    expect(lab.runtime.sandboxes()).toEqual([]);
    await lab.stop();
  });

  it('the final deletion carries the uid, and comes only when the API shows the end', async () => {
    const lab = createPodLab();
    lab.bind('a', { containers: one() });
    await lab.clock.advance(2_000);
    await lab.delete('a', 5);
    const shown: (string | undefined)[] = [];
    const took = lab.client.answer(
      ({ verb, resource }) => verb === 'delete' && resource?.plural === 'pods',
      ({ options }) => {
        shown.push(lab.pod('a')?.status?.phase, JSON.stringify(options));
        return {};
      },
    );
    await lab.clock.advance(10_000);
    took();
    expect(shown[0]).toMatch(/Succeeded|Failed/);
    expect(shown[1]).toContain('"preconditions":{"uid":"uid-a"}');
    await lab.stop();
  });

  it('one patch of a status at a time, each with the uid', async () => {
    const lab = createPodLab();
    let under = 0;
    let most = 0;
    const bodies: unknown[] = [];
    lab.client.answer(
      ({ verb }) => verb === 'patch',
      async ({ body }) => {
        most = Math.max(most, ++under);
        bodies.push(body);
        await lab.clock.sleep(300);
        under--;
        return lab.pod('a');
      },
    );
    lab.bind('a', { containers: one() });
    await lab.clock.advance(3_000);
    expect(most).toBe(1);
    expect(bodies.every((body) => (body as { metadata: { uid: string } }).metadata.uid === 'uid-a')).toBe(true);
    await lab.stop();
  });
});

describe('room on the node', () => {
  it('is free again as soon as a pod is forced out of the API, as the scheduler sees it, not before one has ended', async () => {
    const beside: Record<string, string[]> = {};
    const lab = createPodLab({
      admit: async (pod, others) => {
        beside[pod.metadata.name] = others.map(({ metadata }) => metadata.name);
        return { admitted: true };
      },
    });
    lab.runtime.behave('i', { onStop: 'ignore' });
    lab.bind('a', { containers: one() });
    lab.bind('b', { containers: one() });
    await lab.clock.advance(2_000);
    await lab.delete('a', 30);
    await lab.delete('b', 0);
    await lab.clock.advance(200);
    expect(lab.running('b')).toEqual(['c']);
    lab.bind('c', { containers: one() });
    await lab.clock.advance(500);
    expect(beside.c).toEqual(['a']);
    await lab.stop();
  });
});

it('a preStop hook that outlives the grace is left to its container’s end, not cut short', async () => {
  const cut: number[] = [];
  const hook: PodParts['hook'] = (_kind, _call, signal) =>
    new Promise((_resolve, reject) =>
      signal.addEventListener('abort', () => {
        cut.push(lab.clock.now() - begunMs);
        reject(signal.reason as Error);
      }),
    );
  const lab = createPodLab({ parts: { hook } });
  lab.runtime.behave('i', { onStop: { afterMs: 1_500 } });
  lab.bind('a', { containers: [{ name: 'c', image: 'i', lifecycle: { preStop: { exec: { command: ['x'] } } } }] });
  await lab.clock.advance(3_000);
  const begunMs = lab.clock.now();
  await lab.delete('a', 5);
  await lab.clock.advance(6_000);
  expect(lab.running('a')).toEqual(['c']);
  expect(cut).toEqual([]);
  await lab.clock.advance(60_000);
  expect(lab.pod('a')).toBeUndefined();
  expect(cut[0]).toBeGreaterThan(30_000);
  await lab.stop();
});

describe('a container that is stopped to run again', () => {
  it.each([
    ['for a failed probe, under OnFailure', 'OnFailure' as const, true],
    ['for another image, under Never', 'Never' as const, false],
  ])('%s, does not end its pod on the way, though it exits with 0', async (_name, restartPolicy, probed) => {
    let failed: 'liveness' | undefined;
    const lab = createPodLab({ probe: () => ({ started: true, failed, ready: true }) });
    const phases = new Set<string | undefined>();
    lab.runtime.behave('i', { onStop: { afterMs: 300, exitCode: 0 } });
    const containers = one('main');
    lab.bind('a', { restartPolicy, containers });
    await lab.clock.advance(3_000);
    if (probed) failed = 'liveness';
    else {
      const pod = structuredClone(lab.pod('a')!);
      pod.spec.containers[0]!.image = 'j';
      await lab.client.update(resources.pods, pod);
    }
    lab.agent().workers.wake('uid-a');
    await lab.clock.advance(100);
    failed = undefined;
    for (let i = 0; i < 500; i++) {
      await lab.clock.advance(10);
      phases.add(lab.pod('a')?.status?.phase);
    }
    expect([...phases]).toEqual(['Running']);
    expect(lab.running('a')).toEqual(['main']);
    expect(lab.pod('a')?.status?.containerStatuses?.[0]?.restartCount).toBe(1);
    await lab.stop();
  });
});

describe('a rule that restarts all containers', () => {
  const rules = {
    restartPolicy: 'Never' as const,
    restartPolicyRules: [
      { action: 'RestartAllContainers' as const, exitCodes: { operator: 'In' as const, values: [42] } },
    ],
  };

  it('removes them all and begins anew with the init containers, in the same sandbox', async () => {
    const lab = createPodLab();
    lab.runtime.behave((config) => config.metadata.name === 'init', { exitAfterMs: 50, exitCode: 0 });
    lab.bind('a', {
      restartPolicy: 'Never',
      initContainers: one('init'),
      containers: [{ name: 'main', image: 'i', ...rules }, ...one('other')],
    });
    await lab.clock.advance(3_000);
    expect(lab.running('a')).toEqual(['main', 'other']);
    const before = lab.runtime.containers().map(({ id }) => id);
    lab.runtime.kill(lab.runtime.containers().find((each) => each.config.metadata.name === 'main')!.id, 42);
    await lab.clock.advance(5_000);
    expect(lab.running('a')).toEqual(['main', 'other']);
    expect(lab.runtime.containers().filter(({ id }) => before.includes(id))).toEqual([]);
    expect(lab.runtime.sandboxes()).toHaveLength(1);
    const { status } = lab.pod('a')!;
    expect(status?.phase).toBe('Running');
    expect(status?.containerStatuses?.map(({ restartCount }) => restartCount)).toEqual([1, 1]);
    expect(status?.initContainerStatuses?.map(({ restartCount }) => restartCount)).toEqual([1]);
    expect(status?.conditions?.find(({ type }) => type === 'AllContainersRestarting')?.status).toBe('False');
    await lab.stop();
  });

  it('goes on after a restart of the agent in the middle of it', async () => {
    const lab = createPodLab();
    lab.bind('a', { restartPolicy: 'Never', containers: [{ name: 'main', image: 'i', ...rules }, ...one('other')] });
    await lab.clock.advance(3_000);
    lab.runtime.faults.inject('removeContainer', { mode: 'hang' });
    lab.runtime.kill(lab.runtime.containers().find((each) => each.config.metadata.name === 'main')!.id, 42);
    await lab.clock.advance(200);
    lab.restart();
    await lab.clock.advance(5_000);
    expect(lab.running('a')).toEqual(['main', 'other']);
    expect(lab.pod('a')?.status?.containerStatuses?.map(({ restartCount }) => restartCount)).toEqual([1, 1]);
    await lab.stop();
  });

  it('may be a sidecar’s, whose pod is Running all the while', async () => {
    const lab = createPodLab();
    const phases = new Set<string | undefined>();
    lab.runtime.behave((config) => config.metadata.name === 'init', { exitAfterMs: 50, exitCode: 0 });
    lab.bind('a', {
      restartPolicy: 'Never',
      initContainers: [
        ...one('init'),
        { name: 'side', image: 'i', restartPolicy: 'Always' },
        { name: 'source', image: 'i', ...rules, restartPolicy: 'Always' },
      ],
      containers: one('main'),
    });
    await lab.clock.advance(3_000);
    lab.runtime.kill(lab.runtime.containers().find((each) => each.config.metadata.name === 'source')!.id, 42);
    for (let i = 0; i < 500; i++) {
      await lab.clock.advance(10);
      phases.add(lab.pod('a')?.status?.phase);
    }
    expect([...phases]).not.toContain('Failed');
    expect(lab.running('a')).toEqual(['main', 'side', 'source']);
    const { status } = lab.pod('a')!;
    expect(status?.phase).toBe('Running');
    for (const each of [...status!.initContainerStatuses!, ...status!.containerStatuses!]) {
      expect(each.restartCount).toBe(1);
      expect(each.lastState?.terminated).toBeDefined();
    }
    await lab.stop();
  });

  it('waits for those beside it to have begun', async () => {
    const lab = createPodLab();
    lab.runtime.behave((config) => config.metadata.name === 'main' && config.metadata.attempt === 0, {
      exitAfterMs: 1,
      exitCode: 42,
    });
    lab.bind('a', {
      restartPolicy: 'Never',
      containers: [{ name: 'main', image: 'i', ...rules }, ...one('b'), ...one('c')],
    });
    await lab.clock.advance(10_000);
    const { status } = lab.pod('a')!;
    expect(lab.running('a')).toEqual(['b', 'c', 'main']);
    for (const each of status!.containerStatuses!) {
      expect(each.restartCount).toBe(1);
      expect(each.lastState?.terminated).toBeDefined();
    }
    await lab.stop();
  });
});
