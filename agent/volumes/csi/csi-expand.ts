// Lets a CSI volume that was made larger grow on this node too.
import { growIfLarger } from '../grow-claim.ts';
import type { BoundClaim, SetUpRequest, VolumeHost } from '../volume-driver.ts';
import { driverSecrets } from './csi-context.ts';
import type { CsiDriverClient, VolumeUse } from './driver-client.ts';

export interface Expansion {
  readonly handle: string;
  readonly target: string;
  readonly stagingPath: string;
  readonly use: VolumeUse;
}

/** See growIfLarger. */
export async function expandIfGrown(
  host: VolumeHost,
  client: CsiDriverClient,
  request: SetUpRequest,
  bound: BoundClaim,
  { handle, target, stagingPath, use }: Expansion,
): Promise<void> {
  const { signal } = request;
  await growIfLarger(host, request, bound, async (bytes) => {
    const secrets = await driverSecrets(host, bound.pv.spec.csi?.nodeExpandSecretRef, 'NodeExpandSecretRef', signal);
    await client.expand({ handle, path: target, stagingPath, bytes, secrets, use }, signal);
  });
}
