import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createRegistry } from '../../lib/metrics.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { createKubeletMetrics } from '../server/kubelet-metrics.ts';
import type { PodStats, Summary } from '../stats/summary-types.ts';
import { defaultKubeletConfiguration, type KubeletConfiguration } from '../config.ts';
import type { Pressure } from './conditions.ts';
import { createEviction } from './eviction.ts';
import { rankPods } from './eviction-ranking.ts';
import { parseThresholds, parseThresholdValue } from './thresholds.ts';

const Mi = 2 ** 20;
const Gi = 2 ** 30;

function pod(name: string, options: { request?: string; priority?: number; spec?: object } = {}): Pod {
  return {
    metadata: { name, namespace: 'default', uid: name },
    spec: {
      priority: options.priority ?? 0,
      containers: [
        { name: 'c', image: 'i', ...(options.request ? { resources: { requests: { memory: options.request } } } : {}) },
      ],
      ...options.spec,
    },
    status: { phase: 'Running' },
  } as Pod;
}

const used = (name: string, memory: number, more: Partial<PodStats> = {}): PodStats => ({
  podRef: { name, namespace: 'default', uid: name },
  startTime: null,
  containers: [{ name: 'c', startTime: null, memory: { time: '', workingSetBytes: memory } }],
  memory: { time: '', workingSetBytes: memory },
  ...more,
});

function setUp(config: Partial<KubeletConfiguration> = {}) {
  const clock = createFakeClock();
  const registry = createRegistry();
  const world = {
    memory: 2 * Gi,
    disk: 50 * Gi,
    pids: 100,
    pods: [] as Pod[],
    stats: [] as PodStats[],
    /** What is found when nothing remembered is believed; default: the same. */
    fresh: undefined as PodStats[] | undefined,
    freed: [] as string[],
    /** What is free on the disk after each of them. */
    afterFree: {} as Partial<Record<'containers' | 'images', number>>,
    holds: new Set<string>(),
    /** Ended without the runtime; how many processes were left. */
    killed: [] as string[],
    processes: 0,
  };
  const evicted: { uid: string; message: string; graceSeconds: number; disruption?: object }[] = [];
  const events: string[] = [];
  const annotated: Record<string, Readonly<Record<string, string>>> = {};
  const pressures: Pressure[] = [];
  const summary = (): Summary => {
    const time = new Date(clock.now()).toISOString();
    return {
      node: {
        nodeName: 'n',
        startTime: time,
        memory: { time, availableBytes: world.memory, workingSetBytes: 8 * Gi - world.memory },
        systemContainers: [
          { name: 'pods', startTime: time, memory: { time, availableBytes: 4 * Gi, workingSetBytes: Gi } },
        ],
        fs: { time, availableBytes: world.disk, capacityBytes: 100 * Gi, inodesFree: 900, inodes: 1000 },
        runtime: { imageFs: { time, availableBytes: world.disk, capacityBytes: 100 * Gi } },
        rlimit: { time, maxpid: 1000, curproc: world.pids },
      },
      pods: world.stats,
    };
  };
  const eviction = createEviction(
    {
      clock,
      log: silentLog,
      metrics: createKubeletMetrics(registry),
      events: {
        record(about, _type, reason, message, annotations) {
          events.push(`${about.name} ${reason}: ${message}`);
          if (annotations) annotated[about.name] = annotations;
        },
      },
      nodeTarget: { apiVersion: 'v1', kind: 'Node', name: 'n' },
      nodeSummary: () => Promise.resolve({ ...summary(), pods: [] }),
      summary: () => Promise.resolve(summary()),
      freshSummary: () => Promise.resolve({ ...summary(), pods: world.fresh ?? world.stats }),
      activePods: () => world.pods,
      evict: (uid, end) => void evicted.push({ uid, ...end }),
      holdsResources: (uid) => world.holds.has(uid),
      endAtOnce(one) {
        world.killed.push(one.metadata.name ?? '');
        return Promise.resolve(world.processes);
      },
      freeUnused(what) {
        world.freed.push(what);
        world.disk = world.afterFree[what] ?? world.disk;
        return Promise.resolve();
      },
      onPressure: (pressure) => void pressures.push(pressure),
    },
    { config: { ...defaultKubeletConfiguration(), ...config }, memoryBytes: 8 * Gi },
  );
  const stop = new AbortController();
  const lookAfter = async (ms: number) => {
    await clock.advance(ms);
    return eviction.look(stop.signal);
  };
  return { clock, registry, world, evicted, events, annotated, pressures, eviction, lookAfter, stop };
}

describe('thresholds', () => {
  it.each([
    ['100Mi', { amount: 100 * Mi }],
    ['10%', { share: 0.1 }],
    ['0%', undefined],
    ['100%', undefined],
    ['120%', '"120%" is not a percentage between 0% and 100%'],
    ['a lot', '"a lot" is neither a quantity nor a percentage'],
    ['-1', '"-1" is negative'],
  ])('%s', (text, value) => expect(parseThresholdValue(text)).toEqual(value));

  it('a soft one needs its grace, an unknown signal is named', () => {
    const { thresholds, problems } = parseThresholds({
      evictionHard: { 'nodefs.available': '5%', 'memory.available': '1Gi', 'memory.free': '1' },
      evictionSoft: { 'memory.available': '2Gi', 'nodefs.available': '7%' },
      evictionSoftGracePeriod: { 'memory.available': '90s' },
      evictionMinimumReclaim: { 'memory.available': '500Mi' },
    });
    expect(thresholds.map(({ signal, graceMs, hard }) => [signal, graceMs, hard])).toEqual([
      ['memory.available', 0, true],
      ['memory.available', 90_000, false],
      ['nodefs.available', 0, true],
    ]);
    expect(problems.map(({ path }) => path.join('.'))).toEqual([
      'evictionHard.memory.free',
      'evictionSoft.nodefs.available',
    ]);
  });
});

describe('ranking', () => {
  const stats = new Map(
    [used('a', 300 * Mi), used('b', 50 * Mi), used('c', 400 * Mi), used('d', 900 * Mi)].map((one) => [
      one.podRef.uid,
      one,
    ]),
  );
  const names = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata.name);

  it('above the request first, then low priority, then by how far above', () => {
    const pods = [
      pod('d', { request: '1Gi' }),
      pod('a', { request: '100Mi' }),
      pod('b', { request: '10Mi', priority: -5 }),
      pod('c', { request: '100Mi' }),
      pod('unknown'),
    ];
    expect(names(rankPods(pods, (one) => stats.get(one.metadata.uid ?? ''), 'memory.available', false))).toEqual([
      'unknown',
      'b',
      'c',
      'a',
      'd',
    ]);
  });
});

describe('eviction', () => {
  it('evicts one pod when memory is short, says why, and shows pressure until it was away for five minutes', async () => {
    const { registry, world, evicted, events, annotated, pressures, eviction, lookAfter } = setUp();
    world.pods = [pod('small', { request: '1Gi' }), pod('big', { request: '100Mi' })];
    world.stats = [used('small', 100 * Mi), used('big', 2 * Gi)];
    expect(await lookAfter(0)).toEqual([]);
    world.memory = 50 * Mi;
    expect(await lookAfter(10_000)).toEqual(['big']);
    expect(evicted).toEqual([
      {
        uid: 'big',
        reason: 'Evicted',
        graceSeconds: 1,
        message:
          'The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 2Gi, request is 100Mi, has larger consumption of memory. ',
        disruption: { reason: 'TerminationByKubelet', message: expect.any(String) as string },
      },
    ]);
    expect(events).toContain('n EvictionThresholdMet: Attempting to reclaim memory');
    expect(annotated).toEqual({
      big: { starved_resource: 'memory', offending_containers: 'c', offending_containers_usage: '2Gi' },
    });
    const page = await registry.metrics();
    expect(page).toContain('kubelet_evictions{eviction_signal="memory.available"} 1\n');
    expect(page).toContain('kubelet_eviction_stats_age_seconds_count{eviction_signal="memory.available"} 1\n');
    expect(pressures.at(-1)).toEqual({ memory: true, disk: false, pid: false });
    expect(eviction.refuse(pod('new'))).toEqual({
      reason: 'Evicted',
      message: 'The node had condition: [MemoryPressure]. ',
    });
    expect(eviction.refuse(pod('new', { request: '1Mi' }))).toBeUndefined();
    world.memory = 3 * Gi;
    await lookAfter(10_000);
    await lookAfter(280_000);
    expect(eviction.pressure().memory).toBe(true);
    await lookAfter(20_000);
    expect(eviction.pressure().memory).toBe(false);
    expect(evicted).toHaveLength(1);
  });

  it('that no pod can be evicted is told once a minute, however often it is looked at', async () => {
    const { world, events, lookAfter } = setUp();
    world.pods = [pod('critical', { priority: 2_000_000_000 })];
    world.stats = [used('critical', 2 * Gi)];
    world.memory = 50 * Mi;
    for (let looks = 0; looks < 70; looks++) await lookAfter(1_000);
    expect(events).toEqual(Array.from({ length: 2 }, () => 'n EvictionThresholdMet: Attempting to reclaim memory'));
  });

  it('a soft threshold waits for its grace and gives the pod what it may have', async () => {
    const { world, evicted, lookAfter } = setUp({
      evictionHard: {},
      evictionSoft: { 'memory.available': '1Gi' },
      evictionSoftGracePeriod: { 'memory.available': '1m' },
      evictionMaxPodGracePeriod: 20,
    });
    world.pods = [pod('p', { spec: { terminationGracePeriodSeconds: 45 } })];
    world.stats = [used('p', Gi)];
    world.memory = 900 * Mi;
    await lookAfter(0);
    await lookAfter(50_000);
    expect(evicted).toHaveLength(0);
    await lookAfter(10_000);
    expect(evicted).toMatchObject([{ uid: 'p', graceSeconds: 20 }]);
  });

  it('frees containers of ended pods, then images, before a pod goes', async () => {
    const { world, evicted, lookAfter } = setUp();
    world.pods = [pod('p')];
    world.stats = [used('p', Mi)];
    world.disk = 5 * Gi;
    world.afterFree = { containers: 60 * Gi };
    expect(await lookAfter(0)).toEqual([]);
    expect(world.freed).toEqual(['containers']);
    world.disk = 5 * Gi;
    world.afterFree = { containers: 6 * Gi, images: 60 * Gi };
    expect(await lookAfter(10_000)).toEqual([]);
    expect(world.freed).toEqual(['containers', 'containers', 'images']);
    world.disk = 5 * Gi;
    world.afterFree = { containers: 6 * Gi, images: 7 * Gi };
    expect(await lookAfter(10_000)).toEqual(['p']);
    expect(evicted[0]?.message).toContain('The node was low on resource: ephemeral-storage. ');
  });

  it('who filled the disk a moment ago goes, though what is remembered knows nothing of it yet', async () => {
    const { world, evicted, annotated, lookAfter } = setUp();
    const fs = (usedBytes: number) => ({ time: '', usedBytes, availableBytes: 0, capacityBytes: 0 });
    const onDisk = (name: string, usedBytes: number) =>
      used(name, Mi, {
        containers: [{ name: 'c', startTime: null, rootfs: fs(36) }],
        volume: [{ name: 'v', ...fs(usedBytes) }],
      });
    const spec = { volumes: [{ name: 'v', emptyDir: {} }] };
    world.pods = [pod('web', { spec }), pod('hog', { spec })];
    world.stats = [onDisk('web', 1), onDisk('hog', 0)];
    world.fresh = [onDisk('web', 1), onDisk('hog', 40 * Gi)];
    world.disk = Gi;
    await lookAfter(0);
    expect(evicted.map(({ uid }) => uid)).toEqual(['hog']);
    // Its volume did it, no container.
    expect(annotated['hog']).toEqual({
      starved_resource: 'ephemeral-storage',
      offending_containers: '',
      offending_containers_usage: '',
    });
  });

  it('critical and static pods stay', async () => {
    const { world, evicted, lookAfter } = setUp();
    world.pods = [
      pod('critical', { priority: 2_000_000_000 }),
      {
        ...pod('static'),
        metadata: { name: 'static', uid: 'static', annotations: { 'kubernetes.io/config.source': 'file' } },
      },
    ];
    world.memory = Mi;
    expect(await lookAfter(0)).toEqual([]);
    expect(evicted).toEqual([]);
  });

  it.each([
    [
      'an emptyDir above its limit',
      { volumes: [{ name: 'v', emptyDir: { sizeLimit: '10Mi' } }] },
      { volume: [{ name: 'v', time: '', usedBytes: 11 * Mi }] },
      'Usage of EmptyDir volume "v" exceeds the limit "10Mi". ',
    ],
    [
      'a pod above the sum of its limits',
      { containers: [{ name: 'c', resources: { limits: { 'ephemeral-storage': '10Mi' } } }] },
      { 'ephemeral-storage': { time: '', usedBytes: 11 * Mi } },
      'Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ',
    ],
    [
      'a container above its limit',
      {
        containers: [
          { name: 'c', resources: { limits: { 'ephemeral-storage': '10Mi' } } },
          { name: 'd', resources: { limits: { 'ephemeral-storage': '10Mi' } } },
        ],
      },
      {
        containers: [
          {
            name: 'c',
            startTime: null,
            logs: { time: '', usedBytes: 6 * Mi },
            rootfs: { time: '', usedBytes: 5 * Mi },
          },
        ],
      },
      'Container c exceeded its local ephemeral storage limit "10Mi". ',
    ],
  ])('%s is evicted', async (_what, spec, stats, message) => {
    const { world, evicted, lookAfter } = setUp();
    world.pods = [pod('p', { spec })];
    world.stats = [used('p', Mi, stats as Partial<PodStats>)];
    await lookAfter(0);
    expect(evicted).toEqual([{ uid: 'p', reason: 'Evicted', message, graceSeconds: 1 }]);
  });

  it('waits for the evicted pod to be gone before the next', async () => {
    const { clock, world, evicted, eviction, stop } = setUp();
    world.pods = [pod('a'), pod('b')];
    world.stats = [used('a', Gi), used('b', Mi)];
    world.memory = Mi;
    world.holds.add('a');
    const running = eviction.run(stop.signal);
    await clock.advance(5000);
    expect(evicted.map(({ uid }) => uid)).toEqual(['a']);
    world.holds.clear();
    world.pods = [pod('b')];
    await clock.advance(1000);
    expect(evicted.map(({ uid }) => uid)).toEqual(['a', 'b']);
    stop.abort();
    await clock.advance(0);
    await running;
  });

  it('ends an evicted pod without the runtime where that has not done it after five seconds, and memory is what is short', async () => {
    const { clock, world, eviction, stop } = setUp();
    world.pods = [pod('a'), pod('b')];
    world.stats = [used('a', Gi), used('b', Mi)];
    world.memory = Mi;
    world.holds.add('a').add('b');
    world.processes = 3;
    const running = eviction.run(stop.signal);
    await clock.advance(4_800);
    expect(world.killed).toEqual([]);
    await clock.advance(500);
    expect(world.killed).toEqual(['a']);
    await clock.advance(5_500);
    expect(world.killed).toEqual(['a', 'a']);
    stop.abort();
    await clock.advance(0);
    await running;
  });

  it.each([
    ['the disk is short', {}, (world: { disk: number }) => (world.disk = Mi)],
    [
      'the threshold is a soft one',
      {
        evictionHard: {},
        evictionSoft: { 'memory.available': '100Mi' },
        evictionSoftGracePeriod: { 'memory.available': '1s' },
      },
      (world: { memory: number }) => (world.memory = Mi),
    ],
  ])('leaves it to the runtime where %s', async (_what, config, shorten) => {
    const { clock, world, evicted, eviction, stop } = setUp(config as Partial<KubeletConfiguration>);
    world.pods = [pod('a')];
    world.stats = [used('a', Gi)];
    shorten(world);
    world.holds.add('a');
    const running = eviction.run(stop.signal);
    await clock.advance(30_000);
    expect(evicted.length).toBeGreaterThan(0);
    expect(world.killed).toEqual([]);
    stop.abort();
    await clock.advance(0);
    await running;
  });
});
