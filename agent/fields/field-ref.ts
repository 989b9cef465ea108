// What a fieldRef of the downward API says about a pod, for environment variables and for files. Messages are Kubernetes' own.
import type { Pod } from '../../kube/types/pod.ts';

/** What is not in the pod as the API server knows it. */
export interface FieldContext {
  /** The node's addresses, the primary first. */
  readonly hostIPs: readonly string[];
  /** The pod's addresses, in the order of the node's address families. */
  readonly podIPs: readonly string[];
}

/** A fieldPath that is not one of those a pod may ask for. */
export class FieldPathError extends Error {
  override name = 'FieldPathError';
}

const labelKey =
  /^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const subscripted = /^(.+?)\['(.*)'\]$/s;

/** The value of one field as text. Absent labels and annotations are empty. Throws a FieldPathError. */
export function fieldValue(pod: Pod, fieldPath: string, context: FieldContext): string {
  const match = subscripted.exec(fieldPath);
  if (match) return subscriptValue(pod, fieldPath, match[1]!, match[2]!);
  switch (fieldPath) {
    case 'metadata.name':
      return pod.metadata.name;
    case 'metadata.namespace':
      return pod.metadata.namespace ?? '';
    case 'metadata.uid':
      return pod.metadata.uid ?? '';
    case 'metadata.labels':
      return formatMap(pod.metadata.labels ?? {});
    case 'metadata.annotations':
      return formatMap(pod.metadata.annotations ?? {});
    case 'spec.nodeName':
    case 'spec.host':
      return pod.spec.nodeName ?? '';
    case 'spec.serviceAccountName':
      return pod.spec.serviceAccountName ?? '';
    case 'status.hostIP':
      return context.hostIPs[0] ?? '';
    case 'status.hostIPs':
      return context.hostIPs.join(',');
    case 'status.podIP':
      return context.podIPs[0] ?? '';
    case 'status.podIPs':
      return context.podIPs.join(',');
    case 'spec.restartPolicy':
    case 'spec.schedulerName':
    case 'status.phase':
      throw new FieldPathError(`unsupported fieldPath: ${fieldPath}`);
    default:
      throw new FieldPathError(`field label not supported: ${fieldPath}`);
  }
}

function subscriptValue(pod: Pod, fieldPath: string, path: string, key: string): string {
  const annotation = path === 'metadata.annotations';
  if (!annotation && path !== 'metadata.labels')
    throw new FieldPathError(`field label does not support subscript: ${fieldPath}`);
  // Annotation keys may be upper case before the slash.
  if (!labelKey.test(annotation ? key.toLowerCase() : key))
    throw new FieldPathError(`invalid key subscript in ${fieldPath}: not a qualified name`);
  return (annotation ? pod.metadata.annotations : pod.metadata.labels)?.[key] ?? '';
}

/** Lines of `key="value"`, sorted, the values quoted as Go quotes them. */
export function formatMap(map: Readonly<Record<string, string>>): string {
  return Object.keys(map)
    .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    .map((key) => `${key}=${quoteGo(map[key]!)}`)
    .join('\n');
}

const namedEscapes: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\x07': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
};
const printable = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u;

// strconv.Quote: what is printable stays as it is, the rest becomes an escape that Go can read again.
function quoteGo(text: string): string {
  let out = '"';
  for (const char of text.toWellFormed()) {
    const code = char.codePointAt(0)!;
    const named = namedEscapes[char];
    if (named !== undefined) out += named;
    else if (printable.test(char)) out += char;
    else if (code < 0x20 || code === 0x7f) out += `\\x${code.toString(16).padStart(2, '0')}`;
    else if (code < 0x10000) out += `\\u${code.toString(16).padStart(4, '0')}`;
    else out += `\\U${code.toString(16).padStart(8, '0')}`;
  }
  return `${out}"`;
}
