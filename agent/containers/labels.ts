// Labels and annotations of sandboxes and containers: the kubelet's own, which crictl, cAdvisor and log agents read, and from which the
// agent knows its pods again after a restart.
import type { Container, ContainerPort, LifecycleHandler, Pod } from '../../kube/types/pod.ts';
import { configSeenAnnotation, configSourceAnnotation } from '../resources/critical.ts';
import { containerHash } from './container-hash.ts';

export const podNameLabel = 'io.kubernetes.pod.name';
export const podNamespaceLabel = 'io.kubernetes.pod.namespace';
export const podUidLabel = 'io.kubernetes.pod.uid';
export const containerNameLabel = 'io.kubernetes.container.name';

const hashAnnotation = 'io.kubernetes.container.hash';
const restartCountAnnotation = 'io.kubernetes.container.restartCount';
const messagePathAnnotation = 'io.kubernetes.container.terminationMessagePath';
const messagePolicyAnnotation = 'io.kubernetes.container.terminationMessagePolicy';
const preStopAnnotation = 'io.kubernetes.container.preStopHandler';
const portsAnnotation = 'io.kubernetes.container.ports';
const deletionGraceAnnotation = 'io.kubernetes.pod.deletionGracePeriod';
const terminationGraceAnnotation = 'io.kubernetes.pod.terminationGracePeriod';

type Strings = Record<string, string>;

const identity = (pod: Pod): Strings => ({
  [podNameLabel]: pod.metadata.name,
  [podNamespaceLabel]: pod.metadata.namespace ?? 'default',
  [podUidLabel]: pod.metadata.uid ?? '',
});

export const sandboxLabels = (pod: Pod): Strings => ({ ...pod.metadata.labels, ...identity(pod) });

/** The pod's annotations, and where and when (milliseconds since the epoch) the node got it from. */
export const sandboxAnnotations = (pod: Pod, seen: { source: string; atMs: number }): Strings => ({
  [configSeenAnnotation]: new Date(seen.atMs).toISOString(),
  [configSourceAnnotation]: seen.source,
  ...pod.metadata.annotations,
});

export const containerLabels = (pod: Pod, container: Container): Strings => ({
  ...identity(pod),
  [containerNameLabel]: container.name,
});

/** `more` are those of device plugins; the kubelet's own win. */
export function containerAnnotations(
  pod: Pod,
  container: Container,
  restartCount: number,
  more: Readonly<Strings> = {},
): Strings {
  const deletionGrace = pod.metadata.deletionGracePeriodSeconds;
  const terminationGrace = pod.spec.terminationGracePeriodSeconds;
  const preStop = container.lifecycle?.preStop;
  return {
    ...more,
    [hashAnnotation]: containerHash(container),
    [restartCountAnnotation]: String(restartCount),
    [messagePathAnnotation]: container.terminationMessagePath ?? '',
    [messagePolicyAnnotation]: container.terminationMessagePolicy ?? '',
    ...(deletionGrace === undefined ? {} : { [deletionGraceAnnotation]: String(deletionGrace) }),
    ...(terminationGrace === undefined ? {} : { [terminationGraceAnnotation]: String(terminationGrace) }),
    ...(preStop === undefined ? {} : { [preStopAnnotation]: JSON.stringify(preStop) }),
    ...(container.ports?.length ? { [portsAnnotation]: JSON.stringify(container.ports) } : {}),
  };
}

/** What a container tells of itself. */
export interface ContainerIdentity {
  readonly podName: string;
  readonly podNamespace: string;
  readonly podUid: string;
  readonly containerName: string;
  /** As containerHash() gives it; empty where the container tells none. */
  readonly hash: string;
  readonly restartCount: number;
  readonly terminationMessagePath: string;
  readonly terminationMessagePolicy: 'File' | 'FallbackToLogsOnError';
  readonly deletionGracePeriodSeconds: number | undefined;
  readonly terminationGracePeriodSeconds: number | undefined;
  readonly preStop: LifecycleHandler | undefined;
  readonly ports: readonly ContainerPort[];
}

const whole = (text: string | undefined): number | undefined =>
  text !== undefined && /^-?\d+$/.test(text) ? Number(text) : undefined;

function json<T>(text: string | undefined): T | undefined {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as T;
  } catch {
    return undefined;
  }
}

/** Reads a container's labels and annotations back; undefined where it is none of a pod's (others use the runtime too). */
export function containerIdentity(of: {
  readonly labels: Readonly<Strings>;
  readonly annotations: Readonly<Strings>;
}): ContainerIdentity | undefined {
  const { labels, annotations } = of;
  const podUid = labels[podUidLabel];
  const containerName = labels[containerNameLabel];
  if (!podUid || !containerName) return undefined;
  return {
    podUid,
    containerName,
    podName: labels[podNameLabel] ?? '',
    podNamespace: labels[podNamespaceLabel] ?? '',
    hash: annotations[hashAnnotation] ?? '',
    restartCount: whole(annotations[restartCountAnnotation]) ?? 0,
    terminationMessagePath: annotations[messagePathAnnotation] ?? '',
    terminationMessagePolicy:
      annotations[messagePolicyAnnotation] === 'FallbackToLogsOnError' ? 'FallbackToLogsOnError' : 'File',
    deletionGracePeriodSeconds: whole(annotations[deletionGraceAnnotation]),
    terminationGracePeriodSeconds: whole(annotations[terminationGraceAnnotation]),
    preStop: json<LifecycleHandler>(annotations[preStopAnnotation]),
    ports: json<ContainerPort[]>(annotations[portsAnnotation]) ?? [],
  };
}
