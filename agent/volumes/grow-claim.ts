// A volume that was made larger grows on this node too, and its claim is told: that it is being done, that it is done, or that it cannot be.
//
//   status of the claim   NodeResizePending ─▶ NodeResizeInProgress ─▶ none, and the whole capacity
//                                                │ refused for good
//                                                └▶ NodeResizeInfeasible: not tried again; its owner may ask for less
//
// Where no controller writes these (an older one, or volumes that have none) the capacities alone decide.
import { type EventTarget, podTarget } from '../../kube/events.ts';
import { resources } from '../../kube/resources.ts';
import type { Condition } from '../../kube/types/meta.ts';
import type { PersistentVolumeClaim } from '../../kube/types/volume.ts';
import { describeError } from '../../lib/log.ts';
import { quantityValue } from '../fields/quantity-value.ts';
import { PluginError } from './csi/grpc-call.ts';
import type { BoundClaim, SetUpRequest, VolumeHost } from './volume-driver.ts';

/** So often a volume that may grow while it is in use is looked at; a node may not watch claims. */
const lookMs = 60_000;

/** When to look for growth next: not for all volumes at once. */
export const nextLookMs = (nowMs: number): number => nowMs + lookMs * (1 + Math.random() / 2);

const resizeConditions: readonly string[] = [
  'FileSystemResizePending',
  'Resizing',
  'ControllerResizeError',
  'NodeResizeError',
];

/** What a claim's status says of its growth on the node. */
export type NodeGrowth = 'grow' | 'grow untold' | 'leave';

/** `grow untold`: nobody writes statuses of it. */
export function nodeGrowth(status: PersistentVolumeClaim['status']): NodeGrowth {
  const { allocatedResources, allocatedResourceStatuses } = status ?? {};
  const resize = allocatedResourceStatuses?.storage;
  if (resize === 'NodeResizePending' || resize === 'NodeResizeInProgress') return 'grow';
  return resize === undefined && allocatedResources === undefined ? 'grow untold' : 'leave';
}

/** Errors of a driver after which the same size is not asked for again. */
const infeasible: readonly string[] = ['InvalidArgument', 'OutOfRange', 'NotFound'];

/** What the claim is told of a failure; undefined: nothing, for it may still be going on, or is known. */
export function growthFailed(claim: PersistentVolumeClaim, wanted: string, error: unknown, time: string) {
  if (error instanceof PluginError && !error.final) return undefined;
  const { conditions = [] } = claim.status ?? {};
  const failedBefore = conditions.some(({ type, status }) => type === 'NodeResizeError' && status === 'True');
  const asked = claim.spec.resources?.requests?.storage;
  // Who asks for another size by now is not kept waiting by the one that failed.
  const givenUp = failedBefore && asked !== undefined && quantityValue(asked) !== quantityValue(wanted);
  const never = givenUp || (error instanceof PluginError && infeasible.includes(error.code));
  if (failedBefore && !never) return undefined;
  const condition: Condition = {
    type: 'NodeResizeError',
    status: 'True',
    lastTransitionTime: time,
    message: `failed to expand pvc with ${describeError(error)}`,
  };
  return {
    ...(never ? { allocatedResourceStatuses: { storage: 'NodeResizeInfeasible' } } : {}),
    ...(failedBefore
      ? {}
      : { conditions: [...conditions.filter(({ type }) => type !== 'NodeResizeError'), condition] }),
  };
}

/**
 * Calls `grow` with the bytes wanted, where the claim does not know the whole size yet. A failure is an Event; the pod runs on with the
 * size it has.
 */
export async function growIfLarger(
  host: VolumeHost,
  { signal, pod }: SetUpRequest,
  { claim, pv, readOnly }: BoundClaim,
  grow: (bytes: bigint) => Promise<void>,
): Promise<void> {
  const wanted = pv.spec.capacity?.storage;
  const known = claim.status?.capacity?.storage;
  if (wanted === undefined || known === undefined || readOnly) return;
  if (quantityValue(wanted) <= quantityValue(known)) return;
  const growth = nodeGrowth(claim.status);
  if (growth === 'leave') return;
  const namespace = claim.metadata.namespace ?? 'default';
  const { name } = claim.metadata;
  const tell = async (status: object): Promise<void> =>
    void (await host.client.patch(
      resources.persistentVolumeClaims,
      { namespace, name },
      { status },
      { type: 'merge', subresource: 'status', signal },
    ));
  try {
    if (growth === 'grow' && claim.status?.allocatedResourceStatuses?.storage !== 'NodeResizeInProgress')
      await tell({ allocatedResourceStatuses: { storage: 'NodeResizeInProgress' } });
    try {
      await grow(quantityValue(wanted));
    } catch (error) {
      signal.throwIfAborted();
      const time = new Date(host.clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
      const status = growth === 'grow' ? growthFailed(claim, wanted, error, time) : undefined;
      if (status)
        await tell(status).catch((failed: unknown) =>
          host.log.warn('a claim could not be told that its volume does not grow; it is tried again', {
            claim: `${namespace}/${name}`,
            error: failed,
          }),
        );
      throw error;
    }
    const conditions = (claim.status?.conditions ?? []).filter(({ type }) => !resizeConditions.includes(type));
    await tell({
      capacity: { ...claim.status?.capacity, storage: wanted },
      conditions,
      allocatedResourceStatuses: growth === 'grow' ? { storage: null } : null,
    });
    const done = `MountVolume.NodeExpandVolume succeeded for volume "${pv.metadata.name}" ${host.nodeName}`;
    const { uid } = claim.metadata;
    const target: EventTarget = {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      namespace,
      name,
      ...(uid === undefined ? {} : { uid }),
    };
    for (const about of [podTarget(pod), target])
      host.events?.record(about, 'Normal', 'FileSystemResizeSuccessful', done);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    const text = `NodeExpandVolume failed for volume "${pv.metadata.name}" : ${describeError(error)}`;
    host.events?.record(podTarget(pod), 'Warning', 'VolumeResizeFailed', text);
    host.log.warn('a volume could not grow on this node; it is tried again within two minutes', {
      volume: pv.metadata.name,
      error,
    });
  }
}
