// A volume that was made larger grows on this node too, and its claim is told.
import { podTarget } from '../../kube/events.ts';
import { resources } from '../../kube/resources.ts';
import { describeError } from '../../lib/log.ts';
import { quantityValue } from '../fields/quantity-value.ts';
import type { BoundClaim, SetUpRequest, VolumeHost } from './volume-driver.ts';

/** So often a volume that may grow while it is in use is looked at; a node may not watch claims. */
const lookMs = 60_000;

/** When to look for growth next: not for all volumes at once. */
export const nextLookMs = (nowMs: number): number => nowMs + lookMs * (1 + Math.random() / 2);

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
  try {
    await grow(quantityValue(wanted));
    const namespace = claim.metadata.namespace ?? 'default';
    const conditions = (claim.status?.conditions ?? []).filter(
      (condition) => condition.type !== 'FileSystemResizePending' && condition.type !== 'Resizing',
    );
    await host.client.patch(
      resources.persistentVolumeClaims,
      { namespace, name: claim.metadata.name },
      {
        status: {
          capacity: { ...claim.status?.capacity, storage: wanted },
          conditions,
          allocatedResourceStatuses: null,
        },
      },
      { type: 'merge', subresource: 'status', signal },
    );
    const done = `MountVolume.NodeExpandVolume succeeded for volume "${pv.metadata.name}" ${host.nodeName}`;
    host.events?.record(podTarget(pod), 'Normal', 'FileSystemResizeSuccessful', done);
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
