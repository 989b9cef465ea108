import { describe, expect, it } from 'vitest';
import type { ContainerId } from '../../cri/types.ts';
import { CancelledError } from '../../lib/abort.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createPodLab } from '../../test/lab/pod-lab.ts';
import { createEndings } from './endings.ts';
import type { ObservedContainer, ObservedPod } from './observed.ts';

const id = 'c0' as ContainerId;
const seen = (state: ObservedContainer['state']): ObservedPod => ({
  sandboxes: [],
  containers: [{ id, state } as ObservedContainer],
});

const never = new AbortController().signal;

describe('waiting for the end of a container', () => {
  it.each([
    ['is over once it is seen ended', [seen('running'), seen('exited')], true],
    ['is over once it is seen no more', [seen('unknown'), { sandboxes: [], containers: [] }], true],
    ['goes on while it may run', [seen('running'), seen('unknown')], undefined],
  ])('%s', async (_name, looks, expected) => {
    const endings = createEndings({ clock: createFakeClock() });
    let ended: boolean | undefined;
    endings.saw(looks[0]!);
    void endings.wait(id, never).then((answer) => (ended = answer));
    await Promise.resolve();
    expect(ended).toBeUndefined();
    endings.saw(looks[1]!);
    await new Promise(setImmediate);
    expect(ended).toBe(expected);
  });

  it('does not begin where it has been seen', async () => {
    const endings = createEndings({ clock: createFakeClock() });
    endings.saw(seen('exited'));
    expect(await endings.wait(id, never)).toBe(true);
  });

  it('is given up after ten seconds', async () => {
    const clock = createFakeClock();
    const endings = createEndings({ clock });
    endings.saw(seen('running'));
    const late = endings.wait(id, never);
    await clock.advance(10_000);
    expect(await late).toBe(false);
  });

  it('ends with its signal, before or after it has begun', async () => {
    const endings = createEndings({ clock: createFakeClock() });
    endings.saw(seen('running'));
    const abort = new AbortController();
    const waiting = endings.wait(id, abort.signal);
    abort.abort(new CancelledError('no longer wanted'));
    await expect(waiting).rejects.toThrow('no longer wanted');
    await expect(endings.wait(id, abort.signal)).rejects.toThrow('no longer wanted');
  });
});

describe('a container whose process has ended and whose end the runtime has not noted', () => {
  const containers = [{ name: 'c', image: 'i' }];
  type Lab = ReturnType<typeof createPodLab>;
  const states = (lab: Lab) => lab.runtime.containers().map(({ config, state }) => [config.metadata.attempt, state]);
  const shown = (lab: Lab) => lab.pod('a')?.status?.containerStatuses?.[0];
  const starts = (lab: Lab) => lab.runtime.faults.calls.filter(({ call }) => call === 'startContainer').length;
  const running = async (spec: Parameters<Lab['bind']>[1] = {}, notesEndAfterMs = 40): Promise<Lab> => {
    const lab = createPodLab({ notesEndAfterMs });
    lab.bind('a', { containers, ...spec });
    await lab.clock.advance(2_000);
    return lab;
  };
  const kill = (lab: Lab, exitCode: number, reason?: string): void =>
    lab.runtime.kill(lab.runtime.containers().find((each) => lab.runtime.runs(each))!.id, exitCode, reason);
  /** What is shown one after the other within the time. */
  const history = async (lab: Lab, forMs: number, look: (ms: number) => void = () => undefined): Promise<unknown[]> => {
    const told: unknown[] = [];
    for (let ms = 2; ms <= forMs; ms += 2) {
      await lab.clock.advance(2);
      look(ms);
      const { state, restartCount, ready, lastState } = shown(lab)!;
      const now = [Object.keys(state!)[0], restartCount, ready, (state?.terminated ?? lastState?.terminated)?.reason];
      if (JSON.stringify(told.at(-1)) !== JSON.stringify(now)) told.push(now);
    }
    return told;
  };

  it('has its successor started without waiting for that, and is told with the reason that the runtime notes', async () => {
    const lab = await running();
    kill(lab, 137, 'OOMKilled');
    const told = await history(lab, 100, (ms) => {
      if (ms <= 38)
        expect(states(lab)).toEqual([
          [0, 'running'],
          [1, 'running'],
        ]);
    });
    expect(states(lab)).toEqual([
      [0, 'exited'],
      [1, 'running'],
    ]);
    expect(told).toEqual([
      ['running', 0, true, undefined],
      ['running', 1, true, 'OOMKilled'],
    ]);
    expect(shown(lab)?.lastState?.terminated?.exitCode).toBe(137);
    expect(lab.runtime.violations).toEqual([]);
    await lab.stop();
  });

  it('is told as it ended where its successor takes longer to start', async () => {
    const lab = await running();
    lab.runtime.faults.inject('startContainer', { mode: 'late', applied: false, ms: 60 });
    kill(lab, 137, 'OOMKilled');
    expect(await history(lab, 100)).toEqual([
      ['running', 0, true, undefined],
      ['terminated', 0, false, 'OOMKilled'],
      ['running', 1, true, 'OOMKilled'],
    ]);
    await lab.stop();
  });

  it('has its successor made meanwhile and started when it has been noted, where its processes may outlive the first', async () => {
    const lab = await running({ shareProcessNamespace: true });
    kill(lab, 137, 'OOMKilled');
    lab.runtime.faults.inject('startContainer', { mode: 'late', ms: 20 });
    const told = await history(lab, 100, (ms) => {
      if (ms <= 38)
        expect(states(lab)).toEqual([
          [0, 'running'],
          [1, 'created'],
        ]);
    });
    expect(told).toEqual([
      ['running', 0, true, undefined],
      ['terminated', 0, false, 'OOMKilled'],
      ['running', 1, true, 'OOMKilled'],
    ]);
    expect(lab.runtime.violations).toEqual([]);
    await lab.stop();
  });

  it.each([
    ['whose policy is Never', { restartPolicy: 'Never' as const }, 1],
    ['whose policy is OnFailure and that ended well', { restartPolicy: 'OnFailure' as const }, 0],
    [
      'whose rule lets all begin anew',
      {
        containers: [
          {
            name: 'c',
            image: 'i',
            restartPolicy: 'Never' as const,
            restartPolicyRules: [
              { action: 'RestartAllContainers' as const, exitCodes: { operator: 'In' as const, values: [42] } },
            ],
          },
        ],
      },
      42,
    ],
  ])('has none made, %s', async (_name, spec, exitCode) => {
    const lab = await running(spec);
    kill(lab, exitCode);
    await lab.clock.advance(30);
    expect(states(lab)).toEqual([[0, 'running']]);
    expect(lab.pod('a')?.status?.phase).toBe('Running');
    await lab.clock.advance(1_000);
    expect(states(lab)).not.toContainEqual([0, 'running']);
    await lab.stop();
  });

  it('has none made that backs off', async () => {
    const lab = await running();
    kill(lab, 1);
    await lab.clock.advance(1_000);
    kill(lab, 1);
    await lab.clock.advance(30);
    expect(states(lab)).toEqual([
      [0, 'exited'],
      [1, 'running'],
    ]);
    await lab.clock.advance(1_000);
    expect(shown(lab)?.state?.waiting?.reason).toBe('CrashLoopBackOff');
    await lab.stop();
  });

  it.each([
    ['private', {}],
    ['shared', { shareProcessNamespace: true }],
  ])('has its successor not started where the pod is to go: %s process namespace', async (_name, spec) => {
    const lab = await running(spec);
    lab.runtime.faults.inject('createContainer', { mode: 'late', ms: 20 });
    kill(lab, 1);
    await lab.clock.advance(10);
    await lab.delete('a', 5);
    await lab.clock.advance(60_000);
    expect(starts(lab)).toBe(1);
    expect(lab.pod('a')).toBeUndefined();
    expect(lab.runtime.containers()).toEqual([]);
    await lab.stop();
  });

  it('is told as its process told of it, where the runtime takes too long, and as the runtime notes it', async () => {
    const lab = await running({}, 30_000);
    kill(lab, 137, 'OOMKilled');
    await lab.clock.advance(500);
    expect(lab.running('a')).toEqual(['c']);
    expect(shown(lab)).toMatchObject({ restartCount: 0, state: { running: {} } });
    await lab.clock.advance(1_000);
    expect(shown(lab)).toMatchObject({
      restartCount: 1,
      ready: true,
      lastState: { terminated: { exitCode: 137, reason: 'Error' } },
    });
    const { containerID, finishedAt } = shown(lab)!.lastState!.terminated!;
    await lab.clock.advance(60_000);
    expect(shown(lab)).toMatchObject({
      restartCount: 1,
      lastState: { terminated: { exitCode: 137, reason: 'OOMKilled', containerID, finishedAt } },
    });
    expect(lab.runtime.containers()).toHaveLength(2);
    expect(lab.complaints).toEqual([]);
    await lab.stop();
  });

  it('has its successor given up where the runtime takes too long and its processes may be there, and started when it has noted it', async () => {
    const lab = await running({ shareProcessNamespace: true }, 30_000);
    kill(lab, 1);
    await lab.clock.advance(25_000);
    expect(lab.running('a')).toEqual(['c']);
    expect(starts(lab)).toBe(1);
    await lab.clock.advance(60_000);
    expect(shown(lab)).toMatchObject({ restartCount: 1, ready: true, lastState: { terminated: { exitCode: 1 } } });
    expect(lab.runtime.containers()).toHaveLength(2);
    expect(lab.runtime.violations).toEqual([]);
    expect(lab.complaints).toEqual([]);
    await lab.stop();
  });

  it('has what was made for it removed by an agent that is started again meanwhile', async () => {
    const lab = await running({ shareProcessNamespace: true }, 5_000);
    kill(lab, 1);
    await lab.clock.advance(1_000);
    expect(states(lab)).toContainEqual([1, 'created']);
    lab.restart();
    await lab.clock.advance(30_000);
    expect(lab.running('a')).toEqual(['c']);
    expect(shown(lab)).toMatchObject({ ready: true, lastState: { terminated: { exitCode: 1 } } });
    expect(lab.runtime.violations).toEqual([]);
    await lab.stop();
  });

  it('has what was started for it kept by an agent that is started again meanwhile', async () => {
    const lab = await running({}, 5_000);
    kill(lab, 1);
    await lab.clock.advance(500);
    expect(starts(lab)).toBe(2);
    lab.restart();
    await lab.clock.advance(30_000);
    expect(lab.running('a')).toEqual(['c']);
    expect(starts(lab)).toBe(2);
    expect(shown(lab)).toMatchObject({
      restartCount: 1,
      ready: true,
      lastState: { terminated: { exitCode: 1, reason: 'Error' } },
    });
    expect(lab.runtime.violations).toEqual([]);
    await lab.stop();
  });

  it('backs off when its successor crashes too before either end is noted', async () => {
    const lab = await running({}, 5_000);
    kill(lab, 1);
    await lab.clock.advance(500);
    kill(lab, 2);
    await lab.clock.advance(4_000);
    expect(starts(lab)).toBe(2);
    expect(lab.running('a')).toEqual([]);
    await lab.clock.advance(2_000);
    expect(shown(lab)).toMatchObject({
      restartCount: 1,
      state: { waiting: { reason: 'CrashLoopBackOff' } },
      lastState: { terminated: { exitCode: 2 } },
    });
    await lab.clock.advance(10_000);
    expect(shown(lab)).toMatchObject({ restartCount: 2, ready: true });
    expect(lab.runtime.violations).toEqual([]);
    await lab.stop();
  });
});
