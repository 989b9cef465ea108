import { describe, expect, it } from 'vitest';
import type { Container, Pod, ResourceRequirements } from '../../kube/types/pod.ts';
import { amounts, hugepageSize, millis, units } from '../../kube/scheduling/amounts.ts';
import {
  containerResources,
  cpuQuota,
  cpuShares,
  cpuWeight,
  podCgroupResources,
  type ResourceFacts,
  sharesToMilliCpu,
  weightToShares,
} from './linux-resources.ts';
import { oomScoreAdj } from './oom-score.ts';
import { podLimits, podRequests } from '../../kube/scheduling/pod-resources.ts';
import { computeQos } from '../../kube/scheduling/qos.ts';

const container = (name: string, resources: ResourceRequirements, more: Partial<Container> = {}): Container => ({
  name,
  resources,
  ...more,
});
const pod = (spec: Partial<Pod['spec']>): Pod => ({
  metadata: { name: 'p', namespace: 'n', uid: 'u' },
  spec: { containers: [], ...spec },
});
const both = (cpu: string, memory: string): ResourceRequirements => ({
  requests: { cpu, memory },
  limits: { cpu, memory },
});
const facts: ResourceFacts = {
  cgroupVersion: 1,
  cpuCfsQuota: true,
  cpuCfsQuotaPeriodUs: 100_000,
  memoryCapacityBytes: 4_000_000_000,
  swap: { available: false, behavior: 'NoSwap', capacityBytes: 0 },
  hugepageSizes: ['2MB', '1GB'],
};

describe('amounts', () => {
  it.each([
    ['100m', 100, 1],
    ['1', 1000, 1],
    ['1.5', 1500, 2],
    ['0.0001', 1, 1],
    ['2k', 2_000_000, 2000],
    ['64Mi', 64 * 2 ** 20 * 1000, 64 * 2 ** 20],
    ['1e3', 1_000_000, 1000],
    ['rubbish', 0, 0],
  ])('%s is %d thousandths, %d units', (text, milli, whole) => {
    expect(millis(text)).toBe(milli);
    expect(units(text)).toBe(whole);
  });

  it('takes cpu in millicores and the rest in units', () => {
    expect(amounts({ cpu: '250m', memory: '1Ki', 'example.com/gpu': '2' })).toEqual({
      cpu: 250,
      memory: 1024,
      'example.com/gpu': 2,
    });
  });

  it.each([
    ['hugepages-2Mi', '2MB'],
    ['hugepages-1Gi', '1GB'],
    ['hugepages-64Ki', '64KB'],
    ['memory', undefined],
  ])('%s has pages of %s', (resource, size) => expect(hugepageSize(resource)).toBe(size));
});

describe('QoS', () => {
  it.each<[string, Partial<Pod['spec']>, string]>([
    ['nothing asked', { containers: [container('a', {})] }, 'BestEffort'],
    ['only other resources', { containers: [container('a', { requests: { 'example.com/gpu': '1' } })] }, 'BestEffort'],
    ['zero asked', { containers: [container('a', { requests: { cpu: '0' } })] }, 'BestEffort'],
    ['all limited and requested alike', { containers: [container('a', both('1', '1Gi'))] }, 'Guaranteed'],
    [
      'alike in other words',
      {
        containers: [
          container('a', { requests: { cpu: '1000m', memory: '1024Mi' }, limits: { cpu: '1', memory: '1Gi' } }),
        ],
      },
      'Guaranteed',
    ],
    [
      'memory only',
      { containers: [container('a', { requests: { memory: '1' }, limits: { memory: '1' } })] },
      'Burstable',
    ],
    [
      'request below limit',
      { containers: [container('a', { requests: { cpu: '1', memory: '1' }, limits: { cpu: '2', memory: '1' } })] },
      'Burstable',
    ],
    ['one of two containers', { containers: [container('a', both('1', '1Gi')), container('b', {})] }, 'Burstable'],
    [
      'init container without',
      { containers: [container('a', both('1', '1Gi'))], initContainers: [container('i', {})] },
      'Burstable',
    ],
    ['limits without requests', { containers: [container('a', { limits: { cpu: '1', memory: '1' } })] }, 'Burstable'],
    ['pod level decides', { containers: [container('a', {})], resources: both('1', '1Gi') }, 'Guaranteed'],
    [
      'pod level, requests only',
      { containers: [container('a', both('1', '1'))], resources: { requests: { cpu: '1' } } },
      'Burstable',
    ],
  ])('%s', (_name, spec, expected) => expect(computeQos(pod(spec).spec)).toBe(expected));
});

describe('what a pod asks for', () => {
  const init = container('i', { requests: { cpu: '500m', memory: '10' } });
  const sidecar = container('s', { requests: { cpu: '100m', memory: '5' } }, { restartPolicy: 'Always' });
  const main = container('a', { requests: { cpu: '200m', memory: '20' } });

  it.each<[string, Partial<Pod['spec']>, Record<string, number>]>([
    ['containers side by side', { containers: [main, main] }, { cpu: 400, memory: 40 }],
    ['the greediest init container', { containers: [main], initContainers: [init] }, { cpu: 500, memory: 20 }],
    [
      'an init container after a sidecar',
      { containers: [main], initContainers: [sidecar, init] },
      { cpu: 600, memory: 25 },
    ],
    [
      'an init container before a sidecar',
      { containers: [main], initContainers: [init, sidecar] },
      { cpu: 500, memory: 25 },
    ],
    ['overhead', { containers: [main], overhead: { cpu: '10m' } }, { cpu: 210, memory: 20 }],
    ['its own resources', { containers: [main], resources: { requests: { cpu: '1' } } }, { cpu: 1000, memory: 20 }],
  ])('%s', (_name, spec, expected) => expect(podRequests(pod(spec))).toEqual(expected));

  it('adds overhead to limits only where there is one', () => {
    const limited = pod({
      containers: [container('a', { limits: { cpu: '1' } })],
      overhead: { cpu: '100m', memory: '1Mi' },
    });
    expect(podLimits(limited)).toEqual({ cpu: 1100 });
    expect(podLimits(limited, { withoutOverhead: true })).toEqual({ cpu: 1000 });
  });
});

describe('the numbers the kernel gets', () => {
  it.each([
    [0, 2],
    [1, 2],
    [2, 2],
    [100, 102],
    [1000, 1024],
    [1_000_000, 262_144],
  ])('%d millicores have %d shares', (milli, shares) => expect(cpuShares(milli)).toBe(shares));

  it.each([
    [2, 1],
    [102, 4],
    [1024, 39],
    [262_144, 10_000],
  ])('%d shares have weight %d', (shares, weight) => {
    expect(cpuWeight(shares)).toBe(weight);
    expect(cpuWeight(weightToShares(weight))).toBeLessThanOrEqual(weight);
  });

  it('reads millicores back from shares', () => {
    for (const milli of [2, 10, 100, 250, 999, 1000, 4000]) expect(sharesToMilliCpu(cpuShares(milli))).toBe(milli);
  });

  it.each([
    [0, 0],
    [1, 1000],
    [10, 1000],
    [500, 50_000],
    [2500, 250_000],
  ])('%d millicores are %d µs of 100 ms', (milli, quota) => expect(cpuQuota(milli, 100_000)).toBe(quota));

  const one = (resources: ResourceRequirements, more: Partial<ResourceFacts> = {}) =>
    containerResources(pod({ containers: [container('c', resources)] }), container('c', resources), {
      ...facts,
      ...more,
    });

  it('takes the cpu limit for the request where there is none', () => {
    expect(one({ limits: { cpu: '500m' } })).toMatchObject({ cpuShares: 512, cpuQuota: 50_000, cpuPeriod: 100_000 });
    expect(one({})).toMatchObject({ cpuShares: 2, cpuQuota: 0 });
    expect(one({})).not.toHaveProperty('memoryLimitInBytes');
  });

  it('writes no quota where the configuration says so', () => {
    expect(one({ limits: { cpu: '1' } }, { cpuCfsQuota: false })).not.toHaveProperty('cpuQuota');
  });

  it('limits every size of huge pages', () => {
    expect(one({ limits: { 'hugepages-2Mi': '4Mi' } }).hugepageLimits).toEqual([
      { pageSize: '2MB', limit: 4 * 2 ** 20 },
      { pageSize: '1GB', limit: 0 },
    ]);
  });

  it('kills a container as a whole on version 2, unless told otherwise', () => {
    expect(one({}, { cgroupVersion: 2 }).unified).toEqual({ 'memory.oom.group': '1' });
    expect(one({}, { cgroupVersion: 2, singleProcessOomKill: true }).unified).toBeUndefined();
    expect(one({}).unified).toBeUndefined();
  });

  it('gives swap in proportion to the memory requested, under LimitedSwap', () => {
    const swap = { available: true, behavior: 'LimitedSwap', capacityBytes: 1000 } as const;
    const more = { cgroupVersion: 2, swap, singleProcessOomKill: true, memoryCapacityBytes: 4000 } as const;
    expect(one({ requests: { memory: '1000' } }, more).unified).toEqual({ 'memory.swap.max': '250' });
    expect(one({}, more).unified).toEqual({ 'memory.swap.max': '0' });
    expect(one({ limits: { memory: '64' } }, { ...more, cgroupVersion: 1 }).memorySwapLimitInBytes).toBe(64);
  });

  it('lets the pod limit stand in for a container without one', () => {
    const c = container('c', {});
    const p = pod({ containers: [c], resources: { limits: { cpu: '2', memory: '1Gi' } } });
    expect(containerResources(p, c, facts)).toMatchObject({ cpuQuota: 200_000, memoryLimitInBytes: 2 ** 30 });
  });
});

describe('oom_score_adj', () => {
  const score = (spec: Partial<Pod['spec']>, of: Container): number => oomScoreAdj(pod(spec), of, 4_000_000_000);
  const a = container('a', { requests: { memory: '2000000000' } });
  const small = container('b', { requests: { memory: '1' } });
  const sidecar = container('s', { requests: { memory: '1' } }, { restartPolicy: 'Always' });
  const huge = container('h', { requests: { memory: '3999999999' } });

  it.each<[string, Partial<Pod['spec']>, Container, number]>([
    ['Guaranteed', { containers: [container('a', both('1', '1Gi'))] }, container('a', both('1', '1Gi')), -997],
    ['BestEffort', { containers: [container('a', {})] }, container('a', {}), 1000],
    ['half of the memory', { containers: [a] }, a, 500],
    ['next to nothing stays below BestEffort', { containers: [small] }, small, 999],
    ['next to everything stays above Guaranteed', { containers: [huge] }, huge, 3],
    ['a sidecar lives as long as its container', { containers: [a], initContainers: [sidecar] }, sidecar, 500],
    ['a share of the pod', { containers: [small], resources: { requests: { memory: '2000000001' } } }, small, 500],
    [
      'node critical',
      { containers: [small], priority: 2_000_001_000, priorityClassName: 'system-node-critical' },
      small,
      -997,
    ],
  ])('%s', (_name, spec, of, expected) => expect(score(spec, of)).toBe(expected));
});

describe("a pod's own cgroup", () => {
  const podFacts = { cpuCfsQuota: true, cpuCfsQuotaPeriodUs: 100_000, hugepageSizes: ['2MB'], podPidsLimit: -1 };
  const of = (spec: Partial<Pod['spec']>) => podCgroupResources(pod(spec), podFacts);

  it('is limited where every container is', () => {
    expect(
      of({
        containers: [container('a', { limits: { cpu: '1', memory: '1Mi' } }), container('b', { limits: { cpu: '1' } })],
      }),
    ).toEqual({
      cpuShares: 2,
      cpuQuota: 200_000,
      cpuPeriod: 100_000,
      hugepageLimits: { '2MB': 0 },
    });
  });

  it('is limited by its own resources', () => {
    expect(of({ containers: [container('a', {})], resources: { limits: { memory: '1Mi' } } })).toMatchObject({
      memoryLimit: 2 ** 20,
    });
  });

  it('has the least shares and no limits when BestEffort', () => {
    expect(of({ containers: [container('a', {})] })).toEqual({ cpuShares: 2, hugepageLimits: { '2MB': 0 } });
  });

  it('limits pids and huge pages', () => {
    const spec = { containers: [container('a', { requests: { cpu: '1', 'hugepages-2Mi': '4Mi' } })] };
    expect(podCgroupResources(pod(spec), { ...podFacts, podPidsLimit: 10 })).toMatchObject({
      pidsLimit: 10,
      hugepageLimits: { '2MB': 4 * 2 ** 20 },
    });
  });
});
