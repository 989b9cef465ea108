// The hash by which a running container is held against its spec. It is the kubelet's own, to the bit, so that containers of a former
// kubelet are adopted and not restarted.
import type { Container } from '../../kube/types/pod.ts';

const encoder = new TextEncoder();

function fnv1a32(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

// Go's encoding/json escapes these, JSON.stringify does not.
const goJson = (value: unknown): string =>
  JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

/**
 * In hexadecimal, without leading zeros. Only the name and the image count: a change of any other field of a running container is either
 * refused by the API server or done in place. The kubelet hashes the dump of the JSON's bytes, as `([]uint8)[123 34 …]`.
 */
export function containerHash(container: Container): string {
  const json = encoder.encode(goJson({ image: container.image ?? '', name: container.name }));
  return fnv1a32(encoder.encode(`([]uint8)[${json.join(' ')}]`)).toString(16);
}
