// The name of a container's image as the runtime and the registries want it, and the pull policy that it implies.
import type { PullPolicy } from '../../kube/types/pod.ts';
import { ImageReferenceError, parseImageReference, repositoryName } from '../../lib/image-reference.ts';

export interface ImageName {
  /** What the runtime is asked for: as written, with a tag where there was neither tag nor digest. */
  readonly image: string;
  /** `registry/path` in full: what credentials are looked up by. */
  readonly repository: string;
}

/** A string where the name is invalid: why, as Kubernetes says it. */
export function planImageName(requested: string): ImageName | string {
  try {
    const reference = parseImageReference(requested);
    const bare = reference.tag === undefined && reference.digest === undefined;
    return { image: bare ? `${requested}:latest` : requested, repository: repositoryName(reference) };
  } catch (error) {
    if (!(error instanceof ImageReferenceError)) throw error;
    return `Failed to apply default image tag "${requested}": couldn't parse image name "${requested}": ${error.message}`;
  }
}

/** The policy of a container that names none: the API server fills it in, manifests in a folder do not. */
export function effectivePullPolicy(requested: string, policy: PullPolicy | undefined): PullPolicy {
  if (policy) return policy;
  try {
    const { tag, digest } = parseImageReference(requested);
    return digest === undefined && (tag === undefined || tag === 'latest') ? 'Always' : 'IfNotPresent';
  } catch {
    return 'IfNotPresent';
  }
}
