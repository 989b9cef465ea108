import { describe, expect, it } from 'vitest';
import type { ContainerId } from '../../cri/types.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createPodLab } from '../../test/lab/pod-lab.ts';
import { createEndings } from './endings.ts';
import type { ObservedContainer, ObservedPod } from './observed.ts';

const id = 'c0' as ContainerId;
const seen = (state: ObservedContainer['state']): ObservedPod => ({
  sandboxes: [],
  containers: [{ id, state } as ObservedContainer],
});

describe('waiting for the end of a container', () => {
  it.each([
    ['is over once it is seen ended', [seen('running'), seen('exited')], true],
    ['is over once it is seen no more', [seen('unknown'), { sandboxes: [], containers: [] }], true],
    ['goes on while it may run', [seen('running'), seen('unknown')], undefined],
  ])('%s', async (_name, looks, expected) => {
    const endings = createEndings({ clock: createFakeClock() });
    let ended: boolean | undefined;
    endings.saw(looks[0]!);
    void endings.wait(id).then((answer) => (ended = answer));
    await Promise.resolve();
    expect(ended).toBeUndefined();
    endings.saw(looks[1]!);
    await Promise.resolve();
    expect(ended).toBe(expected);
  });

  it('does not begin where it has been seen', async () => {
    const endings = createEndings({ clock: createFakeClock() });
    endings.saw(seen('exited'));
    expect(await endings.wait(id)).toBe(true);
  });

  it('is given up after ten seconds, and when the agent stops', async () => {
    const clock = createFakeClock();
    const endings = createEndings({ clock });
    endings.saw(seen('running'));
    const late = endings.wait(id);
    await clock.advance(10_000);
    expect(await late).toBe(false);
    const stopped = endings.wait(id);
    endings.stop();
    expect(await stopped).toBe(false);
    expect(await endings.wait(id)).toBe(false);
  });
});

describe('a container whose process has ended and whose end the runtime has not noted', () => {
  const containers = [{ name: 'c', image: 'i' }];
  type Lab = ReturnType<typeof createPodLab>;
  const states = (lab: Lab) => lab.runtime.containers().map(({ config, state }) => [config.metadata.attempt, state]);
  const shown = (lab: Lab) => lab.pod('a')?.status?.containerStatuses?.[0];
  const running = async (spec: Parameters<Lab['bind']>[1] = {}, notesEndAfterMs = 40): Promise<Lab> => {
    const lab = createPodLab({ notesEndAfterMs });
    lab.bind('a', { containers, ...spec });
    await lab.clock.advance(2_000);
    return lab;
  };
  const kill = (lab: Lab, exitCode: number, reason?: string): void =>
    lab.runtime.kill(lab.runtime.containers().find(({ state }) => state === 'running')!.id, exitCode, reason);

  it('has its successor made meanwhile and started when it has, and is shown as it ended', async () => {
    const lab = await running();
    lab.runtime.faults.inject('startContainer', { mode: 'late', ms: 20 });
    kill(lab, 137, 'OOMKilled');
    const history: unknown[] = [];
    for (let ms = 0; ms < 100; ms += 2) {
      await lab.clock.advance(2);
      const { state, restartCount, ready, lastState } = shown(lab)!;
      const now = [Object.keys(state!)[0], restartCount, ready, (state?.terminated ?? lastState?.terminated)?.reason];
      if (JSON.stringify(history.at(-1)) !== JSON.stringify(now)) history.push(now);
      if (ms < 36) expect(lab.running('a')).toEqual(['c']);
      if (ms === 36)
        expect(states(lab)).toEqual([
          [0, 'running'],
          [1, 'created'],
        ]);
    }
    expect(states(lab)).toEqual([
      [0, 'exited'],
      [1, 'running'],
    ]);
    expect(history).toEqual([
      ['running', 0, true, undefined],
      ['terminated', 0, false, 'OOMKilled'],
      ['running', 1, true, 'OOMKilled'],
    ]);
    expect(shown(lab)?.lastState?.terminated?.exitCode).toBe(137);
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

  it('has its successor not started where the pod is to go', async () => {
    const lab = await running();
    kill(lab, 1);
    await lab.clock.advance(10);
    await lab.delete('a', 5);
    await lab.clock.advance(60_000);
    expect(lab.runtime.faults.calls.filter(({ call }) => call === 'startContainer')).toHaveLength(1);
    expect(lab.pod('a')).toBeUndefined();
    expect(lab.runtime.containers()).toEqual([]);
    await lab.stop();
  });

  it('has its successor given up where the runtime takes too long, and started when it has noted it', async () => {
    const lab = await running({}, 30_000);
    kill(lab, 1);
    await lab.clock.advance(25_000);
    expect(lab.running('a')).toEqual(['c']);
    expect(lab.runtime.faults.calls.filter(({ call }) => call === 'startContainer')).toHaveLength(1);
    await lab.clock.advance(60_000);
    expect(shown(lab)).toMatchObject({ restartCount: 1, ready: true, lastState: { terminated: { exitCode: 1 } } });
    expect(lab.runtime.containers()).toHaveLength(2);
    expect(lab.runtime.violations).toEqual([]);
    expect(lab.complaints).toEqual([]);
    await lab.stop();
  });

  it('has what was made for it removed by an agent that is started again meanwhile', async () => {
    const lab = await running({}, 5_000);
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
});
