// From API objects to the files of a volume. Pure; messages are Kubernetes' own.

import { posix } from 'node:path';
import type { ConfigMap, Secret } from '../../kube/types/core.ts';
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { DownwardApiFile, KeyToPath } from '../../kube/types/volume.ts';
import type { FieldContext } from '../fields/field-ref.ts';
import { fieldValue } from '../fields/field-ref.ts';
import { resourceFieldValue } from '../fields/resource-field-ref.ts';
import type { PayloadFile } from './atomic-writer.ts';

/** Several failures of one volume, in the form of Kubernetes' aggregate. */
export class PayloadError extends Error {
  override name = 'PayloadError';
  constructor(messages: readonly string[]) {
    const all = [...new Set(messages)];
    super(all.length === 1 ? all[0]! : `[${all.join(', ')}]`);
  }
}

export interface KeyedOptions {
  readonly items?: readonly KeyToPath[] | undefined;
  readonly defaultMode: number;
  readonly optional: boolean;
}

/** The files of a ConfigMap; undefined stands for one that is not there but may be missing. */
export function configMapPayload(configMap: ConfigMap | undefined, options: KeyedOptions): Map<string, PayloadFile> {
  const data = new Map<string, Uint8Array>();
  for (const [key, text] of Object.entries(configMap?.data ?? {})) data.set(key, Buffer.from(text, 'utf8'));
  for (const [key, base64] of Object.entries(configMap?.binaryData ?? {})) data.set(key, Buffer.from(base64, 'base64'));
  return pick(data, options, (key) => `configmap references non-existent config key: ${key}`);
}

export function secretPayload(secret: Secret | undefined, options: KeyedOptions): Map<string, PayloadFile> {
  const data = new Map<string, Uint8Array>();
  for (const [key, base64] of Object.entries(secret?.data ?? {})) data.set(key, Buffer.from(base64, 'base64'));
  return pick(data, options, (key) => `references non-existent secret key: ${key}`);
}

function pick(
  data: ReadonlyMap<string, Uint8Array>,
  { items, defaultMode, optional }: KeyedOptions,
  missing: (key: string) => string,
): Map<string, PayloadFile> {
  const files = new Map<string, PayloadFile>();
  if (!items || items.length === 0) {
    for (const [key, bytes] of data) files.set(key, { data: bytes, mode: defaultMode });
    return files;
  }
  for (const item of items) {
    const bytes = data.get(item.key);
    if (bytes) files.set(item.path, { data: bytes, mode: item.mode ?? defaultMode });
    else if (!optional) throw new PayloadError([missing(item.key)]);
  }
  return files;
}

export interface DownwardContext extends FieldContext {
  readonly allocatable: Readonly<ResourceList>;
}

export function downwardPayload(
  items: readonly DownwardApiFile[],
  pod: Pod,
  context: DownwardContext,
  defaultMode: number,
): Map<string, PayloadFile> {
  const files = new Map<string, PayloadFile>();
  const failures: string[] = [];
  for (const item of items) {
    try {
      files.set(posix.normalize(item.path), {
        data: Buffer.from(downwardValue(item, pod, context), 'utf8'),
        mode: item.mode ?? defaultMode,
      });
    } catch (error) {
      failures.push((error as Error).message);
    }
  }
  if (failures.length > 0) throw new PayloadError(failures);
  return files;
}

function downwardValue(item: DownwardApiFile, pod: Pod, context: DownwardContext): string {
  if (item.fieldRef) return fieldValue(pod, item.fieldRef.fieldPath, context);
  if (item.resourceFieldRef) return resourceFieldValue(pod, item.resourceFieldRef, context.allocatable);
  return '';
}

/**
 * The user id that every container of the pod runs as, where all name the same one: tokens are theirs. Undefined where one names none or
 * two differ.
 */
export function sharedRunAsUser(pod: Pod): number | undefined {
  const { containers, initContainers = [], ephemeralContainers = [], securityContext } = pod.spec;
  const users = [...initContainers, ...containers, ...ephemeralContainers].map(
    (container) => container.securityContext?.runAsUser ?? securityContext?.runAsUser,
  );
  const [first] = users;
  return first !== undefined && users.every((user) => user === first) ? first : undefined;
}

/**
 * Folders to make inside volume `name` because some container mounts something else below a place where it mounts this volume,
 * relative to the volume. A read-only volume cannot be given them later by the runtime.
 */
export function nestedMountPoints(name: string, pod: Pod): string[] {
  const found: string[] = [];
  const { containers, initContainers = [], ephemeralContainers = [] } = pod.spec;
  for (const { volumeMounts = [] } of [...initContainers, ...containers, ...ephemeralContainers]) {
    const all = volumeMounts.map((mount) => posix.normalize(mount.mountPath).replace(/(?<=.)\/+$/, '')).sort();
    const mine = volumeMounts.filter((mount) => mount.name === name);
    for (const mount of mine) {
      const base = `${posix.normalize(mount.mountPath).replace(/\/+$/, '')}/`;
      if (base.startsWith('../')) throw new Error(`invalid container mount point ${base.slice(0, -1)}`);
      const taken: string[] = [];
      for (const point of all) {
        if (!point.startsWith(base) || taken.some((before) => point.startsWith(before))) continue;
        taken.push(`${point}/`);
        found.push(point.slice(base.length));
      }
    }
  }
  return [...new Set(found)];
}
