// What went wrong with a volume, in the words an operator knows from kubelet.

/** Reasons of Events that kubelet records for volumes. */
export type VolumeErrorReason =
  | 'FailedMount'
  | 'FailedAttachVolume'
  | 'FailedMapVolume'
  | 'VolumeResizeFailed'
  | 'FailedUnmount'
  | 'CreateContainerConfigError'
  /** The pod is to be refused: there is no room for the volume on this node. */
  | 'VolumeAttachmentLimitExceeded';

/** A volume that could not be brought up, mounted into a container, or taken down; `reason` is the Event's, and the message is kubelet's. */
export class VolumeError extends Error {
  override name = 'VolumeError';
  readonly reason: VolumeErrorReason;
  /** The volume's name in the pod's spec; empty where it is none in particular. */
  readonly volume: string;
  /** True: something else must come first (an object, an attachment, a driver), and the pod is woken when it does. False: it was tried and failed. */
  readonly waiting: boolean;
  constructor(reason: VolumeErrorReason, volume: string, message: string, waiting = false, cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
    this.volume = volume;
    this.waiting = waiting;
  }
}

/**
 * kubelet's form: `MountVolume.SetUp failed for volume "x" : configmap "y" not found`. `shown` is the name in the message: that of the
 * PersistentVolume, where there is one.
 */
export function setUpFailed(
  volume: string,
  cause: unknown,
  { waiting = false, shown = volume, block = false }: { waiting?: boolean; shown?: string; block?: boolean } = {},
): VolumeError {
  if (cause instanceof VolumeError) return cause;
  const why = cause instanceof Error ? cause.message : String(cause);
  const [reason, what] = block
    ? (['FailedMapVolume', 'MapVolume.SetUpDevice'] as const)
    : (['FailedMount', 'MountVolume.SetUp'] as const);
  return new VolumeError(reason, volume, `${what} failed for volume "${shown}" : ${why}`, waiting, cause);
}
