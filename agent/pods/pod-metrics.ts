// Feeds the kubelet's metrics of pods from what the workers show anyway. Counts of what there is are taken at most once a second, when
// something changed.
import type { Pod, PodStatus } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Observer } from '../observe/observer.ts';
import { isStaticPod } from '../resources/critical.ts';
import type { KubeletMetrics } from '../server/kubelet-metrics.ts';
import { isMirrorPod } from './desired.ts';
import type { PodLifecycle } from './pod-workers.ts';

export interface PodMetricsDeps {
  readonly clock: Clock;
  readonly metrics: KubeletMetrics;
  readonly observer: Pick<Observer, 'uids' | 'last'>;
  /** What this node is asked to run, mirrors included. */
  desired(): readonly Pod[];
  /** What it has workers for, with statuses. */
  pods(): readonly Pod[];
  lifecycles(): readonly PodLifecycle[];
  volumes(): { readonly desired: readonly string[]; readonly actual: readonly string[] };
  /** When the node first saw the pod; milliseconds since the epoch. */
  seenAtMs(uid: string): number | undefined;
  /** How long the pod's images were pulled for, in milliseconds. */
  pulledForMs(uid: string): number;
}

export interface PodMetrics {
  status(pod: Pod, status: PodStatus, before: PodStatus | undefined): void;
  started(pod: Pod, container: string): void;
  /** A sandbox is about to be run, or could not be; or a container of it could not be started the first time. */
  sandbox(pod: Pod, what: 'begun' | 'failed'): void;
  /** A container could not be made or started, for the reason that its status shows. */
  startFailed(pod: Pod, container: string, reason: string, message: string): void;
  relisted(error: unknown, tookMs: number): void;
  /** Something that is counted changed. */
  changed(): void;
}

export const containerType = ({ spec }: Pod, name: string): string => {
  if (spec.initContainers?.some((each) => each.name === name)) return 'init_container';
  return spec.ephemeralContainers?.some((each) => each.name === name) ? 'ephemeral_container' : 'container';
};

const isEnded = (status: PodStatus | undefined): boolean => status?.phase === 'Succeeded' || status?.phase === 'Failed';

const containersOf = (status: PodStatus | undefined) => [
  ...(status?.initContainerStatuses ?? []),
  ...(status?.containerStatuses ?? []),
  ...(status?.ephemeralContainerStatuses ?? []),
];

/** Every combination is shown, those of no pod as 0. */
function countLifecycles(metrics: Pick<KubeletMetrics, 'workingPods'>, pods: readonly PodLifecycle[]): void {
  for (const [config, statics] of [
    ['desired', ['true', '']],
    ['orphan', ['true', '']],
    ['runtime_only', ['unknown']],
  ] as const)
    for (const lifecycle of ['sync', 'terminating', 'terminated'] as const)
      for (const label of statics)
        metrics.workingPods.set(
          { lifecycle, config, static: label },
          pods.filter(
            (pod) =>
              pod.lifecycle === lifecycle &&
              pod.config === config &&
              (label === 'unknown' || pod.isStatic === (label === 'true')),
          ).length,
        );
}

function countVolumes(
  metrics: Pick<KubeletMetrics, 'managedVolumes'>,
  { desired, actual }: ReturnType<PodMetricsDeps['volumes']>,
): void {
  metrics.managedVolumes.reset();
  for (const [state, plugins] of [
    ['desired_state_of_world', desired],
    ['actual_state_of_world', actual],
  ] as const)
    for (const plugin_name of plugins) metrics.managedVolumes.inc({ plugin_name, state });
}

export function createPodMetrics(deps: PodMetricsDeps): PodMetrics {
  const { clock, metrics, observer } = deps;
  let due = false;
  let relistedMs: number | undefined;

  const count = (): void => {
    due = false;
    let sandboxes = 0;
    const states = { created: 0, running: 0, exited: 0, unknown: 0 };
    for (const uid of observer.uids()) {
      const observed = observer.last(uid);
      if (observed.sandboxes.some(({ state }) => state === 'ready')) sandboxes++;
      for (const { state } of observed.containers) states[state]++;
    }
    metrics.runningPods.set(sandboxes);
    for (const [state, number] of Object.entries(states))
      metrics.runningContainers.set({ container_state: state }, number);
    const desired = deps.desired();
    const pods = deps.pods();
    const active = pods.filter(({ status }) => !isEnded(status));
    for (const [label, wanted] of [
      ['true', true],
      ['', false],
    ] as const) {
      metrics.desiredPods.set(
        { static: label },
        desired.filter((pod) => !isMirrorPod(pod) && isStaticPod(pod) === wanted).length,
      );
      metrics.activePods.set({ static: label }, active.filter((pod) => isStaticPod(pod) === wanted).length);
    }
    metrics.mirrorPods.set(desired.filter(isMirrorPod).length);
    metrics.managedEphemeralContainers.set(
      pods.reduce((sum, { spec }) => sum + (spec.ephemeralContainers?.length ?? 0), 0),
    );
    const conditions = pods.flatMap(({ status }) => status?.conditions ?? []);
    for (const reason of ['Deferred', 'Infeasible'])
      metrics.pendingResizes.set(
        { reason: reason.toLowerCase() },
        conditions.filter((each) => each.type === 'PodResizePending' && each.reason === reason).length,
      );
    metrics.inProgressResizes.set(conditions.filter(({ type }) => type === 'PodResizeInProgress').length);
    countLifecycles(metrics, deps.lifecycles());
    countVolumes(metrics, deps.volumes());
  };

  const changed = (): void => {
    if (due) return;
    due = true;
    clock.setTimer(1_000, count);
  };

  const ran = (pod: Pod): void => {
    const uid = pod.metadata.uid ?? '';
    const nowMs = clock.now();
    const seenMs = deps.seenAtMs(uid);
    if (seenMs !== undefined) metrics.podStart.observe((nowMs - seenMs) / 1000);
    const createdMs = Date.parse(pod.metadata.creationTimestamp ?? '');
    if (Number.isNaN(createdMs) || isStaticPod(pod)) return;
    const totalMs = Math.max(0, nowMs - createdMs);
    metrics.podStartTotal.observe(totalMs / 1000);
    if (!pod.spec.initContainers?.length)
      metrics.podStartSli.observe(Math.max(0, totalMs - deps.pulledForMs(uid)) / 1000);
  };

  const imageVolumes = (pod: Pod, name: string, failed: boolean): void => {
    const images = new Set(pod.spec.volumes?.flatMap((volume) => (volume.image ? [volume.name] : [])));
    if (images.size === 0) return;
    const { initContainers = [], containers, ephemeralContainers = [] } = pod.spec;
    const container = [...initContainers, ...containers, ...ephemeralContainers].find((each) => each.name === name);
    const mounted = (container?.volumeMounts ?? []).filter((mount) => images.has(mount.name));
    metrics.imageVolumesRequested.inc(new Set(mounted.map((mount) => mount.name)).size);
    (failed ? metrics.imageVolumesFailed : metrics.imageVolumesMounted).inc(mounted.length);
  };

  return {
    changed,
    status(pod, status, before) {
      const fresh = containersOf(status).every(({ restartCount }) => restartCount === 0);
      if (fresh && status.phase === 'Running' && before?.phase === 'Pending') ran(pod);
      const known = new Set(containersOf(before).flatMap(({ state }) => state?.terminated?.containerID ?? []));
      for (const { name, state } of before === undefined ? [] : containersOf(status)) {
        const { terminated } = state ?? {};
        if (!terminated?.containerID || known.has(terminated.containerID)) continue;
        metrics.terminatedContainers.inc({
          container_type: containerType(pod, name),
          exit_code: String(terminated.exitCode),
          reason: terminated.reason ?? '',
        });
      }
      changed();
    },
    started(pod, container) {
      metrics.startedContainers.inc({ container_type: containerType(pod, container) });
      imageVolumes(pod, container, false);
    },
    startFailed(pod, container, reason, message) {
      metrics.startedContainersErrors.inc({ container_type: containerType(pod, container), code: reason });
      // CRI's own word for it; a container that fails for something else had its volumes, or did not come to them.
      if (reason === 'CreateContainerError' && message.startsWith('ImageVolumeMountFailed'))
        imageVolumes(pod, container, true);
    },
    sandbox(pod, what) {
      if (pod.spec.hostUsers !== false) return;
      (what === 'begun' ? metrics.startedUserNamespacedPods : metrics.startedUserNamespacedPodsErrors).inc();
    },
    relisted(error, tookMs) {
      if (error !== undefined) return;
      metrics.relist.observe(tookMs / 1000);
      const nowMs = clock.monotonicMs();
      if (relistedMs !== undefined) metrics.relistInterval.observe((nowMs - relistedMs) / 1000);
      relistedMs = nowMs;
      metrics.relistLastSeen.set(clock.now() / 1000);
      changed();
    },
  };
}
