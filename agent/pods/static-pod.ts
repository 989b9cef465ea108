// A pod from a manifest that no API server has seen: parsed, defaulted and given the identity that the kubelet gives it.
import { createHash } from 'node:crypto';
import { parse } from 'yaml';
import { defaultPod } from '../../kube/pod-defaults.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { Volume } from '../../kube/types/volume.ts';
import { configHashAnnotation, configSeenAnnotation, configSourceAnnotation } from '../resources/critical.ts';

export interface StaticOrigin {
  readonly kind: 'file' | 'http';
  /** The file's path, or the URL. */
  readonly from: string;
  readonly nodeName: string;
  readonly seenAtMs: number;
}

/** A manifest that is none, with words for the operator. */
export class ManifestError extends Error {
  override name = 'ManifestError';
}

// Go's encoding of maps is sorted, so that the same manifest has the same hash however it is written down.
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, each]) => [key, sorted(each)]),
  );
}

const apiVolumes: Readonly<Record<string, string>> = {
  configMap: 'configmaps (via configmap volumes)',
  secret: 'secrets (via secret volumes)',
  csi: 'csidrivers (via CSI volumes)',
  persistentVolumeClaim: 'persistentvolumeclaims',
  ephemeral: 'persistentvolumeclaims (via ephemeral volumes)',
};
const apiProjections: Readonly<Record<string, string>> = {
  configMap: 'configmaps (via projected volumes)',
  secret: 'secrets (via projected volumes)',
  serviceAccountToken: 'serviceaccounts (via projected volumes)',
  clusterTrustBundle: 'clustertrustbundles',
  podCertificate: 'podcertificates',
};

function volumeReference(volume: Volume): string | undefined {
  const kind = Object.keys(volume).find((key) => key in apiVolumes);
  if (kind) return apiVolumes[kind];
  for (const source of volume.projected?.sources ?? []) {
    const projected = Object.keys(source).find((key) => key in apiProjections);
    if (projected) return apiProjections[projected];
  }
  return undefined;
}

/** What of the API the pod refers to, as the kubelet words it: a static pod may refer to none of it. */
export function apiReference({ spec }: Pod): string | undefined {
  if (spec.serviceAccountName) return 'serviceaccounts';
  const containers = [...spec.containers, ...(spec.initContainers ?? [])];
  const env = containers.flatMap((container) => container.env ?? []);
  const envFrom = containers.flatMap((container) => container.envFrom ?? []);
  if (
    (spec.imagePullSecrets?.length ?? 0) > 0 ||
    env.some((each) => each.valueFrom?.secretKeyRef) ||
    envFrom.some((each) => each.secretRef)
  )
    return 'secrets';
  if (env.some((each) => each.valueFrom?.configMapKeyRef) || envFrom.some((each) => each.configMapRef))
    return 'configmaps';
  if ((spec.resourceClaims?.length ?? 0) > 0) return 'resourceclaims';
  for (const volume of spec.volumes ?? []) {
    const reference = volumeReference(volume);
    if (reference) return reference;
  }
  return undefined;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  value !== null && typeof value === 'object' && !Array.isArray(value);

const dnsName = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
const dnsLabel = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;

function check(document: unknown): Pod {
  if (!isObject(document)) throw new ManifestError('it holds no object');
  if (document.kind !== 'Pod' || document.apiVersion !== 'v1')
    throw new ManifestError(`it is ${String(document.apiVersion)} ${String(document.kind)}, not v1 Pod`);
  const { metadata, spec } = document;
  if (!isObject(metadata) || typeof metadata.name !== 'string' || !dnsName.test(metadata.name))
    throw new ManifestError('metadata.name is missing or not a valid name');
  if (
    metadata.namespace !== undefined &&
    (typeof metadata.namespace !== 'string' || !dnsLabel.test(metadata.namespace))
  )
    throw new ManifestError('metadata.namespace is not a valid name');
  if (!isObject(spec) || !Array.isArray(spec.containers) || spec.containers.length === 0)
    throw new ManifestError('spec.containers is missing or empty');
  const names = new Set<string>();
  for (const list of [spec.initContainers, spec.containers])
    for (const container of (Array.isArray(list) ? list : []) as unknown[]) {
      if (!isObject(container) || typeof container.name !== 'string' || !dnsLabel.test(container.name))
        throw new ManifestError('a container has no valid name');
      if (names.has(container.name)) throw new ManifestError(`two containers are named ${container.name}`);
      if (typeof container.image !== 'string' || container.image === '')
        throw new ManifestError(`container ${container.name} has no image`);
      names.add(container.name);
    }
  if ((spec.ephemeralContainers as unknown[] | undefined)?.length)
    throw new ManifestError('a static pod has no ephemeral containers');
  return document as unknown as Pod;
}

/** Gives a manifest its identity. Throws a ManifestError. */
export function staticPod(document: unknown, origin: StaticOrigin): Pod {
  const pod = structuredClone(check(document));
  const { metadata, spec } = pod;
  delete (pod as { status?: unknown }).status;
  const hash = createHash('md5').update(JSON.stringify(sorted(pod)));
  hash.update(origin.kind === 'file' ? `host:${origin.nodeName}file:${origin.from}` : `url:${origin.from}`);
  metadata.uid ??= hash.digest('hex');
  metadata.name = `${metadata.name}-${origin.nodeName.toLowerCase()}`;
  metadata.namespace ??= 'default';
  metadata.creationTimestamp ??= new Date(origin.seenAtMs).toISOString().replace(/\.\d+Z$/, 'Z');
  spec.nodeName = origin.nodeName;
  metadata.annotations = {
    ...metadata.annotations,
    [configHashAnnotation]: metadata.uid,
    [configSourceAnnotation]: origin.kind,
    [configSeenAnnotation]: new Date(origin.seenAtMs).toISOString(),
  };
  try {
    defaultPod(pod);
  } catch (error) {
    throw new ManifestError(error instanceof Error ? error.message : String(error), { cause: error });
  }
  // Nothing that befalls the node drives a pod away that belongs to it.
  if (origin.kind === 'file') {
    const others = (spec.tolerations ?? []).filter(
      ({ operator, effect, key }) => !(operator === 'Exists' && effect === 'NoExecute' && !key),
    );
    spec.tolerations = [...others, { operator: 'Exists', effect: 'NoExecute' }];
  }
  const reference = apiReference(pod);
  if (reference) throw new ManifestError(`static pods may not reference ${reference}`);
  pod.status = { phase: 'Pending' };
  return pod;
}

/** A file's or answer's text, JSON or YAML. `list`: a v1 PodList will do too. Throws a ManifestError. */
export function parseManifest(text: string, origin: StaticOrigin, list = false): Pod[] {
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: 100 });
  } catch (error) {
    throw new ManifestError(`it is neither JSON nor YAML: ${(error as Error).message.split('\n')[0]}`, {
      cause: error,
    });
  }
  if (list && isObject(document) && /^(Pod)?List$/.test(String(document.kind)))
    return ((document.items as unknown[] | undefined) ?? []).map((item) =>
      staticPod(isObject(item) ? { apiVersion: 'v1', kind: 'Pod', ...item } : item, origin),
    );
  return [staticPod(document, origin)];
}
