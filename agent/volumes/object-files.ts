// configMap, secret, downwardAPI and projected: volumes whose files are made from API objects and from the pod, and made anew when those change.

import { join } from 'node:path';
import type { ObjectName } from '../../kube/client.ts';
import { type Resource, resources } from '../../kube/resources.ts';
import type { KubeObject } from '../../kube/types/meta.ts';
import type { ProjectedSource, Volume } from '../../kube/types/volume.ts';
import { type PayloadFile, writePayload } from './atomic-writer.ts';
import { isMounted, makeVolumeFolder, memorySize } from './empty-dir.ts';
import { makeFolders } from './make-folders.ts';
import { giveToGroup } from './ownership.ts';
import { type PluginName, plugins } from './paths.ts';
import {
  configMapPayload,
  downwardPayload,
  nestedMountPoints,
  PayloadError,
  secretPayload,
  sharedRunAsUser,
} from './payload.ts';
import { trustAnchors } from './trust-anchors.ts';
import { type MountedVolume, NotYetError, type SetUpRequest, type VolumeHost } from './volume-driver.ts';

type Files = Map<string, PayloadFile>;
type FilesSource = (host: VolumeHost, request: SetUpRequest) => Promise<{ files: Files; refreshAtMs?: number }>;

const defaultFileMode = 0o644;

/** Whether the volume's files are made from this object, so that a change of it must reach them. */
export function usesObject(volume: Volume, resource: Resource, name: string): boolean {
  const { plural } = resource;
  const projects = (source: ProjectedSource): boolean =>
    (plural === 'configmaps' && source.configMap?.name === name) ||
    (plural === 'secrets' && source.secret?.name === name) ||
    (plural === 'clustertrustbundles' && source.clusterTrustBundle?.name === name);
  return (
    (plural === 'configmaps' && volume.configMap?.name === name) ||
    (plural === 'secrets' && volume.secret?.secretName === name) ||
    (volume.projected?.sources ?? []).some(projects)
  );
}

/** True for volumes whose files this file makes. */
export const hasObjectFiles = (volume: Volume): boolean =>
  Boolean(volume.configMap ?? volume.secret ?? volume.downwardAPI ?? volume.projected);

/** Whether the files show something of the pod itself that can change. */
export const showsPod = (volume: Volume): boolean =>
  volume.downwardAPI !== undefined ||
  (volume.projected?.sources ?? []).some((source) => source.downwardAPI !== undefined);

async function held<T extends KubeObject>(
  host: VolumeHost,
  request: SetUpRequest,
  resource: Resource<T>,
  name: string,
  optional: boolean,
): Promise<T | undefined> {
  const at: ObjectName = { namespace: request.pod.metadata.namespace ?? 'default', name };
  let object: T | undefined;
  try {
    object = await host.objects.get(resource, at, request.uid, request.signal);
  } catch (error) {
    if (request.signal.aborted) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new NotYetError(`failed to sync ${resource.kind.toLowerCase()} cache: ${why}`, 'FailedMount', {
      cause: error,
      polled: true,
    });
  }
  if (object === undefined && !optional) throw new NotYetError(`${resource.kind.toLowerCase()} "${name}" not found`);
  return object;
}

const configMapFiles: FilesSource = async (host, request) => {
  const { name = '', items, defaultMode = defaultFileMode, optional = false } = request.volume.configMap!;
  const object = await held(host, request, resources.configMaps, name, optional);
  return { files: configMapPayload(object, { items, defaultMode, optional }) };
};

const secretFiles: FilesSource = async (host, request) => {
  const { secretName = '', items, defaultMode = defaultFileMode, optional = false } = request.volume.secret!;
  const object = await held(host, request, resources.secrets, secretName, optional);
  return { files: secretPayload(object, { items, defaultMode, optional }) };
};

const downwardContext = (host: VolumeHost, request: SetUpRequest) => ({
  allocatable: host.node()?.status?.allocatable ?? {},
  hostIPs: request.pod.status?.hostIPs?.map((each) => each.ip) ?? [],
  podIPs: request.pod.status?.podIPs?.map((each) => each.ip) ?? [],
});

const downwardFiles: FilesSource = async (host, request) => {
  const { items = [], defaultMode = defaultFileMode } = request.volume.downwardAPI!;
  return { files: downwardPayload(items, request.pod, downwardContext(host, request), defaultMode) };
};

async function projectedSource(
  host: VolumeHost,
  request: SetUpRequest,
  source: ProjectedSource,
  index: number,
  defaultMode: number,
): Promise<{ files: Files; refreshAtMs?: number }> {
  const { pod, uid, signal } = request;
  const owner = sharedRunAsUser(pod);
  // Made readable by the group when the volume is given to it.
  const privateMode = owner !== undefined || pod.spec.securityContext?.fsGroup !== undefined ? 0o600 : defaultMode;
  if (source.secret) {
    const { name = '', items, optional = false } = source.secret;
    const object = await held(host, request, resources.secrets, name, optional);
    return { files: secretPayload(object, { items, defaultMode, optional }) };
  }
  if (source.configMap) {
    const { name = '', items, optional = false } = source.configMap;
    const object = await held(host, request, resources.configMaps, name, optional);
    return { files: configMapPayload(object, { items, defaultMode, optional }) };
  }
  if (source.downwardAPI)
    return {
      files: downwardPayload(source.downwardAPI.items ?? [], pod, downwardContext(host, request), defaultMode),
    };
  if (source.serviceAccountToken) {
    const { audience, expirationSeconds = 3600, path } = source.serviceAccountToken;
    const token = await host.tokens.get(
      {
        namespace: pod.metadata.namespace ?? 'default',
        serviceAccount: pod.spec.serviceAccountName || 'default',
        audiences: audience ? [audience] : [],
        expirationSeconds,
        pod: { name: pod.metadata.name, uid },
      },
      signal,
    );
    const file: PayloadFile = { data: Buffer.from(token.token, 'utf8'), mode: privateMode, uid: owner };
    return { files: new Map([[path, file]]), refreshAtMs: token.refreshAtMs };
  }
  if (source.clusterTrustBundle) {
    const anchors = await trustAnchors(host, request, source.clusterTrustBundle);
    const file: PayloadFile = { data: Buffer.from(anchors.pem, 'latin1'), mode: privateMode, uid: owner };
    return { files: new Map([[source.clusterTrustBundle.path, file]]), ...pickRefresh(anchors.refreshAtMs) };
  }
  if (source.podCertificate) {
    const { credentialBundlePath, keyPath, certificateChainPath } = source.podCertificate;
    const wish = { pod, uid, volume: request.volume.name, index, source: source.podCertificate };
    const { key, chain, refreshAtMs } = await host.certificates.get(wish, signal);
    const files: Files = new Map();
    const put = (path: string | undefined, text: string): void => {
      if (path) files.set(path, { data: Buffer.from(text, 'latin1'), mode: privateMode, uid: owner });
    };
    put(credentialBundlePath, key + chain);
    put(keyPath, key);
    put(certificateChainPath, chain);
    return { files, refreshAtMs };
  }
  const [kind = 'nothing'] = Object.keys(source);
  throw new PayloadError([`projected source ${kind} is not supported by this node`]);
}

const pickRefresh = (refreshAtMs: number | undefined): { refreshAtMs?: number } =>
  refreshAtMs === undefined ? {} : { refreshAtMs };

const projectedFiles: FilesSource = async (host, request) => {
  const { sources = [], defaultMode = defaultFileMode } = request.volume.projected!;
  // Side by side: a token needs a round trip, and so may each object.
  const results = await Promise.allSettled(
    sources.map((source, index) => projectedSource(host, request, source, index, defaultMode)),
  );
  request.signal.throwIfAborted();
  const failed = results.filter((result) => result.status === 'rejected').map((result) => result.reason as unknown);
  if (failed.length > 0) {
    const { message } = new PayloadError(
      failed.map((error) => (error instanceof Error ? error.message : String(error))),
    );
    const waits = failed.every((error) => error instanceof NotYetError);
    const polled = failed.some((error) => error instanceof NotYetError && error.polled);
    throw waits ? new NotYetError(message, 'FailedMount', { polled }) : new PayloadError([message]);
  }
  const files: Files = new Map();
  let refreshAtMs: number | undefined;
  for (const result of results) {
    if (result.status !== 'fulfilled') continue;
    for (const [path, file] of result.value.files) files.set(path, file);
    const due = result.value.refreshAtMs;
    if (due !== undefined) refreshAtMs = Math.min(due, refreshAtMs ?? due);
  }
  return { files, ...pickRefresh(refreshAtMs) };
};

const kinds: readonly { key: keyof Volume; plugin: PluginName; inMemory: boolean; source: FilesSource }[] = [
  { key: 'configMap', plugin: plugins.configMap, inMemory: false, source: configMapFiles },
  { key: 'secret', plugin: plugins.secret, inMemory: true, source: secretFiles },
  { key: 'downwardAPI', plugin: plugins.downwardApi, inMemory: true, source: downwardFiles },
  { key: 'projected', plugin: plugins.projected, inMemory: true, source: projectedFiles },
];

/** Gathers the content first, so that a volume which waits for an object leaves nothing on disk; then mounts and writes. */
export async function setUpObjectFiles(host: VolumeHost, request: SetUpRequest): Promise<MountedVolume> {
  const { pod, uid, volume, signal } = request;
  const kind = kinds.find((each) => volume[each.key] !== undefined)!;
  const path = host.paths.volume(uid, kind.plugin, volume.name);
  const { files, refreshAtMs } = await kind.source(host, request);

  const mounted = kind.inMemory && (await isMounted(host.mounter, path));
  if (!mounted) await makeVolumeFolder(path);
  await host.faultPoint('files-folder-made');
  if (kind.inMemory && !mounted) await host.mounter.tmpfs(path, memorySize(host, pod), signal);
  await host.faultPoint('files-mounted');
  for (const nested of nestedMountPoints(volume.name, pod)) await makeNested(path, nested);

  const fsGroup = pod.spec.securityContext?.fsGroup;
  const nowMs = host.clock.now();
  await writePayload(path, files, { fsGroup, nowMs, faultPoint: host.faultPoint });
  if (fsGroup !== undefined) await giveToGroup(path, { fsGroup, readOnly: true, policy: 'OnRootMismatch', signal });
  await host.faultPoint('files-written');
  return {
    plugin: kind.plugin,
    path,
    readOnly: true,
    managed: true,
    measure: kind.inMemory ? 'memory' : 'walk',
    ...pickRefresh(refreshAtMs),
  };
}

async function makeNested(base: string, nested: string): Promise<void> {
  if (nested.split('/').includes('..')) throw new Error(`invalid container mount point ${nested}`);
  try {
    await makeFolders(join(base, nested), 0o755);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // A file of the payload stands there already: the runtime mounts over it.
    if (code !== 'EEXIST' && code !== 'ENOTDIR')
      throw new Error(`unable to create nested volume mountpoints: ${(error as Error).message}`, { cause: error });
  }
}
