// Brings CSI volumes up: behind a claim, as a folder or a device, and inline in a pod.
import { dirname, join } from 'node:path';
import type { CsiDriver, PersistentVolume } from '../../../kube/types/volume.ts';
import { nextLookMs } from '../grow-claim.ts';
import { makeFolders } from '../make-folders.ts';
import { plugins } from '../paths.ts';
import { linkDevice } from '../persistent.ts';
import type { BoundClaim, MountedVolume, SetUpRequest, VolumeHost } from '../volume-driver.ts';
import { publishContext } from './csi-context.ts';
import { expandIfGrown } from './csi-expand.ts';
import { giveIfWanted, noteVolume, type Publication, publishVolume, stageVolume } from './csi-publication.ts';
import { type CsiState, isMounted } from './csi-state.ts';
import type { CsiDriverClient, VolumeUse } from './driver-client.ts';
import { contextOption, mountLabel } from './selinux-context.ts';
import { inlineHandle, uniqueVolumeName } from './vol-data.ts';

const republishMs = 60_000;

export async function setUpInline(state: CsiState, request: SetUpRequest): Promise<MountedVolume> {
  const { host, drivers } = state;
  const { pod, uid, volume, signal } = request;
  const source = volume.csi!;
  const client = drivers.client(source.driver, uid);
  const spec = await drivers.spec(source.driver, signal);
  const modes = spec?.volumeLifecycleModes ?? ['Persistent'];
  if (!spec) throw new Error(`volume mode "Ephemeral" not supported by driver ${source.driver} (no CSIDriver object)`);
  if (!modes.includes('Ephemeral'))
    throw new Error(
      `volume mode "Ephemeral" not supported by driver ${source.driver} (only supports ${JSON.stringify(modes)})`,
    );
  const folder = host.paths.volume(uid, plugins.csi, volume.name);
  const target = join(folder, 'mount');
  const handle = inlineHandle(uid, volume.name);
  const mounted = await isMounted(host, target);
  const again = request.mounted !== undefined && mounted;
  const mountGroup = await mountGroupOf(client, request);
  const what: Publication = {
    handle,
    target,
    staging: '',
    readOnly: source.readOnly ?? false,
    use: { block: false, accessMode: 'ReadWriteOnce', fsType: source.fsType ?? '', mountOptions: [], mountGroup },
    attributes: { ...source.volumeAttributes },
    secretRef: source.nodePublishSecretRef && {
      ...source.nodePublishSecretRef,
      namespace: pod.metadata.namespace ?? 'default',
    },
    attached: {},
    inline: true,
  };
  await makeFolders(folder, 0o750);
  await noteVolume(host, folder, volume.name, { driver: source.driver, handle, mode: 'Ephemeral' });
  const tokensAtMs = await publishVolume(host, client, request, spec, what, mounted);
  if (!again) await giveIfWanted(request, spec, what, undefined);
  return {
    plugin: plugins.csi,
    path: target,
    readOnly: what.readOnly,
    managed: !what.readOnly,
    measure: 'driver',
    csi: { driver: source.driver, handle, stagingPath: '' },
    ...refreshAt(host, spec, tokensAtMs, false),
  };
}

export async function setUpPersistent(
  state: CsiState,
  request: SetUpRequest,
  bound: BoundClaim,
): Promise<MountedVolume> {
  const { host, drivers } = state;
  const { uid, signal } = request;
  const { pv } = bound;
  const source = pv.spec.csi!;
  const unique = uniqueVolumeName(source.driver, source.volumeHandle);
  const sinceMs = state.use(unique, uid);
  const client = drivers.client(source.driver, uid);
  const spec = await drivers.spec(source.driver, signal);
  const attached = spec?.attachRequired === false ? {} : await publishContext(host, pv, sinceMs, signal);
  return await state.inTurn(unique, async () => {
    state.use(unique, uid);
    return await bringUp(state, client, request, bound, spec, attached);
  });
}

async function bringUp(
  state: CsiState,
  driver: CsiDriverClient,
  request: SetUpRequest,
  bound: BoundClaim,
  driverSpec: CsiDriver['spec'] | undefined,
  attachment: Record<string, string>,
): Promise<MountedVolume> {
  const { host } = state;
  const { uid, signal } = request;
  const { pv, block } = bound;
  const source = pv.spec.csi!;
  const capabilities = await driver.capabilities(signal);
  const specName = pv.metadata.name;
  const mountGroup = block ? undefined : await mountGroupOf(driver, request);
  const label = block ? undefined : mountLabel(await host.selinux(), driverSpec, pv, request.pod, request.volume.name);
  const volumeUse = useOf(pv, block, mountGroup, label);
  const blockRoot = join(host.paths.csi, 'volumeDevices');
  const staging = block
    ? join(blockRoot, 'staging', specName)
    : host.paths.csiStaging(source.driver, source.volumeHandle);
  const folder = block ? join(blockRoot, specName, 'data') : host.paths.volume(uid, plugins.csi, specName);
  const target = block ? join(blockRoot, 'publish', specName, uid) : join(folder, 'mount');
  const link = host.paths.volumeDevice(uid, plugins.csi, specName);
  const mounted = await isMounted(host, target);
  const again = request.mounted !== undefined && mounted;
  const stagedAt = capabilities.stageUnstage ? staging : '';
  await makeFolders(folder, 0o750);
  await noteVolume(host, folder, specName, { driver: source.driver, handle: source.volumeHandle, mode: 'Persistent' });
  // The pod's own link comes first too: by it the device is found when the pod is taken down.
  if (block) {
    await makeFolders(dirname(target), 0o750);
    await linkDevice(link, target);
  }
  if (capabilities.stageUnstage) await stageVolume(state, driver, pv, staging, attachment, volumeUse, signal);
  const what: Publication = {
    handle: source.volumeHandle,
    target,
    staging: stagedAt,
    readOnly: bound.readOnly,
    use: volumeUse,
    attributes: { ...source.volumeAttributes },
    secretRef: source.nodePublishSecretRef,
    attached: attachment,
    inline: false,
  };
  let tokensAtMs: number | undefined;
  if (!again || driverSpec?.requiresRepublish)
    tokensAtMs = await publishVolume(host, driver, request, driverSpec, what, mounted);
  if (!again && !block) await giveIfWanted(request, driverSpec, what, pv.spec.accessModes ?? []);
  if (capabilities.expand) await expandIfGrown(host, driver, request, bound, { ...what, stagingPath: stagedAt });
  return {
    plugin: plugins.csi,
    ...(block ? { device: link } : { path: target }),
    readOnly: bound.readOnly,
    // Mounted with the pod's label: there is nothing to give one.
    managed: !block && !bound.readOnly && label === undefined,
    measure: 'driver',
    csi: { driver: source.driver, handle: source.volumeHandle, stagingPath: stagedAt },
    ...refreshAt(host, driverSpec, tokensAtMs, capabilities.expand),
  };
}

const useOf = (
  pv: PersistentVolume,
  block: boolean,
  mountGroup: number | undefined,
  label: string | undefined,
): VolumeUse => ({
  block,
  accessMode: pv.spec.accessModes?.[0] ?? 'ReadWriteOnce',
  fsType: pv.spec.csi?.fsType ?? '',
  mountOptions: block ? [] : [...(pv.spec.mountOptions ?? []), ...(label === undefined ? [] : [contextOption(label)])],
  mountGroup,
});

const mountGroupOf = async (client: CsiDriverClient, request: SetUpRequest): Promise<number | undefined> =>
  (await client.capabilities(request.signal)).mountGroup ? request.pod.spec.securityContext?.fsGroup : undefined;

const refreshAt = (
  host: VolumeHost,
  spec: CsiDriver['spec'] | undefined,
  tokensAtMs: number | undefined,
  watchSize: boolean,
): { refreshAtMs?: number } => {
  const nowMs = host.clock.now();
  if (spec?.requiresRepublish) return { refreshAtMs: Math.min(nowMs + republishMs, tokensAtMs ?? Infinity) };
  return watchSize ? { refreshAtMs: nextLookMs(nowMs) } : {};
};
