// Why a container has no image, in the reasons and words that Kubernetes puts into a pod's status.

export type ImageReason =
  | 'ErrImagePull'
  | 'ImagePullBackOff'
  | 'ErrImageNeverPull'
  | 'InvalidImageName'
  | 'ImageInspectError'
  | 'RegistryUnavailable'
  | 'SignatureValidationFailed';

/** The message belongs in the pod's status as it is. */
export class ImageError extends Error {
  override name = 'ImageError';
  readonly reason: ImageReason;
  /** Worth asking again after this long, in milliseconds. */
  readonly retryAfterMs: number;
  constructor(reason: ImageReason, message: string, retryAfterMs: number, cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Runtimes begin their message with the name where they know why a pull failed. */
const named = [
  ['RegistryUnavailable', 'the registry is unavailable'],
  ['SignatureValidationFailed', 'the signature validation failed'],
] as const;

/** Reason and message of a pull that failed with the runtime's `detail`. */
export function pullFailure(image: string, detail: string): { readonly reason: ImageReason; readonly message: string } {
  for (const [reason, words] of named)
    if (detail.startsWith(reason))
      return { reason, message: `image pull failed for ${image} because ${words}${detail.slice(reason.length)}` };
  return { reason: 'ErrImagePull', message: detail };
}
