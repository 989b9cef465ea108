// The Node as it is first registered, and which labels a node may give itself. Pure.
import type { Node, NodeStatus, Taint } from '../../kube/types/core.ts';

export interface NodeIdentity {
  readonly nodeName: string;
  /** The label kubernetes.io/hostname. */
  readonly hostname: string;
  /** Go's name of the architecture. */
  readonly architecture: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly taints: readonly Taint[];
  readonly providerId: string;
  readonly externalCloudProvider: boolean;
  /** Labels of the instance's zone, region and type, where its provider told. */
  readonly instanceLabels: Readonly<Record<string, string>>;
}

export const controllerAttachAnnotation = 'volumes.kubernetes.io/controller-managed-attach-detach';
export const providedIpAnnotation = 'alpha.kubernetes.io/provided-node-ip';
const uninitialized: Taint = {
  key: 'node.cloudprovider.kubernetes.io/uninitialized',
  value: 'true',
  effect: 'NoSchedule',
};

// What NodeRestriction lets a node say of itself within Kubernetes' own prefixes.
const ownLabels = new Set([
  'kubernetes.io/hostname',
  'kubernetes.io/os',
  'kubernetes.io/arch',
  'beta.kubernetes.io/os',
  'beta.kubernetes.io/arch',
  'beta.kubernetes.io/instance-type',
  'node.kubernetes.io/instance-type',
  'failure-domain.beta.kubernetes.io/region',
  'failure-domain.beta.kubernetes.io/zone',
  'topology.kubernetes.io/region',
  'topology.kubernetes.io/zone',
]);

/** Labels that the API server would not let a node give itself. */
export const refusedLabels = (labels: Readonly<Record<string, string>>): string[] =>
  Object.keys(labels).filter((label) => {
    const prefix = label.includes('/') ? label.slice(0, label.indexOf('/')) : '';
    const within = (domain: string): boolean => prefix === domain || prefix.endsWith(`.${domain}`);
    if (!within('kubernetes.io') && !within('k8s.io')) return false;
    return !ownLabels.has(label) && !within('kubelet.kubernetes.io') && !within('node.kubernetes.io');
  });

export function defaultLabels(identity: NodeIdentity): Record<string, string> {
  return {
    'beta.kubernetes.io/arch': identity.architecture,
    'beta.kubernetes.io/os': 'linux',
    'kubernetes.io/arch': identity.architecture,
    'kubernetes.io/hostname': identity.hostname,
    'kubernetes.io/os': 'linux',
    ...identity.instanceLabels,
  };
}

export function initialNode(identity: NodeIdentity, status: NodeStatus, annotations: Record<string, string>): Node {
  const taints = [...identity.taints, ...(identity.externalCloudProvider ? [uninitialized] : [])];
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: identity.nodeName,
      labels: { ...defaultLabels(identity), ...identity.labels },
      annotations: { [controllerAttachAnnotation]: 'true', ...annotations },
    },
    spec: {
      ...(taints.length > 0 ? { taints } : {}),
      ...(identity.providerId === '' ? {} : { providerID: identity.providerId }),
    },
    status,
  };
}

/** What is to be put right on a Node that was there before; undefined where nothing is. */
export function adoptMetadata(
  existing: Node,
  wanted: Node,
  identity: NodeIdentity,
): { labels?: Record<string, string>; annotations?: Record<string, string | null> } | undefined {
  const differing = (want: Readonly<Record<string, string>>, have: Readonly<Record<string, string>> = {}) =>
    Object.fromEntries(Object.entries(want).filter(([key, value]) => have[key] !== value));
  const labels = differing(
    Object.fromEntries(
      Object.keys(defaultLabels(identity)).map((label) => [label, wanted.metadata.labels?.[label] ?? '']),
    ),
    existing.metadata.labels,
  );
  const annotations: Record<string, string | null> = differing(
    wanted.metadata.annotations ?? {},
    existing.metadata.annotations,
  );
  if (
    existing.metadata.annotations?.[providedIpAnnotation] !== undefined &&
    wanted.metadata.annotations?.[providedIpAnnotation] === undefined
  )
    annotations[providedIpAnnotation] = null;
  if (Object.keys(labels).length === 0 && Object.keys(annotations).length === 0) return undefined;
  return {
    ...(Object.keys(labels).length > 0 ? { labels } : {}),
    ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
  };
}

/** What a running node puts right of its labels, as the kubelet does: somebody took away, or changed, what it runs on. */
export function platformLabels(existing: Node, { architecture }: NodeIdentity): Record<string, string> {
  const have = existing.metadata.labels ?? {};
  const wanted = { 'kubernetes.io/arch': architecture, 'kubernetes.io/os': 'linux' };
  return Object.fromEntries(Object.entries(wanted).filter(([label, value]) => have[label] !== value));
}
