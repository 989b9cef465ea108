import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import type { PodCgroupFacts, ResourceFacts } from './linux-resources.ts';
import { createResizer, type RunningNow } from './resizer.ts';

const facts: ResourceFacts & PodCgroupFacts = {
  cgroupVersion: 1,
  cpuCfsQuota: true,
  cpuCfsQuotaPeriodUs: 100_000,
  memoryCapacityBytes: 4 * 2 ** 30,
  swap: { available: false, behavior: 'NoSwap', capacityBytes: 0 },
  hugepageSizes: [],
  podPidsLimit: -1,
};
const pod = (cpu: string, memory: string, generation: number): Pod => ({
  metadata: { name: 'p', namespace: 'n', uid: 'u', generation },
  spec: { containers: [{ name: 'c', resources: { requests: { cpu, memory }, limits: { cpu, memory } } }] },
});
const yes = () => ({ admitted: true }) as const;
const no = () => ({ admitted: false, message: 'no room' }) as const;

function lab(used = 1) {
  const events: string[] = [];
  const calls: string[] = [];
  let broken = false;
  const resizer = createResizer(
    {
      runtime: {
        updateContainerResources: async (id, { cpuQuota, memoryLimitInBytes }) => {
          if (broken) throw new Error('the runtime is away');
          calls.push(`${id} ${cpuQuota} ${memoryLimitInBytes}`);
        },
      },
      cgroups: {
        configOf: async () => ({ cpuRequestMilli: 1000, cpuLimitMilli: 1000, memoryLimitBytes: 64 * 2 ** 20 }),
        update: async (_pod, resources) => void calls.push(`pod ${Object.keys(resources).join(' ')}`),
      },
      events: { record: (_about, type, reason) => events.push(`${type} ${reason}`) },
      memoryUse: async () => ({ pod: used, containers: new Map([['c', used]]) }),
    },
    facts,
  );
  const running: RunningNow[] = [{ name: 'c', id: 'id', resources: undefined }];
  const first = resizer.review(pod('1', '64Mi', 1), yes);
  resizer.created(first, first.spec.containers[0]!, 'id');
  const breakRuntime = (now: boolean): void => {
    broken = now;
  };
  return { resizer, running, events, calls, breakRuntime };
}

describe('a resize', () => {
  it('is allocated, carried out, and over', async () => {
    const { resizer, running, events, calls } = lab();
    const asked = resizer.review(pod('2', '64Mi', 2), yes);
    expect(resizer.conditions('u')).toMatchObject([{ type: 'PodResizeInProgress', observedGeneration: 2 }]);
    expect(resizer.shown(asked, asked.spec.containers[0]!, 'id')).toEqual({
      allocatedResources: { cpu: '2', memory: '64Mi' },
      resources: { requests: { cpu: '1', memory: '64Mi' }, limits: { cpu: '1', memory: '64Mi' } },
    });
    expect(resizer.outstanding(asked, running, true)).toEqual({ update: true, restart: new Map() });
    await resizer.actuate(asked, running);
    expect(calls).toEqual(['pod cpuQuota cpuPeriod', 'pod cpuShares', 'id 200000 67108864']);
    expect(resizer.outstanding(asked, running, true).update).toBe(false);
    expect(resizer.conditions('u')).toEqual([]);
    expect(resizer.shown(asked, asked.spec.containers[0]!, 'id').resources?.limits?.cpu).toBe('2');
    expect(events).toEqual(['Normal ResizeStarted', 'Normal ResizeCompleted']);
  });

  it('waits for room, says so once, and takes it when it comes', () => {
    const { resizer, running, events } = lab();
    const waiting = resizer.review(pod('2', '64Mi', 2), no);
    resizer.review(pod('2', '64Mi', 2), no);
    expect(waiting.spec.containers[0]?.resources?.requests?.cpu).toBe('1');
    expect(resizer.outstanding(waiting, running, true).update).toBe(false);
    expect(resizer.conditions('u')).toMatchObject([
      { type: 'PodResizePending', reason: 'Deferred', message: 'no room' },
    ]);
    resizer.review(pod('2', '64Mi', 2), yes);
    expect(resizer.conditions('u').map(({ type }) => type)).toEqual(['PodResizeInProgress']);
    expect(events).toEqual(['Warning ResizeDeferred', 'Normal ResizeStarted']);
  });

  it('is over when it is taken back', () => {
    const { resizer } = lab();
    resizer.review(pod('2', '64Mi', 2), no);
    resizer.review(pod('1', '64Mi', 3), no);
    expect(resizer.conditions('u')).toEqual([]);
  });

  it('says why it does not come about, and goes on', async () => {
    const { resizer, running, events, breakRuntime } = lab();
    const asked = resizer.review(pod('2', '64Mi', 2), yes);
    breakRuntime(true);
    await expect(resizer.actuate(asked, running)).rejects.toThrow('the runtime is away');
    await expect(resizer.actuate(asked, running)).rejects.toThrow('the runtime is away');
    expect(resizer.conditions('u')).toMatchObject([{ reason: 'Error', message: 'the runtime is away' }]);
    breakRuntime(false);
    await resizer.actuate(asked, running);
    expect(resizer.outstanding(asked, running, true).update).toBe(false);
    expect(events).toEqual(['Normal ResizeStarted', 'Warning ResizeError', 'Normal ResizeCompleted']);
  });

  it('takes no memory that is in use', async () => {
    const { resizer, running, calls } = lab(48 * 2 ** 20);
    const asked = resizer.review(pod('1', '32Mi', 2), yes);
    await expect(resizer.actuate(asked, running)).rejects.toThrow('cannot decrease memory limits: ');
    expect(calls).toEqual([]);
  });

  it('goes on after a restart of the agent from what the API and the runtime say', () => {
    const { resizer } = lab();
    resizer.forget('u');
    const asked: Pod = {
      ...pod('2', '64Mi', 2),
      status: {
        containerStatuses: [
          {
            name: 'c',
            ready: true,
            restartCount: 0,
            image: '',
            imageID: '',
            allocatedResources: { cpu: '2', memory: '64Mi' },
            resources: { limits: { cpu: '2', memory: '64Mi' } },
          },
        ],
      },
    };
    const seen = resizer.review(asked, no);
    expect(seen.spec.containers[0]?.resources?.requests?.cpu).toBe('2');
    const has = (cpuShares: number, cpuQuota: number): RunningNow[] => [
      { name: 'c', id: 'id', resources: { cpuShares, cpuQuota, cpuPeriod: 100_000, memoryLimitInBytes: 64 * 2 ** 20 } },
    ];
    expect(resizer.outstanding(seen, has(2048, 200_000), true).update).toBe(false);
    expect(resizer.outstanding(seen, has(1024, 100_000), true).update).toBe(true);
  });

  it('restarts a container that wants that', () => {
    const { resizer, running } = lab();
    const asked = pod('2', '64Mi', 2);
    asked.spec.containers[0]!.resizePolicy = [{ resourceName: 'cpu', restartPolicy: 'RestartContainer' }];
    const seen = resizer.review(asked, yes);
    expect([...resizer.outstanding(seen, running, true).restart]).toEqual([
      ['c', 'Container c resize requires restart'],
    ]);
  });

  it('of the pod as a whole is carried out where no container changes, and shown', async () => {
    const { resizer, calls, events } = lab();
    const whole = (cpu: string, generation: number): Pod => {
      const made = pod('100m', '8Mi', generation);
      made.metadata.uid = 'w';
      made.spec.resources = { requests: { cpu, memory: '64Mi' }, limits: { cpu, memory: '64Mi' } };
      return { ...made, status: { phase: 'Running' } };
    };
    const first = resizer.review(whole('1', 1), yes);
    resizer.created(first, first.spec.containers[0]!, 'id');
    const running: RunningNow[] = [{ name: 'c', id: 'id', resources: undefined }];
    expect(resizer.outstanding(first, running, true).update).toBe(false);
    const asked = resizer.review(whole('2', 2), yes);
    expect(resizer.outstanding(asked, running, false).update).toBe(false);
    const again = resizer.review(whole('3', 3), yes);
    expect(resizer.podShown(again)).toMatchObject({
      allocatedResources: { cpu: '3' },
      resources: { limits: { cpu: '1' } },
    });
    expect(resizer.outstanding(again, running, true)).toEqual({ update: true, restart: new Map() });
    await resizer.actuate(again, running);
    expect(calls).toEqual(['pod cpuQuota cpuPeriod', 'pod cpuShares']);
    expect(resizer.outstanding(again, running, true).update).toBe(false);
    expect(resizer.podShown(again).resources?.limits?.cpu).toBe('3');
    expect(events.at(-1)).toBe('Normal ResizeCompleted');
  });

  it('is no resize that a pod had when it came', () => {
    const { resizer, events } = lab();
    const first = resizer.review({ ...pod('3', '8Mi', 1), metadata: { name: 'q', uid: 'q', generation: 1 } }, yes);
    expect(resizer.outstanding(first, [], true)).toEqual({ update: false, restart: new Map() });
    expect(events).toEqual([]);
  });

  it('that was under way is done again where the runtime tells nothing of it', () => {
    const { resizer } = lab();
    resizer.forget('u');
    const asked = pod('2', '64Mi', 2);
    asked.status = { conditions: [{ type: 'PodResizeInProgress', status: 'True' }] };
    const running: RunningNow[] = [{ name: 'c', id: 'id', resources: undefined }];
    expect(resizer.outstanding(resizer.review(asked, yes), running, true).update).toBe(true);
  });

  it('restarts first what is to be restarted, and does the rest before it begins anew', () => {
    const { resizer } = lab();
    const both = (cpu: string): Pod => {
      const made = pod(cpu, '64Mi', 2);
      made.metadata.uid = 'b';
      made.spec.containers[0]!.resizePolicy = [{ resourceName: 'cpu', restartPolicy: 'RestartContainer' }];
      made.spec.containers.push({ name: 'd', resources: made.spec.containers[0]!.resources! });
      return made;
    };
    const first = resizer.review(both('1'), yes);
    for (const container of first.spec.containers) resizer.created(first, container, container.name);
    const running = ['c', 'd'].map((name): RunningNow => ({ name, id: name, resources: undefined }));
    const found = resizer.outstanding(resizer.review(both('2'), yes), running, true);
    expect([found.update, [...found.restart.keys()]]).toEqual([false, ['c']]);
  });
});
