// Names of container images, as distribution's reference grammar has them: parsed, and written out in full.

export interface ImageReference {
  /** For example `docker.io` or `registry.example:5000`. */
  readonly registry: string;
  /** Path inside the registry, for example `library/busybox`. */
  readonly repository: string;
  readonly tag: string | undefined;
  /** `algorithm:hex`. */
  readonly digest: string | undefined;
}

const domainPart = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const domain = new RegExp(`^(?:${domainPart}(?:\\.${domainPart})*|\\[[0-9a-fA-F:]+\\])(?::[0-9]+)?$`);
const repositoryPath = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$/;
const tagPattern = /^\w[\w.-]{0,127}$/;
const digestPattern = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;
const hexId = /^[0-9a-f]{64}$/;
const hexLengths: Readonly<Record<string, number>> = { sha256: 64, sha384: 96, sha512: 128 };

/** A name that does not fit the grammar; the message is the one that other tools print. */
export class ImageReferenceError extends Error {
  override name = 'ImageReferenceError';
}

/** The first part is a registry where it can be nothing else. */
function splitRegistry(name: string): { registry: string; repository: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isRegistry = first !== '' && (/[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first);
  const registry = isRegistry ? (first === 'index.docker.io' ? 'docker.io' : first) : 'docker.io';
  const rest = isRegistry ? name.slice(slash + 1) : name;
  return { registry, repository: registry === 'docker.io' && !rest.includes('/') ? `library/${rest}` : rest };
}

/** Throws an ImageReferenceError. No tag is put where there is none. */
export function parseImageReference(text: string): ImageReference {
  if (text === '') throw new ImageReferenceError('invalid reference format');
  if (hexId.test(text))
    throw new ImageReferenceError(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  const at = text.indexOf('@');
  const named = at < 0 ? text : text.slice(0, at);
  const digest = at < 0 ? undefined : text.slice(at + 1);
  const colon = named.lastIndexOf(':');
  const hasTag = colon > named.lastIndexOf('/');
  const tag = hasTag ? named.slice(colon + 1) : undefined;
  const { registry, repository } = splitRegistry(hasTag ? named.slice(0, colon) : named);
  if (repository.toLowerCase() !== repository)
    throw new ImageReferenceError(`invalid reference format: repository name (${repository}) must be lowercase`);
  if ((tag !== undefined && !tagPattern.test(tag)) || (digest !== undefined && !validDigest(digest)))
    throw new ImageReferenceError('invalid reference format');
  if (!domain.test(registry) || !repositoryPath.test(repository))
    throw new ImageReferenceError('invalid reference format');
  if (registry.length + 1 + repository.length > 255)
    throw new ImageReferenceError('repository name must not be more than 255 characters');
  return { registry, repository, tag, digest };
}

function validDigest(digest: string): boolean {
  if (!digestPattern.test(digest)) return false;
  const [algorithm = '', hex = ''] = digest.split(':');
  const length = hexLengths[algorithm];
  return length === undefined || hex.length === length;
}

/** `registry/repository`, without tag and digest. */
export const repositoryName = (reference: ImageReference): string => `${reference.registry}/${reference.repository}`;

/** The name in full; without tag and digest it means `:latest`. */
export function canonicalImageName(reference: ImageReference): string {
  const tag = reference.tag ?? (reference.digest === undefined ? 'latest' : undefined);
  return `${repositoryName(reference)}${tag === undefined ? '' : `:${tag}`}${reference.digest === undefined ? '' : `@${reference.digest}`}`;
}
