// What a driver is told besides the volume: secrets, the pod, its tokens, and what attaching said.

import { isNotFound } from '../../../kube/errors.ts';
import { resources } from '../../../kube/resources.ts';
import type { CsiDriver, PersistentVolume } from '../../../kube/types/volume.ts';
import { describeError } from '../../../lib/log.ts';
import { NotYetError, type SetUpRequest, type VolumeHost } from '../volume-driver.ts';
import { VolumeError } from '../volume-error.ts';
import { attachmentName, uniqueVolumeName } from './vol-data.ts';

type Texts = Record<string, string>;
type DriverSpec = CsiDriver['spec'] | undefined;

const polled = (message: string, cause?: unknown, reason: NotYetError['reason'] = 'FailedMount'): NotYetError =>
  new NotYetError(message, reason, { cause, polled: true });

/** The secret's data as text, as CSI has it. */
export async function driverSecrets(
  host: VolumeHost,
  ref: { name?: string; namespace?: string } | undefined,
  what: string,
  signal: AbortSignal,
): Promise<Texts> {
  if (!ref?.name) return {};
  const namespace = ref.namespace ?? 'default';
  try {
    const secret = await host.client.get(resources.secrets, { namespace, name: ref.name }, { signal });
    return Object.fromEntries(
      Object.entries(secret.data ?? {}).map(([key, base64]) => [key, Buffer.from(base64, 'base64').toString('utf8')]),
    );
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw polled(`fetching ${what} ${namespace}/${ref.name} failed: ${describeError(error)}`, error);
  }
}

export function podContext(request: SetUpRequest, spec: DriverSpec, inline: boolean): Texts {
  if (!spec?.podInfoOnMount) return {};
  const { pod, uid } = request;
  return {
    'csi.storage.k8s.io/pod.name': pod.metadata.name,
    'csi.storage.k8s.io/pod.namespace': pod.metadata.namespace ?? 'default',
    'csi.storage.k8s.io/pod.uid': uid,
    'csi.storage.k8s.io/serviceAccount.name': pod.spec.serviceAccountName || 'default',
    'csi.storage.k8s.io/ephemeral': String(inline),
  };
}

/** The pod's tokens for the audiences that the driver asks for, and when the first of them is due. */
export async function tokenContext(
  host: VolumeHost,
  request: SetUpRequest,
  spec: DriverSpec,
): Promise<{ texts: Texts; refreshAtMs: number | undefined }> {
  const wishes = spec?.tokenRequests ?? [];
  if (wishes.length === 0) return { texts: {}, refreshAtMs: undefined };
  const { pod, uid, signal } = request;
  const tokens: Record<string, { token: string; expirationTimestamp: string }> = {};
  let refreshAtMs: number | undefined;
  for (const { audience, expirationSeconds = 3600 } of wishes) {
    const token = await host.tokens.get(
      {
        namespace: pod.metadata.namespace ?? 'default',
        serviceAccount: pod.spec.serviceAccountName || 'default',
        audiences: audience === '' ? [] : [audience],
        expirationSeconds,
        pod: { name: pod.metadata.name, uid },
      },
      signal,
    );
    const expires = new Date(token.expiresAtMs).toISOString().replace(/\.\d+Z$/, 'Z');
    tokens[audience] = { token: token.token, expirationTimestamp: expires };
    refreshAtMs = Math.min(token.refreshAtMs, refreshAtMs ?? token.refreshAtMs);
  }
  return { texts: { 'csi.storage.k8s.io/serviceAccount.tokens': JSON.stringify(tokens) }, refreshAtMs };
}

/** gRPC's code of it. */
const resourceExhausted = 8;
/** As long as the kubelet waits for a pod's volumes. */
const attachPatienceMs = 123_000;
// So long the report of volumesInUse may take before a mount goes on without it.
const reportMs = 10_000;

/**
 * Waits, by throwing, until the control plane has attached the volume here and it is reported in use, so that it is not detached under the
 * pod. Returns what the driver's controller said of the attachment.
 */
export async function publishContext(
  host: VolumeHost,
  pv: PersistentVolume,
  inUseSinceMs: number,
  signal: AbortSignal,
): Promise<Texts> {
  const { driver, volumeHandle } = pv.spec.csi!;
  const name = attachmentName(volumeHandle, driver, host.nodeName);
  const waits = (why: string, cause?: unknown): NotYetError =>
    polled(`AttachVolume.Attach for volume "${pv.metadata.name}" : ${why}`, cause, 'FailedAttachVolume');
  let attachment: Awaited<ReturnType<typeof get>>;
  const get = () => host.client.get(resources.volumeAttachments, { name }, { signal });
  try {
    attachment = await get();
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (isNotFound(error)) throw waits('waiting for the control plane to attach it to this node', error);
    throw waits(describeError(error), error);
  }
  const { status, metadata } = attachment;
  if (status?.attachError?.errorCode === resourceExhausted && host.csi.exhausted(driver)) {
    const forMs = host.clock.now() - inUseSinceMs;
    if (forMs >= attachPatienceMs)
      throw new VolumeError(
        'VolumeAttachmentLimitExceeded',
        pv.metadata.name,
        `Node has reached its volume attachment limit, rejecting pod. unattached volumes=[${pv.metadata.name}]: ${status.attachError.message ?? ''}`,
      );
  }
  if (status?.attachError?.message) throw waits(status.attachError.message);
  if (!status?.attached || metadata.deletionTimestamp) throw waits('waiting for the driver to attach it to this node');
  const reported = host.node()?.status?.volumesInUse?.includes(uniqueVolumeName(driver, volumeHandle));
  if (reported === false && host.clock.now() - inUseSinceMs < reportMs)
    throw waits("waiting until it is in this node's status.volumesInUse");
  return status.attachmentMetadata ?? {};
}
