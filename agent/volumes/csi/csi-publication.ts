// The steps of bringing a CSI volume up: its note on disk, staging for the node, publishing for the pod, ownership.
import { dirname } from 'node:path';
import type { CsiDriver, PersistentVolume } from '../../../kube/types/volume.ts';
import { makeFolders } from '../make-folders.ts';
import { giveToGroup } from '../ownership.ts';
import { removeIfEmpty } from '../remove-tree.ts';
import type { SetUpRequest, VolumeHost } from '../volume-driver.ts';
import { driverSecrets, podContext, tokenContext } from './csi-context.ts';
import { type CsiState, isMounted } from './csi-state.ts';
import type { CsiDriverClient, VolumeUse } from './driver-client.ts';
import { PluginError } from './grpc-call.ts';
import { attachmentName, loadVolData, saveVolData, type VolData } from './vol-data.ts';

export interface Publication {
  readonly handle: string;
  readonly target: string;
  readonly staging: string;
  readonly use: VolumeUse;
  readonly readOnly: boolean;
  readonly attributes: Record<string, string>;
  readonly secretRef: { name?: string; namespace?: string } | undefined;
  readonly attached: Record<string, string>;
  readonly inline: boolean;
}

/** Written before the driver is asked for anything: what it does can then always be undone by the disk alone. */
export const noteVolume = async (
  host: VolumeHost,
  folder: string,
  specName: string,
  volume: { driver: string; handle: string; mode: 'Persistent' | 'Ephemeral' },
): Promise<void> => {
  const data: VolData = {
    specVolID: specName,
    volumeHandle: volume.handle,
    driverName: volume.driver,
    nodeName: host.nodeName,
    volumeLifecycleMode: volume.mode,
    attachmentID: attachmentName(volume.handle, volume.driver, host.nodeName),
  };
  const known = await loadVolData(folder);
  if (known?.volumeHandle !== data.volumeHandle || known.driverName !== data.driverName)
    await saveVolData(folder, data);
  await host.faultPoint('csi-noted');
};

/** Stages the volume on this node, once for all pods. */
export const stageVolume = async (
  state: CsiState,
  client: CsiDriverClient,
  pv: PersistentVolume,
  staging: string,
  attached: Record<string, string>,
  volumeUse: VolumeUse,
  signal: AbortSignal,
): Promise<void> => {
  const { host, staged } = state;
  const source = pv.spec.csi!;
  if (staged.has(staging)) return;
  await makeFolders(staging, 0o750);
  if (!volumeUse.block)
    await saveVolData(dirname(staging), { volumeHandle: source.volumeHandle, driverName: source.driver });
  await host.faultPoint('csi-stage-noted');
  const secrets = await driverSecrets(host, source.nodeStageSecretRef, 'NodeStageSecretRef', signal);
  await client.stage(
    {
      handle: source.volumeHandle,
      stagingPath: staging,
      publishContext: attached,
      context: source.volumeAttributes ?? {},
      secrets,
      use: volumeUse,
    },
    signal,
  );
  await host.faultPoint('csi-staged');
  staged.add(staging);
};

const publish = async (
  host: VolumeHost,
  client: CsiDriverClient,
  request: SetUpRequest,
  spec: CsiDriver['spec'] | undefined,
  what: Publication,
): Promise<number | undefined> => {
  const { signal } = request;
  const secrets = await driverSecrets(host, what.secretRef, 'NodePublishSecretRef', signal);
  const tokens = await tokenContext(host, request, spec);
  const inSecrets = (spec as { serviceAccountTokenInSecrets?: boolean } | undefined)?.serviceAccountTokenInSecrets;
  await client.publish(
    {
      handle: what.handle,
      stagingPath: what.staging,
      targetPath: what.target,
      publishContext: what.attached,
      context: {
        ...what.attributes,
        ...podContext(request, spec, what.inline),
        ...(inSecrets ? {} : tokens.texts),
      },
      secrets: { ...secrets, ...(inSecrets ? tokens.texts : {}) },
      readOnly: what.readOnly,
      use: what.use,
    },
    signal,
  );
  await host.faultPoint('csi-published');
  return tokens.refreshAtMs;
};

/** Publishes the volume for the pod; returns when the tokens it was given are due. */
export const publishVolume = async (
  host: VolumeHost,
  client: CsiDriverClient,
  request: SetUpRequest,
  spec: CsiDriver['spec'] | undefined,
  what: Publication,
  mountedBefore: boolean,
): Promise<number | undefined> => {
  try {
    return await publish(host, client, request, spec, what);
  } catch (error) {
    if (request.signal.aborted) throw request.signal.reason;
    await afterFailure(host, error, what.target, !mountedBefore);
    throw error;
  }
};

// A driver that refused for good leaves nothing behind, so the folder must not either.
const afterFailure = async (host: VolumeHost, error: unknown, target: string, fresh: boolean): Promise<void> => {
  if (fresh && error instanceof PluginError && error.final && !(await isMounted(host, target)))
    await removeIfEmpty(target).catch(() => false);
};

/** Gives the volume to the fsGroup, where the driver leaves that to the node. */
export const giveIfWanted = async (
  request: SetUpRequest,
  spec: CsiDriver['spec'] | undefined,
  what: Publication,
  modes: readonly string[] | undefined,
): Promise<void> => {
  const { fsGroup, fsGroupChangePolicy } = request.pod.spec.securityContext ?? {};
  if (fsGroup === undefined || what.use.mountGroup !== undefined || what.readOnly) return;
  const policy = spec?.fsGroupPolicy ?? 'ReadWriteOnceWithFSType';
  if (policy === 'None') return;
  const single = modes === undefined ? what.inline : modes.some((mode) => mode.startsWith('ReadWriteOnce'));
  if (policy !== 'File' && (what.use.fsType === '' || !single)) return;
  const options = {
    fsGroup,
    readOnly: false,
    policy: fsGroupChangePolicy ?? 'Always',
    signal: request.signal,
  } as const;
  await giveToGroup(what.target, options);
};
