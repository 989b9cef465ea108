// The pod's status: what the API, `stevedore why` and everyone else is told. Pure; computed after each plan from the same facts.
import type { Condition } from '../../kube/types/meta.ts';
import type { Container, ContainerStatus, Pod, PodPhase, PodStatus } from '../../kube/types/pod.ts';
import { complete, containersReady, initialized, isNodeCondition, isSharedCondition, ready } from './conditions.ts';
import { containerStatus, type ContainerStatusInput } from './container-status.ts';
import { isHostNetwork, judgeSandbox } from './observed.ts';
import { isStaticPod } from '../resources/critical.ts';
import { computePhase } from './phase.ts';

export interface StatusInput extends ContainerStatusInput {
  /** The node's addresses, the primary first. */
  readonly hostIps: readonly string[];
  readonly qosClass: NonNullable<PodStatus['qosClass']>;
  /** Further conditions of the node's: resize and the like. */
  readonly conditions?: readonly Condition[];
  readonly podExtras?: Partial<PodStatus>;
}

const seconds = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`;

export function computeStatus(input: StatusInput): PodStatus {
  const { pod, memory, facts } = input;
  const before = memory.status ?? pod.status ?? {};
  const kinds = [
    ['init', pod.spec.initContainers],
    ['regular', pod.spec.containers],
    ['ephemeral', pod.spec.ephemeralContainers],
  ] as const;
  const [init = [], regular = [], ephemeral = []] = kinds.map(([kind, containers]) =>
    (containers ?? []).map((container: Container) => containerStatus(input, container, kind)),
  );
  const statuses = new Map<string, ContainerStatus>([...init, ...regular].map((status) => [status.name, status]));
  const begun = regular.some(
    (status) => status.state?.running || status.state?.terminated || status.lastState?.terminated,
  );
  const rejected = memory.admission?.admitted === false;
  const { phase, reason, message } = phaseOf(input, statuses, begun, before);
  const now = seconds(facts.nowMs);
  const shownBefore = before.conditions ?? [];
  const others = (pod.status?.conditions ?? []).filter((condition) => !isNodeCondition(condition.type));
  const usable =
    judgeSandbox(pod, input.observed).kind === 'usable' &&
    (memory.volumesUp || begun || init.some((each) => each.containerID));
  const initBefore = shownBefore.some((each) => each.type === 'Initialized' && each.status === 'True');
  const own = [
    complete(
      'PodReadyToStartContainers',
      { status: usable && !input.terminal ? 'True' : 'False' },
      shownBefore,
      pod,
      now,
    ),
    complete('Initialized', initialized(pod, statuses, phase, initBefore), shownBefore, pod, now),
    complete('Ready', ready(pod, statuses, phase, others), shownBefore, pod, now),
    complete('ContainersReady', containersReady(pod, statuses, phase), shownBefore, pod, now),
    complete('PodScheduled', { status: 'True' }, shownBefore, pod, now),
    ...(mayRestartAll(pod)
      ? [complete('AllContainersRestarting', restartingAll(memory, phase), shownBefore, pod, now)]
      : []),
  ];
  const disruption = memory.termination?.disruption
    ? [complete('DisruptionTarget', { status: 'True', ...memory.termination.disruption }, shownBefore, pod, now)]
    : (pod.status?.conditions ?? []).filter(({ type }) => isSharedCondition(type));
  const addresses = addressesOf(input, before);
  return {
    ...(pod.metadata.generation === undefined ? {} : { observedGeneration: pod.metadata.generation }),
    phase,
    ...(reason ? { reason } : {}),
    ...(message ? { message } : {}),
    conditions: rejected
      ? [...others, ...disruption, ...shownBefore.filter((each) => each.type === 'PodScheduled')]
      : [...others, ...disruption, ...own, ...(input.conditions ?? []).map((each) => timed(each, shownBefore, now))],
    ...addresses,
    ...(memory.startTimeMs === undefined ? {} : { startTime: pod.status?.startTime ?? seconds(memory.startTimeMs) }),
    ...(rejected
      ? {}
      : {
          ...(init.length > 0 ? { initContainerStatuses: init } : {}),
          containerStatuses: regular.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
          ...(ephemeral.length > 0 ? { ephemeralContainerStatuses: ephemeral } : {}),
        }),
    qosClass: pod.status?.qosClass ?? input.qosClass,
    ...(rejected ? {} : input.podExtras),
  };
}

/** A condition that brings its own generation. */
function timed(condition: Condition, before: readonly Condition[], now: string): Condition {
  const last = before.find((each) => each.type === condition.type && each.status === condition.status);
  return { ...condition, lastProbeTime: null, lastTransitionTime: last?.lastTransitionTime ?? now };
}

const mayRestartAll = ({ spec }: Pod): boolean =>
  [...spec.containers, ...(spec.initContainers ?? [])].some((container) =>
    container.restartPolicyRules?.some(({ action }) => action === 'RestartAllContainers'),
  );

function restartingAll(memory: StatusInput['memory'], phase: PodPhase) {
  if (phase === 'Succeeded') return { status: 'False', reason: 'PodCompleted' } as const;
  if (phase === 'Failed') return { status: 'False', reason: 'PodFailed' } as const;
  if (!memory.restartAll) return { status: 'False' } as const;
  return {
    status: 'True',
    reason: 'RestartAllContainersStarted',
    message: 'container exited with restart policy rule',
  } as const;
}

function phaseOf(
  input: StatusInput,
  statuses: ReadonlyMap<string, ContainerStatus>,
  begun: boolean,
  before: PodStatus,
): { phase: PodPhase; reason?: string | undefined; message?: string | undefined } {
  const { pod, memory, terminal } = input;
  const shown = pod.status?.phase;
  // Terminal phases never change.
  if (shown === 'Succeeded' || shown === 'Failed')
    return { phase: shown, reason: pod.status?.reason, message: pod.status?.message };
  const override = memory.termination?.status;
  // The reason goes with the phase, which is terminal only once nothing runs any more.
  if (override && (terminal || memory.termination?.cause === 'rejected')) {
    if (succeededAnyway(input, statuses, begun)) return { phase: 'Succeeded' };
    return { phase: 'Failed', ...override };
  }
  // What is killed to begin anew is no end.
  const anew = memory.restartAll || runsAgain(input);
  const phase = anew && before.phase && !terminal ? before.phase : computePhaseOf(pod, statuses, terminal, begun);
  const kept = phase === before.phase ? { reason: before.reason, message: before.message } : {};
  return { phase, ...kept };
}

/**
 * Whose containers all heed an eviction, a preemption or the node's shutdown with exit code 0 has succeeded, and carries no reason; of the
 * disruption its condition tells. Not so a static pod, whose regular end says nothing, nor one past its deadline. As the kubelet since 1.27.
 */
const succeededAnyway = (
  { pod, memory, terminal }: StatusInput,
  statuses: ReadonlyMap<string, ContainerStatus>,
  begun: boolean,
): boolean =>
  memory.termination?.cause === 'evicted' &&
  computePhaseOf(pod, statuses, terminal && !isStaticPod(pod), begun) === 'Succeeded';

/** A container that we ended runs again whatever its exit code. */
const runsAgain = ({ memory, observed }: StatusInput): boolean =>
  [...memory.containers.values()].some(
    ({ kill }) =>
      kill !== undefined &&
      (kill.restartAnyway || kill.again) &&
      observed.containers.some(({ id, state }) => id === kill.id && state === 'exited'),
  );

function computePhaseOf(
  pod: Pod,
  statuses: ReadonlyMap<string, ContainerStatus>,
  terminal: boolean,
  begun: boolean,
): PodPhase {
  const phase = computePhase(pod, statuses, terminal, begun);
  // A pod that has ended before anything ran has failed.
  return terminal && phase !== 'Succeeded' ? 'Failed' : phase;
}

/** The pod's addresses and its host's. An address once shown stays: pods keep it until they are gone. */
function addressesOf(input: StatusInput, before: PodStatus): Partial<PodStatus> {
  const { pod, observed, hostIps } = input;
  const sandbox = observed.sandboxes.find((each) => each.state === 'ready') ?? observed.sandboxes[0];
  const ips = isHostNetwork(pod) ? hostIps : (sandbox?.ips ?? []);
  const podIps =
    ips.length > 0 && !(isHostNetwork(pod) && !sandbox && !before.podIP)
      ? ips
      : (before.podIPs ?? []).map(({ ip }) => ip);
  const [hostIp] = hostIps;
  const [podIp] = podIps;
  return {
    ...(hostIp ? { hostIP: hostIp, hostIPs: hostIps.map((ip) => ({ ip })) } : {}),
    ...(podIp ? { podIP: podIp, podIPs: podIps.map((ip) => ({ ip })) } : {}),
  };
}
