// Ends pods in order when the host goes down: the unimportant first, each group with its own time, while logind waits for us.
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { EventRecorder, EventTarget } from '../../kube/events.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { KubeletConfiguration } from '../config.ts';
import type { ShutdownNotifier } from './logind.ts';

export interface ShutdownDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
  readonly nodeTarget: EventTarget;
  readonly notifier: ShutdownNotifier;
  activePods(): readonly Pod[];
  /** Brings the pod down; its phase becomes Failed with this reason. Resolves at once. */
  end(
    uid: string,
    end: {
      reason: string;
      message: string;
      graceSeconds: number;
      disruption: { reason: string; message: string };
    },
  ): void;
  holdsResources(uid: string): boolean;
  /** The node's readiness changed with it. */
  onChange(): void;
  /** When pods were last ended for a shutdown. Absent: nobody keeps it. */
  readonly times?: ShutdownTimes;
}

/** Milliseconds since the epoch. */
export interface ShutdownTimes {
  /** `endedMs` undefined: they are being ended. */
  note(startedMs: number, endedMs: number | undefined): Promise<void>;
}

export interface ShutdownOptions {
  readonly config: Pick<
    KubeletConfiguration,
    'shutdownGracePeriod' | 'shutdownGracePeriodCriticalPods' | 'shutdownGracePeriodByPodPriority'
  >;
}

export interface NodeShutdown {
  /** False where no grace is configured: then nothing is to be run. */
  readonly enabled: boolean;
  run(signal: AbortSignal): Promise<void>;
  /** For the node's Ready condition. */
  readyError(): string | undefined;
  /** Why a pod may not start now. */
  refuse(): { readonly reason: string; readonly message: string } | undefined;
}

export interface ShutdownGroup {
  readonly priority: number;
  readonly graceSeconds: number;
  readonly pods: readonly Pod[];
}

const criticalPriority = 2_000_000_000;
const reconnectMs = 1000;
const pollMs = 200;

/** Periods by priority, the lowest first. Empty where none is configured. */
export function shutdownPeriods(config: ShutdownOptions['config']): { priority: number; graceSeconds: number }[] {
  const byPriority = config.shutdownGracePeriodByPodPriority;
  if (byPriority.length > 0)
    return byPriority
      .map(({ priority, shutdownGracePeriodSeconds }) => ({ priority, graceSeconds: shutdownGracePeriodSeconds }))
      .sort((a, b) => a.priority - b.priority);
  if (config.shutdownGracePeriod === 0) return [];
  const critical = config.shutdownGracePeriodCriticalPods;
  return [
    { priority: 0, graceSeconds: (config.shutdownGracePeriod - critical) / 1000 },
    { priority: criticalPriority, graceSeconds: critical / 1000 },
  ];
}

/** A pod belongs to the highest group that is not above it, or to the lowest. */
export function groupPods(
  periods: readonly { priority: number; graceSeconds: number }[],
  pods: readonly Pod[],
): ShutdownGroup[] {
  const groupOf = (pod: Pod): number =>
    Math.max(
      0,
      periods.findLastIndex(({ priority }) => priority <= (pod.spec.priority ?? 0)),
    );
  return periods.map((period, index) => ({ ...period, pods: pods.filter((pod) => groupOf(pod) === index) }));
}

const message = 'Pod was terminated in response to imminent node shutdown.';

export function createNodeShutdown(deps: ShutdownDeps, options: ShutdownOptions): NodeShutdown {
  const { clock, log, notifier } = deps;
  const periods = shutdownPeriods(options.config);
  const totalMs = periods.reduce((sum, { graceSeconds }) => sum + graceSeconds * 1000, 0);
  let going = false;

  const endGroup = async ({ graceSeconds, pods }: ShutdownGroup, signal: AbortSignal): Promise<void> => {
    for (const pod of pods)
      deps.end(pod.metadata.uid ?? '', {
        reason: 'Terminated',
        message,
        graceSeconds: Math.min(graceSeconds, pod.spec.terminationGracePeriodSeconds ?? graceSeconds),
        disruption: { reason: 'TerminationByKubelet', message },
      });
    const deadline = clock.monotonicMs() + graceSeconds * 1000;
    const left = (): Pod[] => pods.filter(({ metadata }) => deps.holdsResources(metadata.uid ?? ''));
    while (left().length > 0 && clock.monotonicMs() < deadline) await clock.sleep(pollMs, signal);
    const late = left().map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
    if (late.length > 0) log.warn('pods did not end in their time before the shutdown', { pods: late, graceSeconds });
  };

  const goDown = async (signal: AbortSignal): Promise<void> => {
    const active = deps
      .activePods()
      .filter(({ status }) => status?.phase !== 'Failed' && status?.phase !== 'Succeeded');
    for (const group of groupPods(periods, active)) if (group.pods.length > 0) await endGroup(group, signal);
  };

  const announce = (text: string): void => {
    log.warn(text);
    deps.events.record(deps.nodeTarget, 'Normal', 'NodeShutdown', text);
  };

  const follow = async (signal: AbortSignal): Promise<void> => {
    await notifier.allowDelay(totalMs, signal);
    let lock = notifier.lock();
    try {
      for await (const down of notifier.events(signal)) {
        going = down;
        deps.onChange();
        if (down) {
          announce('Shutdown manager detected shutdown event');
          const startedMs = clock.now();
          await deps.times?.note(startedMs, undefined);
          try {
            await goDown(signal);
          } finally {
            await deps.times?.note(startedMs, clock.now());
            lock.release();
          }
          log.info('pods are ended; the host may go down');
        } else {
          announce('Shutdown manager detected shutdown cancellation');
          lock.release();
          lock = notifier.lock();
        }
      }
    } finally {
      lock.release();
    }
  };

  return {
    enabled: totalMs > 0,
    readyError: () => (going ? 'node is shutting down' : undefined),
    refuse: () =>
      going ? { reason: 'NodeShutdown', message: 'Pod was rejected as the node is shutting down.' } : undefined,
    async run(signal) {
      let told = '';
      while (!signal.aborted && totalMs > 0) {
        try {
          await follow(signal);
        } catch (error) {
          if (signal.aborted) return;
          const text = error instanceof Error ? error.message : String(error);
          if (text !== told) log.warn('a shutdown of the host cannot be delayed for pods; trying again', { error });
          told = text;
        }
        await clock.sleep(reconnectMs, signal).catch(() => undefined);
      }
    },
  };
}
