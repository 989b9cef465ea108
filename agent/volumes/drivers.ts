// Which file brings which kind of volume up.
import type { Volume } from '../../kube/types/volume.ts';
import { setUpEmptyDir } from './empty-dir.ts';
import { setUpHostPath } from './host-path.ts';
import { setUpObjectFiles } from './object-files.ts';
import { plugins } from './paths.ts';
import { setUpClaim, setUpNfs } from './persistent.ts';
import type { MountedVolume, SetUpRequest, SetUpVolume, VolumeHost } from './volume-driver.ts';

async function setUpImage(host: VolumeHost, { pod, volume, signal }: SetUpRequest): Promise<MountedVolume> {
  const { reference = '', pullPolicy } = volume.image!;
  if (!host.ensureImage) throw new Error('the container runtime of this node cannot mount images as volumes');
  const image = await host.ensureImage(pod, reference, pullPolicy, signal);
  return { plugin: plugins.image, image, readOnly: true, managed: true };
}

const table: readonly (readonly [keyof Volume, SetUpVolume])[] = [
  ['emptyDir', setUpEmptyDir],
  ['hostPath', setUpHostPath],
  ['configMap', setUpObjectFiles],
  ['secret', setUpObjectFiles],
  ['downwardAPI', setUpObjectFiles],
  ['projected', setUpObjectFiles],
  ['image', setUpImage],
  ['persistentVolumeClaim', setUpClaim],
  ['ephemeral', setUpClaim],
  ['nfs', setUpNfs],
  ['csi', (host, request) => host.csi.setUpInline(request)],
];

/** The source that a volume names; a volume without one is an emptyDir, as the API says. */
export function sourceOf(volume: Volume): string {
  return (
    Object.keys(volume).find((key) => key !== 'name' && volume[key] !== undefined && volume[key] !== null) ?? 'emptyDir'
  );
}

const inlinePlugins: Readonly<Record<string, string>> = {
  emptyDir: plugins.emptyDir,
  hostPath: plugins.hostPath,
  configMap: plugins.configMap,
  secret: plugins.secret,
  downwardAPI: plugins.downwardApi,
  projected: plugins.projected,
  image: plugins.image,
  nfs: plugins.nfs,
};

/** The plugin of a volume, for metrics: `kubernetes.io/csi:DRIVER` for CSI, `N/A` for a claim of which nothing is up yet. */
export function pluginNameOf(volume: Volume, up: MountedVolume | undefined): string {
  const driver = up?.csi?.driver ?? volume.csi?.driver;
  if (driver !== undefined) return `${plugins.csi}:${driver}`;
  return up?.plugin ?? inlinePlugins[sourceOf(volume)] ?? 'N/A';
}

export async function setUpVolume(host: VolumeHost, request: SetUpRequest): Promise<MountedVolume> {
  const source = sourceOf(request.volume);
  const driver = table.find(([key]) => key === source)?.[1];
  if (!driver)
    throw new Error(
      `volumes of type ${source} are not supported by this node: use a CSI driver, or a node that has them`,
    );
  return await driver(host, request);
}
