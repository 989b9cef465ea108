// Lets a volume that was made larger grow on this node too, and tells the claim.

import { podTarget } from '../../../kube/events.ts';
import { resources } from '../../../kube/resources.ts';
import { describeError } from '../../../lib/log.ts';
import { quantityValue } from '../../fields/quantity-value.ts';
import type { BoundClaim, SetUpRequest, VolumeHost } from '../volume-driver.ts';
import { driverSecrets } from './csi-context.ts';
import type { CsiDriverClient, VolumeUse } from './driver-client.ts';

export interface Expansion {
  readonly handle: string;
  readonly target: string;
  readonly stagingPath: string;
  readonly use: VolumeUse;
}

/** Does nothing where the claim knows the whole size. A failure is an Event; the pod runs on with the size it has. */
export async function expandIfGrown(
  host: VolumeHost,
  client: CsiDriverClient,
  request: SetUpRequest,
  { claim, pv, readOnly }: BoundClaim,
  volume: Expansion,
): Promise<void> {
  const wanted = pv.spec.capacity?.storage;
  const known = claim.status?.capacity?.storage;
  if (wanted === undefined || known === undefined || readOnly) return;
  if (quantityValue(wanted) <= quantityValue(known)) return;
  const { signal, pod } = request;
  try {
    const secrets = await driverSecrets(host, pv.spec.csi?.nodeExpandSecretRef, 'NodeExpandSecretRef', signal);
    const bytes = quantityValue(wanted);
    await client.expand(
      { handle: volume.handle, path: volume.target, stagingPath: volume.stagingPath, bytes, secrets, use: volume.use },
      signal,
    );
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
