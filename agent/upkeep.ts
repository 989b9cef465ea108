// What keeps a node healthy beside its pods: unused images and dead containers go, logs keep their size, pods give way under pressure and
// when the host goes down.
import type { Runtime } from '../cri/runtime.ts';
import type { EventRecorder } from '../kube/events.ts';
import { parseQuantity, quantityValue } from '../kube/quantity.ts';
import type { Pod } from '../kube/types/pod.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { KubeletConfiguration } from './config.ts';
import { createImageGc } from './images/gc.ts';
import type { PodImages } from './images/pod-images.ts';
import { createEviction } from './node/eviction.ts';
import { createLogRotation } from './node/log-rotation.ts';
import { createLogind, hasSystemd } from './node/logind.ts';
import type { PodsMemory } from './node/memory-alarm.ts';
import type { NodeAgent } from './node/node-agent.ts';
import { createNodeShutdown } from './node/shutdown.ts';
import { openShutdownTimes } from './node/shutdown-times.ts';
import type { Observer } from './observe/observer.ts';
import type { PodWorkers } from './pods/pod-workers.ts';
import type { KubeletMetrics } from './server/kubelet-metrics.ts';
import type { NodeStats } from './stats/node-stats.ts';

export interface UpkeepDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
  readonly metrics: KubeletMetrics;
  readonly runtime: Runtime;
  readonly images: PodImages;
  readonly node: NodeAgent;
  readonly observer: Observer;
  readonly stats: NodeStats;
  workers(): PodWorkers;
  /** See eviction. */
  endAtOnce(pod: Pod, signal: AbortSignal): Promise<number>;
}

export interface Upkeep {
  /** Why the pod may not start now; undefined where it may. */
  refuse(pod: Pod): { readonly reason: string; readonly message: string } | undefined;
  readonly tasks: readonly { readonly name: string; run(signal: AbortSignal): Promise<void> }[];
}

export interface UpkeepOptions {
  readonly config: KubeletConfiguration;
  readonly rootDir: string;
  readonly memoryBytes: number;
  readonly podsMemory: PodsMemory | undefined;
}

export async function createUpkeep(deps: UpkeepDeps, options: UpkeepOptions): Promise<Upkeep> {
  const { clock, log, events, node, observer } = deps;
  const { config } = options;
  const imageGc = createImageGc(
    {
      ...deps,
      node: node.eventTarget,
      records: deps.images.records,
      collected: deps.metrics.imageGarbageCollected,
    },
    {
      highThresholdPercent: config.imageGCHighThresholdPercent,
      lowThresholdPercent: config.imageGCLowThresholdPercent,
      minAgeMs: config.imageMinimumGCAge,
      maxAgeMs: config.imageMaximumGCAge,
    },
  );
  const logRotation = createLogRotation(
    {
      ...deps,
      running: () =>
        observer
          .uids()
          .flatMap((uid) => observer.last(uid).containers)
          .filter((container) => container.state === 'running' && container.logPath !== ''),
    },
    {
      maxSizeBytes: Number(quantityValue(parseQuantity(config.containerLogMaxSize))),
      maxFiles: config.containerLogMaxFiles,
      intervalMs: config.containerLogMonitorInterval,
      workers: config.containerLogMaxWorkers,
    },
  );
  const activePods = (): readonly Pod[] =>
    deps
      .workers()
      .list()
      .filter((pod) => pod.status?.phase !== 'Succeeded' && pod.status?.phase !== 'Failed');
  const shared = {
    clock,
    log,
    events,
    nodeTarget: node.eventTarget,
    activePods,
    holdsResources: (uid: string) => deps.workers().holdsResources(uid),
  };
  const eviction = createEviction(
    {
      ...shared,
      metrics: deps.metrics,
      nodeSummary: () => deps.stats.nodeSummary(),
      summary: () => deps.stats.summary({ onlyCpuAndMemory: false }),
      freshSummary: () => {
        deps.stats.filesystems.forget();
        return deps.stats.summary({ onlyCpuAndMemory: false });
      },
      evict: (uid, end) => deps.workers().evict(uid, end),
      endAtOnce: (pod, signal) => deps.endAtOnce(pod, signal),
      freeUnused: async (what, signal) => {
        if (what === 'containers') await deps.workers().letGo(signal);
        else await imageGc.removeUnused(signal);
      },
      onPressure: (pressure) => node.setPressure(pressure),
    },
    { config, memoryBytes: options.memoryBytes, podsMemory: options.podsMemory },
  );
  const shutdown = (await hasSystemd())
    ? createNodeShutdown(
        {
          ...shared,
          notifier: createLogind(clock),
          end: (uid, end) => deps.workers().evict(uid, end),
          onChange: () => node.refresh(),
          times: await openShutdownTimes(deps, options.rootDir),
        },
        { config },
      )
    : undefined;
  if (shutdown?.enabled) node.addReadySource(() => shutdown.readyError());

  return {
    refuse: (pod) => shutdown?.refuse() ?? eviction.refuse(pod),
    tasks: [
      { name: 'image collection', run: (signal) => imageGc.run(signal) },
      { name: 'log rotation', run: (signal) => logRotation.run(signal) },
      { name: 'eviction', run: (signal) => eviction.run(signal) },
      ...(shutdown?.enabled ? [{ name: 'shutdown', run: (signal: AbortSignal) => shutdown.run(signal) }] : []),
    ],
  };
}
