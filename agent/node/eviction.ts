// Keeps the node from running out of memory, disk and processes: looks at the signals every ten seconds and at once when memory is short,
// sets the pressure conditions, frees what is unused, and evicts one pod at a time. Limits of local storage are held here too.
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { createNap } from '../../lib/nap.ts';
import { type EventRecorder, type EventTarget, podTarget } from '../../kube/events.ts';
import type { Pod, Toleration } from '../../kube/types/pod.ts';
import type { KubeletConfiguration } from '../config.ts';
import { isCriticalPod } from '../resources/critical.ts';
import { qosOf } from '../../kube/scheduling/qos.ts';
import type { KubeletMetrics } from '../server/kubelet-metrics.ts';
import type { PodStats, Summary } from '../stats/summary-types.ts';
import type { Pressure } from './conditions.ts';
import { admissionMessage, evictedReason, type PressureReport, pressureReport } from './eviction-messages.ts';
import { rankPods, type StatsOf } from './eviction-ranking.ts';
import { crossed, observe, starvedOf, withAllocatable } from './eviction-signals.ts';
import { calm, look } from './eviction-state.ts';
import { limitsLocalStorage, localStorageExcess } from './local-storage.ts';
import { type PodsMemory, watchMemory } from './memory-alarm.ts';
import { parseThresholds, type Threshold, thresholdAmount } from './thresholds.ts';

export interface EvictionDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
  readonly metrics: Pick<KubeletMetrics, 'evictions' | 'evictionStatsAge'>;
  /** The node's Event target. */
  readonly nodeTarget: EventTarget;
  /** Statistics of the node alone: cheap, for every look. */
  nodeSummary(signal: AbortSignal): Promise<Summary>;
  /** Statistics of the node and its pods, volumes and file systems included; what pods have on disk may be a minute old. */
  summary(signal: AbortSignal): Promise<Summary>;
  /** The same, with nothing remembered: who filled the disk may have done so in a moment. */
  freshSummary(signal: AbortSignal): Promise<Summary>;
  /** Pods that run or may run. */
  activePods(): readonly Pod[];
  /** Brings the pod down and sets its phase to Failed with this reason and message; resolves at once. */
  evict(
    uid: string,
    end: {
      reason: string;
      message: string;
      graceSeconds: number;
      disruption?: { reason: string; message: string };
    },
  ): void;
  /** True while containers of the pod may run or its resources are held. */
  holdsResources(uid: string): boolean;
  /**
   * Kills the processes of a pod that was evicted, and frees what it keeps in memory, without the runtime; resolves with how many processes
   * were left.
   */
  endAtOnce(pod: Pod, signal: AbortSignal): Promise<number>;
  /** Removes the containers of pods that have ended, or images nobody uses; resolves when done. */
  freeUnused(what: 'containers' | 'images', signal: AbortSignal): Promise<void>;
  onPressure(pressure: Pressure): void;
}

export interface EvictionOptions {
  readonly config: Pick<
    KubeletConfiguration,
    | 'evictionHard'
    | 'evictionSoft'
    | 'evictionSoftGracePeriod'
    | 'evictionMinimumReclaim'
    | 'evictionPressureTransitionPeriod'
    | 'evictionMaxPodGracePeriod'
    | 'enforceNodeAllocatable'
    | 'localStorageCapacityIsolation'
  >;
  /** For the memory alarm: the hard threshold's share is of this. */
  readonly memoryBytes: number;
  /** For the memory alarm too: the cgroup that holds those of all pods. */
  readonly podsMemory?: PodsMemory | undefined;
  /** Default 10,000. */
  readonly intervalMs?: number;
}

export interface Eviction {
  run(signal: AbortSignal): Promise<void>;
  /** Looks now; resolves with the uids of pods that were evicted. */
  look(signal: AbortSignal): Promise<readonly string[]>;
  /** Why a new pod may not start now; undefined where it may. */
  refuse(pod: Pod): { readonly reason: string; readonly message: string } | undefined;
  pressure(): Pressure;
}

const cleanupTimeoutMs = 30_000;
const cleanupPollMs = 250;
const immediateGraceSeconds = 1;
const tellAgainMs = 60_000;
// A node that is out of memory has a runtime that hardly turns: each of its steps starts a program.
const runtimeTimeoutMs = 5_000;

interface Look {
  /** Uids. */
  readonly evicted: readonly string[];
  /** A hard threshold of memory or processes was crossed: the node itself is about to stand still. */
  readonly urgent: boolean;
}

const nothing: Look = { evicted: [], urgent: false };

const tolerates = (tolerations: readonly Toleration[] = [], key: string): boolean =>
  tolerations.some(
    (toleration) =>
      (!toleration.effect || toleration.effect === 'NoSchedule') &&
      (toleration.key === key || (!toleration.key && toleration.operator === 'Exists')) &&
      (toleration.operator === 'Exists' || !toleration.value),
  );

const statsIn = (summary: Summary): StatsOf => {
  const byUid = new Map<string, PodStats>(summary.pods.map((stats) => [stats.podRef.uid, stats]));
  return (pod) => byUid.get(pod.metadata.uid ?? '');
};

/** Images are on another file system than the agent's root folder. */
const hasImageFs = ({ node }: Summary): boolean => node.fs?.capacityBytes !== node.runtime?.imageFs?.capacityBytes;

export function createEviction(deps: EvictionDeps, options: EvictionOptions): Eviction {
  const { clock, log, events } = deps;
  const { config } = options;
  const thresholds = withAllocatable(parseThresholds(config).thresholds, config.enforceNodeAllocatable);
  let state = calm;
  let pressure: Pressure = { memory: false, disk: false, pid: false };
  const nap = createNap(clock);
  let looking: Promise<Look> | undefined;
  /** Nobody could be evicted: with the alarm on, that is found again each second. */
  let stuck: { readonly starved: string; readonly toldMs: number } | undefined;

  const evict = (
    pod: Pod,
    signal: string,
    { message, annotations }: PressureReport,
    graceSeconds: number,
    disruption: boolean,
  ): boolean => {
    if (isCriticalPod(pod)) {
      log.warn('a critical pod is not evicted', { pod: pod.metadata.name, namespace: pod.metadata.namespace, message });
      return false;
    }
    events.record(podTarget(pod), 'Warning', evictedReason, message, annotations);
    log.warn('evicting a pod', { pod: pod.metadata.name, namespace: pod.metadata.namespace, message });
    deps.evict(pod.metadata.uid ?? '', {
      reason: evictedReason,
      message,
      graceSeconds,
      ...(disruption ? { disruption: { reason: 'TerminationByKubelet', message } } : {}),
    });
    deps.metrics.evictions.inc({ eviction_signal: signal });
    return true;
  };

  const enforceLimits = (pods: readonly Pod[], statsOf: StatsOf, dedicated: boolean): string[] =>
    pods.flatMap((pod) => {
      const stats = statsOf(pod);
      const excess = stats && localStorageExcess(pod, stats, dedicated);
      return excess && evict(pod, excess.signal, excess, immediateGraceSeconds, false) ? [pod.metadata.uid ?? ''] : [];
    });

  // Freeing what is unused may be enough; statistics taken afterwards tell. Those are of this moment: undefined where it was enough.
  const freeDisk = async (
    threshold: Threshold,
    dedicated: boolean,
    signal: AbortSignal,
  ): Promise<StatsOf | undefined> => {
    // Where images and containers are on another disk, nothing unused is on the node's own.
    const unused = dedicated && threshold.signal.startsWith('nodefs') ? [] : (['containers', 'images'] as const);
    let fresh: Summary | undefined;
    for (const what of unused) {
      await deps.freeUnused(what, signal).catch((error: unknown) => {
        signal.throwIfAborted();
        log.warn(`unused ${what} could not all be removed`, { error });
      });
      fresh = await deps.freshSummary(signal);
      if (crossed(thresholds, observe(fresh), true).length === 0) return undefined;
    }
    return statsIn(fresh ?? (await deps.freshSummary(signal)));
  };

  const graceFor = (threshold: Threshold, pod: Pod): number =>
    threshold.hard
      ? immediateGraceSeconds
      : Math.min(
          config.evictionMaxPodGracePeriod,
          pod.spec.terminationGracePeriodSeconds ?? config.evictionMaxPodGracePeriod,
        );

  const reclaim = async (
    act: readonly Threshold[],
    pods: readonly Pod[],
    statsOf: StatsOf,
    dedicated: boolean,
    signal: AbortSignal,
  ): Promise<Look> => {
    const [threshold] = act;
    if (!threshold) return nothing;
    const starved = starvedOf(threshold.signal);
    const told = stuck?.starved === starved && clock.monotonicMs() - stuck.toldMs < tellAgainMs;
    if (!told) {
      events.record(deps.nodeTarget, 'Warning', 'EvictionThresholdMet', `Attempting to reclaim ${starved}`);
      log.warn('the node is short of a resource', { starved, signal: threshold.signal });
    }
    const memory = starved === 'memory' || starved === 'pids';
    const stats = memory ? statsOf : await freeDisk(threshold, dedicated, signal);
    if (!stats) return nothing;
    for (const { signal: each } of act) {
      const atMs = state.last.get(each)?.atMs ?? 0;
      if (atMs > 0)
        deps.metrics.evictionStatsAge.observe({ eviction_signal: each }, Math.max(0, clock.now() - atMs) / 1000);
    }
    for (const pod of rankPods(pods, stats, threshold.signal, dedicated)) {
      const report = pressureReport(starved, pod, stats(pod), act, state.last);
      if (!evict(pod, threshold.signal, report, graceFor(threshold, pod), true)) continue;
      stuck = undefined;
      return { evicted: [pod.metadata.uid ?? ''], urgent: memory && threshold.hard };
    }
    if (!told) {
      log.warn('the node is short of a resource and no pod can be evicted', { starved });
      stuck = { starved, toldMs: clock.monotonicMs() };
    }
    return nothing;
  };

  const lookOnce = async (signal: AbortSignal): Promise<Look> => {
    if (thresholds.length === 0 && !config.localStorageCapacityIsolation) return nothing;
    const pods = deps.activePods().filter(({ status }) => status?.phase !== 'Failed' && status?.phase !== 'Succeeded');
    const summary = await deps.nodeSummary(signal);
    const dedicated = hasImageFs(summary);
    const seen = look(
      state,
      thresholds,
      observe(summary),
      clock.monotonicMs(),
      config.evictionPressureTransitionPeriod,
    );
    state = seen.state;
    if (
      seen.pressure.memory !== pressure.memory ||
      seen.pressure.disk !== pressure.disk ||
      seen.pressure.pid !== pressure.pid
    ) {
      pressure = seen.pressure;
      deps.onPressure(pressure);
    }
    const limited = config.localStorageCapacityIsolation && pods.some(limitsLocalStorage);
    if (!limited && seen.act.length === 0) return nothing;
    const statsOf = statsIn(await deps.summary(signal));
    if (limited) {
      const evicted = enforceLimits(pods, statsOf, dedicated);
      if (evicted.length > 0) return { evicted, urgent: false };
    }
    return reclaim(seen.act, pods, statsOf, dedicated, signal);
  };

  // The alarm and the clock may ask at the same time: one look serves both.
  const lookNow = (signal: AbortSignal): Promise<Look> => {
    looking ??= lookOnce(signal).finally(() => {
      looking = undefined;
    });
    return looking;
  };

  const endAtOnce = async (uid: string, signal: AbortSignal): Promise<void> => {
    const pod = deps.activePods().find(({ metadata }) => metadata.uid === uid);
    if (!pod) return;
    const { name, namespace } = pod.metadata;
    try {
      const killed = await deps.endAtOnce(pod, signal);
      if (killed > 0)
        log.warn('the runtime has not ended an evicted pod while the node is at its limit; its processes were killed', {
          ...{ pod: name, namespace, killed },
        });
    } catch (error) {
      signal.throwIfAborted();
      log.warn('the processes of an evicted pod could not be killed; tried again in 5 s', {
        ...{ pod: name, namespace, error },
      });
    }
  };

  const waitForCleanup = async ({ evicted, urgent }: Look, signal: AbortSignal): Promise<void> => {
    const deadline = clock.monotonicMs() + cleanupTimeoutMs;
    let killMs = clock.monotonicMs() + runtimeTimeoutMs;
    const held = (): string[] => evicted.filter((uid) => deps.holdsResources(uid));
    while (held().length > 0 && clock.monotonicMs() < deadline) {
      await clock.sleep(cleanupPollMs, signal);
      if (!urgent || clock.monotonicMs() < killMs) continue;
      for (const uid of held()) await endAtOnce(uid, signal);
      killMs = clock.monotonicMs() + runtimeTimeoutMs;
    }
  };

  const memoryThreshold = thresholds.find(({ signal, hard }) => hard && signal === 'memory.available');

  return {
    look: async (signal) => (await lookNow(signal)).evicted,
    pressure: () => pressure,
    refuse(pod) {
      const conditions = [
        ...(pressure.memory ? ['MemoryPressure'] : []),
        ...(pressure.disk ? ['DiskPressure'] : []),
        ...(pressure.pid ? ['PIDPressure'] : []),
      ];
      if (conditions.length === 0 || isCriticalPod(pod)) return undefined;
      if (conditions.length === 1 && pressure.memory) {
        if (qosOf(pod) !== 'BestEffort') return undefined;
        if (tolerates(pod.spec.tolerations, 'node.kubernetes.io/memory-pressure')) return undefined;
      }
      return { reason: evictedReason, message: admissionMessage(conditions) };
    },
    async run(signal) {
      const alarm = memoryThreshold
        ? watchMemory(
            { clock },
            {
              thresholdBytes: thresholdAmount(memoryThreshold.value, options.memoryBytes),
              podsMemory: options.podsMemory,
            },
            nap.wake,
            signal,
          )
        : Promise.resolve();
      while (!signal.aborted) {
        try {
          const look = await lookNow(signal);
          if (look.evicted.length > 0) {
            await waitForCleanup(look, signal);
            continue;
          }
        } catch (error) {
          if (signal.aborted) break;
          log.warn("eviction could not look at the node's statistics; trying again", { error });
        }
        await nap.take(options.intervalMs ?? 10_000, signal);
      }
      await alarm;
    },
  };
}
