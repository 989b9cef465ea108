// What every cluster needs done: default service accounts and the root CA map, ranges for nodes' pods, taints of nodes that became ready,
// volumes for claims, pods of nodes that are gone.
import { isAlreadyExists, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { PersistentVolume, PersistentVolumeClaim } from '../../kube/types/volume.ts';
import { pickSubnet, familyOf } from '../addresses.ts';
import { amount } from './fit.ts';
import { type Controller, createController } from './loop.ts';
import { type ControllerDeps, nameOf, type World } from './world.ts';

const rootCaMap = 'kube-root-ca.crt';

export function createNamespaceAccounts(deps: ControllerDeps, world: World, caPem: string): Controller {
  const { client } = deps;
  const controller = createController(deps, 'service account', async (name, signal) => {
    const namespace = world.namespaces.store.get(name);
    if (!namespace || namespace.metadata.deletionTimestamp) return;
    if (!world.serviceAccounts.store.get(`${name}/default`))
      await client
        .create(resources.serviceAccounts, { metadata: { name: 'default', namespace: name } }, { signal })
        .catch(unless(isAlreadyExists));
    const map = world.configMaps.store.get(`${name}/${rootCaMap}`);
    const data = { 'ca.crt': caPem };
    if (!map) {
      const annotations = {
        'kubernetes.io/description':
          'Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc.',
      };
      await client
        .create(resources.configMaps, { metadata: { name: rootCaMap, namespace: name, annotations }, data }, { signal })
        .catch(unless(isAlreadyExists));
    } else if (map.data?.['ca.crt'] !== caPem) await client.update(resources.configMaps, { ...map, data }, { signal });
  });
  world.namespaces.onChange(({ key }) => controller.queue.wake(key));
  world.serviceAccounts.onChange(({ key, after }) => {
    const { namespace, name } = nameOf(key);
    if (!after && name === 'default') controller.queue.wake(namespace);
  });
  world.configMaps.onChange(({ key }) => {
    const { namespace, name } = nameOf(key);
    if (name === rootCaMap) controller.queue.wake(namespace);
  });
  return controller;
}

const unless =
  (expected: (error: unknown) => boolean) =>
  (error: unknown): undefined => {
    if (!expected(error)) throw error;
  };

const notReadyTaints = [
  'node.kubernetes.io/not-ready',
  'node.kubernetes.io/unreachable',
  'node.kubernetes.io/network-unavailable',
];
const subnetBits = { IPv4: 24, IPv6: 64 } as const;

export function createNodeUpkeep(deps: ControllerDeps, world: World, podCidrs: readonly string[]): Controller {
  const { client } = deps;
  const given = new Map<string, string[]>();
  const controller = createController(deps, 'node', async (name, signal) => {
    const node = world.nodes.store.get(name);
    if (!node) return removePodsOf(name, signal);
    const spec: Record<string, unknown> = {};
    if (!node.spec.podCIDR && podCidrs.length > 0) {
      const used = new Set([
        ...world.nodes.store.list().flatMap((one) => one.spec.podCIDRs ?? []),
        ...[...given].filter(([other]) => other !== name).flatMap(([, cidrs]) => cidrs),
      ]);
      const cidrs = podCidrs.flatMap((range) => pickSubnet(range, subnetBits[familyOf(range)], used) ?? []);
      given.set(name, cidrs);
      if (cidrs.length > 0) Object.assign(spec, { podCIDR: cidrs[0], podCIDRs: cidrs });
    }
    const ready = node.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
    const taints = (node.spec.taints ?? []).filter(({ key }) => !(ready && notReadyTaints.includes(key)));
    if (taints.length !== (node.spec.taints ?? []).length) spec.taints = taints.length > 0 ? taints : null;
    if (Object.keys(spec).length === 0) return;
    await client.patch(
      resources.nodes,
      { name },
      { metadata: { uid: node.metadata.uid }, spec },
      { type: 'merge', signal },
    );
  });

  async function removePodsOf(node: string, signal: AbortSignal): Promise<void> {
    given.delete(node);
    for (const { metadata } of world.pods.store.list().filter(({ spec }) => spec.nodeName === node))
      await client
        .delete(resources.pods, metadata, { gracePeriodSeconds: 0, preconditions: { uid: metadata.uid! }, signal })
        .catch(unless(isNotFound));
  }

  world.nodes.onChange(({ key }) => controller.queue.wake(key));
  return controller;
}

const accepts = (volume: PersistentVolume, claim: PersistentVolumeClaim): boolean =>
  (volume.spec.storageClassName ?? '') === (claim.spec.storageClassName ?? '') &&
  (volume.spec.volumeMode ?? 'Filesystem') === (claim.spec.volumeMode ?? 'Filesystem') &&
  (claim.spec.accessModes ?? []).every((mode) => volume.spec.accessModes?.includes(mode)) &&
  amount(volume.spec.capacity?.storage) >= amount(claim.spec.resources?.requests?.storage);

/** Binds claims to volumes that are there, and makes the claims of ephemeral volumes. Nothing is provisioned. */
export function createVolumeBinder(deps: ControllerDeps, world: World): Controller {
  const { client } = deps;
  const controller = createController(deps, 'volume', async (key, signal) => {
    const claim = world.claims.store.get(key);
    if (!claim) return release(key, signal);
    if (claim.metadata.deletionTimestamp || claim.status?.phase === 'Bound') return;
    const { namespace, name, uid } = claim.metadata;
    const mine = ({ spec }: PersistentVolume): boolean =>
      spec.claimRef?.namespace === namespace &&
      spec.claimRef?.name === name &&
      (!spec.claimRef?.uid || spec.claimRef.uid === uid);
    const free = world.volumes.store
      .list()
      .filter(
        (volume) =>
          (claim.spec.volumeName ? volume.metadata.name === claim.spec.volumeName : true) &&
          (mine(volume) || (!volume.spec.claimRef && accepts(volume, claim))),
      );
    const volume =
      free.find(mine) ?? free.sort((a, b) => amount(a.spec.capacity?.storage) - amount(b.spec.capacity?.storage))[0];
    if (!volume) return;
    const { resourceVersion } = volume.metadata;
    const claimRef = { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name, uid };
    await client.patch(
      resources.persistentVolumes,
      volume.metadata,
      { metadata: { resourceVersion }, spec: { claimRef } },
      { type: 'merge', signal },
    );
    await client.patch(
      resources.persistentVolumes,
      volume.metadata,
      { status: { phase: 'Bound' } },
      { type: 'merge', subresource: 'status', signal },
    );
    await client.patch(
      resources.persistentVolumeClaims,
      claim.metadata,
      { spec: { volumeName: volume.metadata.name } },
      { type: 'merge', signal },
    );
    const status = { phase: 'Bound', accessModes: volume.spec.accessModes, capacity: volume.spec.capacity };
    await client.patch(
      resources.persistentVolumeClaims,
      claim.metadata,
      { status },
      { type: 'merge', subresource: 'status', signal },
    );
  });

  async function release(key: string, signal: AbortSignal): Promise<void> {
    const { namespace, name } = nameOf(key);
    for (const { metadata, spec, status } of world.volumes.store.list())
      if (spec.claimRef?.namespace === namespace && spec.claimRef.name === name && status?.phase === 'Bound')
        await client.patch(
          resources.persistentVolumes,
          metadata,
          { status: { phase: 'Released' } },
          { type: 'merge', subresource: 'status', signal },
        );
  }

  world.claims.onChange(({ key }) => controller.queue.wake(key));
  world.volumes.onChange(({ after }) => {
    if (after && after.status?.phase !== 'Bound')
      for (const { metadata, status } of world.claims.store.list())
        if (status?.phase !== 'Bound') controller.queue.wake(`${metadata.namespace}/${metadata.name}`);
    if (after && (after.status?.phase ?? 'Pending') === 'Pending')
      client
        .patch(
          resources.persistentVolumes,
          after.metadata,
          { status: { phase: 'Available' } },
          { type: 'merge', subresource: 'status' },
        )
        .catch((error: unknown) => deps.log.debug('a volume could not be marked available', { error }));
  });
  world.pods.onChange(({ before, after }) => {
    if (before || !after) return;
    for (const { name, ephemeral } of after.spec.volumes ?? []) {
      if (!ephemeral?.volumeClaimTemplate) continue;
      const { metadata, spec } = ephemeral.volumeClaimTemplate;
      const owner = {
        apiVersion: 'v1',
        kind: 'Pod',
        name: after.metadata.name,
        uid: after.metadata.uid!,
        controller: true,
        blockOwnerDeletion: true,
      };
      const claim = {
        metadata: {
          ...metadata,
          name: `${after.metadata.name}-${name}`,
          namespace: after.metadata.namespace!,
          ownerReferences: [owner],
        },
        spec,
      };
      client
        .create(resources.persistentVolumeClaims, claim)
        .catch((error: unknown) => deps.log.debug('the claim of an ephemeral volume could not be made', { error }));
    }
  });
  return controller;
}
