// PersistentVolumeClaims, and generic ephemeral volumes, which are claims made for one pod: from the claim to its bound PersistentVolume.
// A node may only `get` these, so what is not ready is asked for again.

import { type Resource, resources } from '../../kube/resources.ts';
import { matchesNodeSelectorTerms } from '../../kube/selectors.ts';
import type { KubeObject } from '../../kube/types/meta.ts';
import type { PersistentVolume, PersistentVolumeClaim } from '../../kube/types/volume.ts';
import { describeError } from '../../lib/log.ts';
import { type BoundClaim, NotYetError, type SetUpRequest, type VolumeHost } from './volume-driver.ts';
import { VolumeError } from './volume-error.ts';

const protection = 'kubernetes.io/pvc-protection';
const gidAnnotation = 'pv.beta.kubernetes.io/gid';

const notYet = (message: string, cause?: unknown): NotYetError =>
  new NotYetError(message, 'FailedMount', { cause, polled: true });

async function fetched<T extends KubeObject>(
  host: VolumeHost,
  request: SetUpRequest,
  resource: Resource<T>,
  name: { namespace?: string; name: string },
  failed: string,
): Promise<T> {
  try {
    return await host.client.get(resource, name, { signal: request.signal });
  } catch (error) {
    if (request.signal.aborted) throw request.signal.reason;
    throw notYet(`${failed}: ${describeError(error)}`, error);
  }
}

/** The claim that the volume names, with its PersistentVolume. Rejects with a NotYetError where it is not bound or cannot be read. */
export async function boundClaim(host: VolumeHost, request: SetUpRequest): Promise<BoundClaim> {
  const { pod, uid, volume } = request;
  const namespace = pod.metadata.namespace ?? 'default';
  const ephemeral = volume.persistentVolumeClaim === undefined;
  const name = volume.persistentVolumeClaim?.claimName ?? `${pod.metadata.name}-${volume.name}`;
  const processing = `error processing PVC ${namespace}/${name}`;

  const claim = await fetched(
    host,
    request,
    resources.persistentVolumeClaims,
    { namespace, name },
    `${processing}: failed to fetch PVC from API server`,
  );
  const problem = claimProblem(claim);
  if (problem) throw notYet(`${processing}: ${problem}`);
  const owned = claim.metadata.ownerReferences?.some((owner) => owner.controller && owner.uid === uid);
  if (ephemeral && !owned)
    throw new Error(
      `PVC ${namespace}/${name} was not created for pod ${namespace}/${pod.metadata.name} (pod is not owner)`,
    );

  const pvName = claim.spec.volumeName!;
  const pv = await fetched(
    host,
    request,
    resources.persistentVolumes,
    { name: pvName },
    `${processing}: failed to fetch PV ${pvName} from API server`,
  );
  const { claimRef } = pv.spec;
  if (!claimRef)
    throw notYet(
      `${processing}: found PV object ${pvName} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim`,
    );
  if (claimRef.uid !== claim.metadata.uid)
    throw notYet(
      `${processing}: found PV object ${pvName} but its pv.Spec.ClaimRef.UID ${claimRef.uid} does not point to claim.UID ${claim.metadata.uid}`,
    );
  const block = pv.spec.volumeMode === 'Block';
  assertUsedAs(request, block);
  assertOnThisNode(host, request, pv);
  const gid = Number.parseInt(pv.metadata.annotations?.[gidAnnotation] ?? '', 10);
  return {
    claim,
    pv,
    block,
    readOnly: volume.persistentVolumeClaim?.readOnly ?? false,
    ...(Number.isNaN(gid) ? {} : { gid }),
  };
}

function claimProblem(claim: PersistentVolumeClaim): string | undefined {
  // One that is protected stays until the last pod that uses it is gone; this pod may be it, after a restart of the agent.
  if (claim.metadata.deletionTimestamp && !claim.metadata.finalizers?.includes(protection))
    return 'PVC is being deleted';
  if (claim.status?.phase !== 'Bound') return 'PVC is not bound';
  return claim.spec.volumeName ? undefined : 'PVC has empty pvc.Spec.VolumeName';
}

function assertUsedAs({ pod, volume }: SetUpRequest, block: boolean): void {
  const { containers, initContainers = [], ephemeralContainers = [] } = pod.spec;
  const all = [...containers, ...initContainers, ...ephemeralContainers];
  const wrong = block
    ? all.some((container) => container.volumeMounts?.some((mount) => mount.name === volume.name))
    : all.some((container) => container.volumeDevices?.some((device) => device.name === volume.name));
  if (!wrong) return;
  const [mode, field] = block ? ['Block', 'volumeMounts'] : ['Filesystem', 'volumeDevices'];
  throw new Error(`volume ${volume.name} has volumeMode ${mode}, but is specified in ${field}`);
}

function assertOnThisNode(host: VolumeHost, { volume }: SetUpRequest, pv: PersistentVolume): void {
  const terms = pv.spec.nodeAffinity?.required?.nodeSelectorTerms;
  const node = host.node();
  if (!terms || !node || matchesNodeSelectorTerms(terms, node)) return;
  throw new VolumeError(
    'FailedMount',
    volume.name,
    `MountVolume.NodeAffinity check failed for volume "${pv.metadata.name}" : no matching NodeSelectorTerms`,
  );
}
