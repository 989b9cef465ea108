import { describe, expect, it } from 'vitest';
import type { Container, Pod, ResourceRequirements } from '../../kube/types/pod.ts';
import type { PodCgroupFacts, ResourceFacts } from './linux-resources.ts';
import { allocationFromStatus, allocationOf, containerResize, judgeResize, withAllocation } from './resize.ts';
import { type ActualResources, observedResources, recognise, wantedOfPod, wantedResources } from './resize-actual.ts';
import {
  formatBytes,
  formatMilliCpu,
  podResourcesShown,
  resizeConditions,
  resizeMessage,
  statusResources,
} from './resize-status.ts';
import { refuseMemoryDecrease, resizeSteps } from './resize-steps.ts';

const facts: ResourceFacts & PodCgroupFacts = {
  cgroupVersion: 2,
  cpuCfsQuota: true,
  cpuCfsQuotaPeriodUs: 100_000,
  memoryCapacityBytes: 4 * 2 ** 30,
  swap: { available: true, behavior: 'NoSwap', capacityBytes: 0 },
  hugepageSizes: [],
  podPidsLimit: -1,
};
const resources = (cpu: string, memory: string): ResourceRequirements => ({
  requests: { cpu, memory },
  limits: { cpu, memory },
});
const container = (name: string, cpu: string, memory: string, more: Partial<Container> = {}): Container => ({
  name,
  resources: resources(cpu, memory),
  ...more,
});
const pod = (...containers: Container[]): Pod => ({
  metadata: { name: 'p', namespace: 'n', uid: 'u', generation: 2 },
  spec: { containers },
});
const actual = (cpu: number, memory: number): ActualResources => ({
  cpuRequest: cpu,
  cpuLimit: cpu,
  memoryRequest: memory,
  memoryLimit: memory,
});
const Mi = 2 ** 20;
const no = { admitted: false, message: "Node didn't have enough resource: cpu" } as const;
const yes = { admitted: true } as const;

describe('whether a resize is promised', () => {
  const before = allocationOf(pod(container('a', '1', '64Mi')));

  it.each([
    ['nothing changed', container('a', '1000m', '64Mi'), yes, { kind: 'none' }],
    ['more, with room', container('a', '2', '64Mi'), yes, { kind: 'accept' }],
    [
      'more, without room',
      container('a', '2', '64Mi'),
      no,
      { kind: 'pending', reason: 'Deferred', message: no.message },
    ],
  ] as const)('%s', (_name, wanted, verdict, expected) => {
    expect(judgeResize(pod(wanted), before, () => verdict, facts)).toEqual(expected);
  });

  it('never for memory of a container that swaps', () => {
    const burstable = (memory: string): Pod => pod({ name: 'a', resources: { requests: { memory } } });
    const swapping = { ...facts, swap: { available: true, behavior: 'LimitedSwap', capacityBytes: 1 } } as const;
    const verdict = judgeResize(burstable('20'), allocationOf(burstable('10')), () => yes, swapping);
    expect(verdict).toMatchObject({ kind: 'pending', reason: 'Infeasible' });
  });

  it('goes by what is allocated until then', () => {
    const asked = pod(container('a', '2', '64Mi'));
    expect(withAllocation(asked, before).spec.containers[0]?.resources).toEqual(resources('1', '64Mi'));
  });

  it('reads after a restart what was allocated from the status', () => {
    const asked: Pod = {
      ...pod(container('a', '2', '64Mi'), container('b', '1', '1Mi')),
      status: {
        containerStatuses: [
          {
            name: 'a',
            ready: true,
            restartCount: 0,
            image: '',
            imageID: '',
            allocatedResources: { cpu: '1', memory: '64Mi' },
            resources: resources('1', '64Mi'),
          },
        ],
      },
    };
    const allocation = allocationFromStatus(asked);
    expect(allocation.containers.get('a')).toEqual(resources('1', '64Mi'));
    expect(allocation.containers.get('b')).toEqual(resources('1', '1Mi'));
  });
});

describe('what is done for a container', () => {
  const policy = (resourceName: string) => ({
    resizePolicy: [{ resourceName, restartPolicy: 'RestartContainer' as const }],
  });

  it.each([
    ['the same', container('a', '1', '64Mi'), actual(1000, 64 * Mi), { kind: 'none' }],
    ['more cpu', container('a', '2', '64Mi'), actual(1000, 64 * Mi), { kind: 'update' }],
    [
      'more cpu, memory restarts',
      container('a', '2', '64Mi', policy('memory')),
      actual(1000, 64 * Mi),
      { kind: 'update' },
    ],
    [
      'more cpu, cpu restarts',
      container('a', '2', '64Mi', policy('cpu')),
      actual(1000, 64 * Mi),
      { kind: 'restart', message: 'Container a resize requires restart' },
    ],
    ['less than the kernel tells apart', container('a', '5m', '64Mi'), actual(5, 64 * Mi), { kind: 'none' }],
  ] as const)('%s', (_name, wanted, has, expected) => {
    expect(containerResize(pod(wanted), wanted, has)).toEqual(expected);
  });

  it('counts what the kernel cannot tell apart too, as the kubelet does', () => {
    const c = container('a', '25m', '64Mi', policy('cpu'));
    expect(containerResize(pod(c), c, actual(20, 64 * Mi)).kind).toBe('restart');
  });

  it('recognises what a container was given in what the runtime says', () => {
    for (const cpu of ['1m', '3m', '10m', '123m', '1', '3500m']) {
      const c = container('a', cpu, '100M');
      const wanted = wantedResources(pod(c), c);
      const told = {
        cpuShares: Math.max(2, Math.trunc((wanted.cpuRequest * 1024) / 1000)),
        cpuQuota: Math.max(1000, wanted.cpuLimit * 100),
        cpuPeriod: 100_000,
        memoryLimitInBytes: Math.trunc(100_000_000 / 4096) * 4096,
      };
      expect(recognise(told, [actual(7000, 1), wanted])).toBe(wanted);
      expect(recognise(told, [actual(7000, 1)])).toBeUndefined();
      expect(observedResources(told, 5)).toMatchObject({ memoryRequest: 5, memoryLimit: told.memoryLimitInBytes });
    }
  });
});

describe('a pod with resources of its own', () => {
  const whole = (cpu: string, memory: string, ...containers: Container[]): Pod => {
    const made = pod(...containers);
    return { ...made, spec: { ...made.spec, resources: resources(cpu, memory) } };
  };

  it('is resized as a whole', () => {
    const before = allocationOf(whole('1', '64Mi', container('a', '100m', '8Mi')));
    const asked = whole('2', '64Mi', container('a', '100m', '8Mi'));
    expect(judgeResize(asked, before, () => yes, facts)).toEqual({ kind: 'accept' });
    expect(withAllocation(asked, before).spec.resources).toEqual(resources('1', '64Mi'));
    expect(withAllocation(asked, { ...before, pod: undefined }).spec.resources).toBeUndefined();
  });

  it('gives its limits to containers that have none, and restarts them if they want that', () => {
    const bare: Container = {
      name: 'a',
      resizePolicy: [{ resourceName: 'memory', restartPolicy: 'RestartContainer' }],
    };
    const has = wantedResources(whole('1', '64Mi', bare), bare);
    expect(has).toEqual({ cpuRequest: 1000, cpuLimit: 1000, memoryRequest: 0, memoryLimit: 64 * Mi });
    expect(containerResize(whole('2', '64Mi', bare), bare, has).kind).toBe('update');
    expect(containerResize(whole('1', '32Mi', bare), bare, has).kind).toBe('restart');
  });

  it('has a cgroup that goes by it', () => {
    expect(wantedOfPod(whole('1', '64Mi', { name: 'a' }), facts)).toEqual(actual(1000, 64 * Mi));
    expect(wantedOfPod(pod({ name: 'a', resources: { requests: { cpu: '1' } } }), facts)).toEqual({
      cpuRequest: 1000,
      cpuLimit: 0,
      memoryRequest: 0,
      memoryLimit: 0,
    });
  });

  it('reads after a restart what was allocated from the status, without the overhead', () => {
    const asked = whole('3', '128Mi', { name: 'a' });
    asked.spec.overhead = { cpu: '250m', memory: '1Mi' };
    asked.status = {
      allocatedResources: { cpu: '1250m', memory: '65Mi' },
      resources: { requests: { cpu: '1250m', memory: '65Mi' }, limits: { cpu: '1250m', memory: '65Mi' } },
    };
    expect(allocationFromStatus(asked).pod).toEqual(resources('1', '64Mi'));
    delete asked.spec.resources;
    expect(allocationFromStatus(asked).pod).toBeUndefined();
  });

  it('shows fractions as they are asked for', () => {
    const asked = whole('1', '10m', { name: 'a' });
    const shown = podResourcesShown({ ...asked, status: { phase: 'Running' } }, wantedOfPod(asked, facts));
    expect(shown).toEqual({ allocatedResources: { cpu: '1', memory: '10m' }, resources: resources('1', '10m') });
  });

  it('shows all it asks for until it runs, then what it has', () => {
    const a = container('a', '100m', '8Mi', {
      resources: { requests: { cpu: '100m', memory: '8Mi', 'example.com/gpu': '1' }, limits: { cpu: '100m' } },
    });
    const asked = whole('1', '64Mi', a);
    const all = { cpu: '1', memory: '64Mi', 'example.com/gpu': '1' };
    expect(podResourcesShown(asked, actual(500, 32 * Mi))).toEqual({
      allocatedResources: all,
      resources: { requests: all, limits: { cpu: '1', memory: '64Mi' } },
    });
    asked.status = { phase: 'Running' };
    expect(podResourcesShown(asked, actual(500, 32 * Mi))).toEqual({
      allocatedResources: all,
      resources: resources('500m', '32Mi'),
    });
    expect(podResourcesShown({ ...pod({ name: 'a' }), status: { phase: 'Running' } }, actual(0, 0))).toEqual({
      resources: {},
    });
  });
});

describe('in which order', () => {
  const words = (steps: ReturnType<typeof resizeSteps>): string[] =>
    steps.map((step) =>
      step.kind === 'pod'
        ? `pod ${Object.keys(step.resources).join(' ')}`
        : `${step.name} ${step.actual.cpuLimit}m ${step.actual.memoryLimit / Mi}Mi`,
    );
  const config = (cpu: number, memory: number) => ({
    cpuRequestMilli: cpu,
    cpuLimitMilli: cpu,
    memoryLimitBytes: memory * Mi,
  });

  it('the pod grows before its containers', () => {
    const a = container('a', '2', '128Mi');
    expect(
      words(resizeSteps(pod(a), config(1000, 64), [{ container: a, actual: actual(1000, 64 * Mi) }], facts)),
    ).toEqual(['pod memoryLimit', 'a 1000m 128Mi', 'pod cpuQuota cpuPeriod', 'pod cpuShares', 'a 2000m 128Mi']);
  });

  it('and shrinks after them', () => {
    const a = container('a', '1', '64Mi');
    expect(
      words(resizeSteps(pod(a), config(2000, 128), [{ container: a, actual: actual(2000, 128 * Mi) }], facts)),
    ).toEqual(['a 2000m 64Mi', 'pod memoryLimit', 'pod cpuShares', 'a 1000m 64Mi', 'pod cpuQuota cpuPeriod']);
  });

  it('what one container gives up another may have', () => {
    const [a, b] = [container('a', '3', '64Mi'), container('b', '1', '64Mi')];
    const running = [
      { container: a, actual: actual(1000, 64 * Mi) },
      { container: b, actual: actual(3000, 64 * Mi) },
    ];
    expect(words(resizeSteps(pod(a, b), config(4000, 128), running, facts))).toEqual([
      'pod cpuShares',
      'b 1000m 64Mi',
      'a 3000m 64Mi',
    ]);
  });

  it('not below what is in use', () => {
    const a = container('a', '1', '32Mi');
    const running = [{ container: a, actual: actual(1000, 64 * Mi) }];
    const use = (bytes: number) => ({ pod: bytes, containers: new Map([['a', bytes]]) });
    expect(refuseMemoryDecrease(pod(a), config(1000, 64), running, use(16 * Mi), facts)).toBeUndefined();
    expect(refuseMemoryDecrease(pod(a), config(1000, 64), running, use(33_554_432), facts)).toBe(
      'cannot decrease memory limits: [attempting to set pod memory limit (33554432) below current usage (33554432), attempting to set container "a" memory limit (33554432) below current usage (33554432)]',
    );
  });
});

describe('what is shown', () => {
  it('conditions', () => {
    expect(resizeConditions({})).toEqual([]);
    expect(
      resizeConditions({
        pending: { reason: 'Deferred', message: 'm', generation: 3 },
        inProgress: { generation: 2, error: 'e' },
      }),
    ).toEqual([
      { type: 'PodResizePending', status: 'True', reason: 'Deferred', message: 'm', observedGeneration: 3 },
      { type: 'PodResizeInProgress', status: 'True', reason: 'Error', message: 'e', observedGeneration: 2 },
    ]);
  });

  it("events, in Kubernetes' words", () => {
    const c = {
      name: 'c0',
      resources: { requests: { memory: '100', cpu: '100m' }, limits: { memory: '100', cpu: '100m' } },
    };
    expect(resizeMessage('ResizeDeferred', pod(c), 1, "Node didn't have enough resource: memory")).toBe(
      `Pod resize Deferred: {"containers":[{"name":"c0","resources":{"limits":{"cpu":"100m","memory":"100"},"requests":{"cpu":"100m","memory":"100"}}}],"generation":1,"error":"Node didn't have enough resource: memory"}`,
    );
    expect(resizeMessage('ResizeCompleted', pod({ name: 'c0' }), 3)).toBe(
      'Pod resize completed: {"containers":[{"name":"c0","resources":{}}],"generation":3}',
    );
  });

  it('resources as the spec writes them, where that is what the container has', () => {
    const c = container('a', '0.1', '65536Ki');
    expect(statusResources(c, actual(100, 64 * Mi))).toEqual(c.resources);
    expect(statusResources(c, actual(250, 32 * Mi))).toEqual({
      requests: { cpu: '250m', memory: '32Mi' },
      limits: { cpu: '250m', memory: '32Mi' },
    });
    expect(statusResources({ name: 'a' }, { cpuRequest: 2, cpuLimit: 0, memoryRequest: 0, memoryLimit: 0 })).toEqual(
      {},
    );
  });

  it.each([
    [1500, '1500m'],
    [2000, '2'],
    [1_000_000, '1k'],
  ])('%d millicores are %s', (milli, text) => expect(formatMilliCpu(milli)).toBe(text));
  it.each([
    [0, '0'],
    [1000, '1k'],
    [100_000_000, '100M'],
    [64 * Mi, '64Mi'],
    [1536, '1536'],
    [1024, '1Ki'],
  ])('%d bytes are %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));
});
