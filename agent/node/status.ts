// The Node's status from what is known of the host, and the patch that brings the API's to it. Pure.
import { isDeepStrictEqual } from 'node:util';
import type { Node, NodeAddress, NodeStatus } from '../../kube/types/core.ts';
import type { Condition, ResourceList } from '../../kube/types/meta.ts';
import type { Image } from '../../cri/types.ts';
import { conditionChanged, stampCondition, type ConditionValue } from './conditions.ts';
import type { HostFacts } from './host-facts.ts';
import type { NodeResources } from './capacity.ts';
import type { RuntimeState } from './runtime-state.ts';

export interface StatusInputs {
  readonly facts: HostFacts;
  readonly resources: NodeResources;
  readonly addresses: readonly NodeAddress[];
  readonly runtime: RuntimeState;
  readonly kubeletVersion: string;
  readonly port: number;
  readonly images: readonly Image[];
  readonly maxImages: number;
  /** Undefined while the volumes of running pods are still being found again. */
  readonly volumesInUse: readonly string[] | undefined;
  readonly declaredFeatures: readonly string[];
  /** In the order they are to stand; Ready last. */
  readonly conditions: readonly ConditionValue[];
}

const namesPerImage = 5;

export function largestImages(images: readonly Image[], limit: number): NonNullable<NodeStatus['images']> {
  const sorted = [...images].sort((a, b) => b.sizeBytes - a.sizeBytes || (a.id < b.id ? -1 : 1));
  return (limit < 0 ? sorted : sorted.slice(0, limit)).map(({ repoDigests, repoTags, sizeBytes }) => ({
    names: [...repoDigests, ...repoTags].slice(0, namesPerImage),
    sizeBytes,
  }));
}

// Opaque resources that others advertise on the node stay; those of a page size the kernel no longer has go.
function mergeResources(before: ResourceList | undefined, now: ResourceList): ResourceList {
  const kept = Object.entries(before ?? {}).filter(([name]) => name.includes('/'));
  return { ...Object.fromEntries(kept), ...now };
}

/** `before` is the status the API has; what only others write of it stays. */
export function computeStatus(before: NodeStatus, inputs: StatusInputs, now: string): NodeStatus {
  const { facts, runtime } = inputs;
  const stamped = inputs.conditions.map((value) =>
    stampCondition(
      value,
      before.conditions?.find(({ type }) => type === value.type),
      now,
    ),
  );
  const others = (before.conditions ?? []).filter(({ type }) => !stamped.some((own) => own.type === type));
  const handlers = runtime.status?.runtimeHandlers;
  return {
    ...before,
    capacity: mergeResources(before.capacity, inputs.resources.capacity),
    allocatable: mergeResources(before.allocatable, inputs.resources.allocatable),
    conditions: [...others, ...stamped],
    addresses: [...inputs.addresses],
    daemonEndpoints: { kubeletEndpoint: { Port: inputs.port } },
    nodeInfo: {
      machineID: facts.machineId,
      systemUUID: facts.systemUuid,
      bootID: facts.bootId,
      kernelVersion: facts.kernelVersion,
      osImage: facts.osImage,
      containerRuntimeVersion: runtime.version
        ? `${runtime.version.runtimeName}://${runtime.version.runtimeVersion.replace(/^v/, '')}`
        : (before.nodeInfo?.containerRuntimeVersion ?? '://Unknown'),
      kubeletVersion: inputs.kubeletVersion,
      kubeProxyVersion: '',
      operatingSystem: 'linux',
      architecture: facts.architecture,
      ...(facts.swapBytes > 0 ? { swap: { capacity: facts.swapBytes } } : {}),
    },
    images: largestImages(inputs.images, inputs.maxImages),
    ...(inputs.volumesInUse === undefined ? {} : { volumesInUse: [...inputs.volumesInUse].sort() }),
    ...(handlers === undefined
      ? {}
      : {
          runtimeHandlers: handlers.map(({ name, recursiveReadOnlyMounts, userNamespaces }) => ({
            name,
            features: { recursiveReadOnlyMounts, userNamespaces },
          })),
          features: { supplementalGroupsPolicy: runtime.status?.supplementalGroupsPolicy ?? false },
        }),
    declaredFeatures: [...inputs.declaredFeatures].sort(),
  };
}

const has = (value: unknown): boolean =>
  value !== undefined && !(Array.isArray(value) && value.length === 0) && value !== '';

/** The empty and the absent are the same to the API. */
const normal = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(normal);
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, inner]) => has(inner))
        .map(([key, inner]) => [key, normal(inner)]),
    );
  return value;
};
const same = (a: unknown, b: unknown): boolean => isDeepStrictEqual(normal(a), normal(b)) || (!has(a) && !has(b));

const conditionOf = (status: NodeStatus, type: string): Condition | undefined =>
  status.conditions?.find((condition) => condition.type === type);

/** True where something else than heartbeats differs. */
export function statusChanged(before: NodeStatus, after: NodeStatus): boolean {
  const { conditions: _before, ...restBefore } = before;
  const { conditions, ...restAfter } = after;
  return (
    (conditions ?? []).some((condition) => conditionChanged(conditionOf(before, condition.type), condition)) ||
    !same(restBefore, restAfter)
  );
}

function mapPatch(before: Readonly<Record<string, unknown>> = {}, after: Readonly<Record<string, unknown>> = {}) {
  const patch: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(after)) if (!same(before[key], value)) patch[key] = value;
  for (const key of Object.keys(before)) if (!(key in after)) patch[key] = null;
  return patch;
}

/** A strategic merge patch of the status; conditions that others own are not in it. */
export function statusPatch(before: NodeStatus, after: NodeStatus): Record<string, unknown> {
  const patch: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(after) as [keyof NodeStatus, unknown][]) {
    if (field === 'conditions' || same(before[field], value)) continue;
    if (field === 'capacity' || field === 'allocatable' || field === 'nodeInfo')
      patch[field] = mapPatch(before[field] as Record<string, unknown>, value as Record<string, unknown>);
    // Two addresses may have the same type, which is the merge key: the list is replaced whole.
    else if (field === 'addresses') patch[field] = [...(value as NodeAddress[]), { $patch: 'replace' }];
    else patch[field] = has(value) ? value : null;
  }
  const conditions = (after.conditions ?? []).filter(
    (condition) => !isDeepStrictEqual(conditionOf(before, condition.type), condition),
  );
  if (conditions.length > 0) patch.conditions = conditions;
  return patch;
}

/** Conditions whose status is another than it was, for Events. */
export const transitions = (before: NodeStatus, values: readonly ConditionValue[]): ConditionValue[] =>
  values.filter((value) => conditionOf(before, value.type)?.status !== value.status);

export const isReady = (node: Node | undefined): boolean =>
  node?.status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True';
