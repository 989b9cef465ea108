// Docker keeps labels only, so everything that the port says of a sandbox or container is kept in one label of ours, and read from there:
// names are never parsed. The pod's own labels stand beside it as they are, for others to read and for Docker to filter by. Pure.
import type * as t from '../types.ts';

export const kindLabel = 'io.stevedore.kind';
export const recordLabel = 'io.stevedore.record';
export const podUidLabel = 'io.stevedore.pod.uid';
export const sandboxIdLabel = 'io.stevedore.sandbox.id';
/** Kubernetes' own, which other tools look for. */
const kubernetesPodUid = 'io.kubernetes.pod.uid';
/** Prefix under which cri-dockerd shows annotations, for tools that know it. */
const annotationPrefix = 'annotation.';

type NetworkKind = 'cni' | 'bridge' | 'host';

export interface SandboxRecord {
  readonly metadata: t.SandboxMetadata;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly createdAtMs: number;
  readonly namespaces: t.NamespaceOptions;
  readonly runtimeHandler: string;
  readonly logDirectory: string;
  readonly network: NetworkKind;
}

export interface ContainerRecord {
  readonly metadata: t.ContainerMetadata;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly createdAtMs: number;
  readonly image: string;
  readonly imageRef: string;
  readonly mounts: readonly t.Mount[];
  /** Absolute; empty where nothing is to be written. */
  readonly logPath: string;
  readonly tty: boolean;
  readonly unified?: Readonly<Record<string, string>>;
}

function plainLabels(labels: Readonly<Record<string, string>>, annotations: Readonly<Record<string, string>>) {
  const shown = Object.entries(annotations).map(([key, value]) => [`${annotationPrefix}${key}`, value] as const);
  return { ...Object.fromEntries(shown), ...labels };
}

export const sandboxLabels = (record: SandboxRecord): Record<string, string> => ({
  ...plainLabels(record.labels, record.annotations),
  [kindLabel]: 'sandbox',
  [podUidLabel]: record.labels[kubernetesPodUid] ?? record.metadata.uid,
  [recordLabel]: JSON.stringify(record),
});

export const containerLabels = (record: ContainerRecord, sandbox: string, podUid: string): Record<string, string> => ({
  ...plainLabels(record.labels, record.annotations),
  [kindLabel]: 'container',
  [podUidLabel]: record.labels[kubernetesPodUid] ?? podUid,
  [sandboxIdLabel]: sandbox,
  [recordLabel]: JSON.stringify(record),
});

type Labels = Readonly<Record<string, string>> | null | undefined;

function parse<T>(labels: Labels, kind: 'sandbox' | 'container'): T | undefined {
  if (labels?.[kindLabel] !== kind) return undefined;
  try {
    const value: unknown = JSON.parse(labels[recordLabel] ?? '');
    const isRecord = typeof value === 'object' && value !== null && 'metadata' in value && 'labels' in value;
    return isRecord ? (value as T) : undefined;
  } catch {
    return undefined;
  }
}

/** Undefined for what is not a sandbox of ours. */
export const sandboxRecord = (labels: Labels): SandboxRecord | undefined => parse<SandboxRecord>(labels, 'sandbox');
export const containerRecord = (labels: Labels): ContainerRecord | undefined =>
  parse<ContainerRecord>(labels, 'container');

// The shape that dockershim gave its names: people and tools know it. Docker allows [a-zA-Z0-9][a-zA-Z0-9_.-]*.
export const sandboxName = ({ name, namespace, uid, attempt }: t.SandboxMetadata): string =>
  `k8s_POD_${name}_${namespace}_${uid}_${attempt}`;

export const containerName = (container: t.ContainerMetadata, sandbox: t.SandboxMetadata): string =>
  `k8s_${container.name}_${sandbox.name}_${sandbox.namespace}_${sandbox.uid}_${container.attempt}`;
