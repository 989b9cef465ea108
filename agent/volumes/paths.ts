// Where the kubelet keeps volumes: other people's programs and drivers know these paths, so they are not ours to choose.
import { createHash } from 'node:crypto';
import { join } from 'node:path';

/** Names of volume plugins; on disk `/` is written `~`. */
export const plugins = {
  emptyDir: 'kubernetes.io/empty-dir',
  configMap: 'kubernetes.io/configmap',
  secret: 'kubernetes.io/secret',
  downwardApi: 'kubernetes.io/downward-api',
  projected: 'kubernetes.io/projected',
  hostPath: 'kubernetes.io/host-path',
  local: 'kubernetes.io/local-volume',
  nfs: 'kubernetes.io/nfs',
  csi: 'kubernetes.io/csi',
  image: 'kubernetes.io/image',
} as const;

export type PluginName = (typeof plugins)[keyof typeof plugins];

export const escapePlugin = (plugin: string): string => plugin.replaceAll('/', '~');
export const unescapePlugin = (folder: string): string => folder.replaceAll('~', '/');

export interface VolumePaths {
  readonly root: string;
  readonly pods: string;
  readonly registry: string;
  pod(uid: string): string;
  volumes(uid: string): string;
  volume(uid: string, plugin: string, name: string): string;
  /** Notes of a plugin about a pod's volume: `plugins/kubernetes.io~empty-dir/wrapped_NAME/ready`. */
  podPlugin(uid: string, plugin: string, name: string): string;
  podPlugins(uid: string): string;
  volumeDevices(uid: string): string;
  volumeDevice(uid: string, plugin: string, name: string): string;
  subPaths(uid: string): string;
  subPath(uid: string, volume: string, container: string, index: number): string;
  /** `plugins/kubernetes.io/csi` */
  readonly csi: string;
  csiStaging(driver: string, handle: string): string;
  csiBlock(specName: string): string;
  /** `plugins/PLUGIN/volumeDevices/NAME`: where block devices are pinned. */
  globalDevice(plugin: string, name: string): string;
}

export function volumePaths(root: string): VolumePaths {
  const pods = join(root, 'pods');
  const csi = join(root, 'plugins', plugins.csi);
  const pod = (uid: string): string => join(pods, uid);
  return {
    root,
    pods,
    csi,
    registry: join(root, 'plugins_registry'),
    pod,
    volumes: (uid) => join(pod(uid), 'volumes'),
    volume: (uid, plugin, name) => join(pod(uid), 'volumes', escapePlugin(plugin), name),
    podPlugins: (uid) => join(pod(uid), 'plugins'),
    podPlugin: (uid, plugin, name) => join(pod(uid), 'plugins', escapePlugin(plugin), name),
    volumeDevices: (uid) => join(pod(uid), 'volumeDevices'),
    volumeDevice: (uid, plugin, name) => join(pod(uid), 'volumeDevices', escapePlugin(plugin), name),
    subPaths: (uid) => join(pod(uid), 'volume-subpaths'),
    subPath: (uid, volume, container, index) => join(pod(uid), 'volume-subpaths', volume, container, String(index)),
    csiStaging: (driver, handle) => join(csi, driver, createHash('sha256').update(handle).digest('hex'), 'globalmount'),
    csiBlock: (specName) => join(csi, 'volumeDevices', specName),
    globalDevice: (plugin, name) => join(root, 'plugins', plugin, 'volumeDevices', name),
  };
}

/** A path of one component that cannot leave its folder; uids and names come from the API and from folder listings. */
export const isSafeName = (name: string): boolean =>
  name !== '' && name !== '.' && name !== '..' && !name.includes('/') && !name.includes('\0');

/** Throws where a path has a `..` component, in Kubernetes' words. */
export function assertNoBacksteps(path: string): void {
  if (path.split('/').includes('..')) throw new Error("must not contain '..'");
}
