// What every cluster needs done: default service accounts and the root CA map, ranges for nodes' pods, taints of nodes that became ready,
// pods of nodes that are gone.
import { isAlreadyExists, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import { familyOf, pickSubnet } from '../addresses.ts';
import { unless, type World } from './world.ts';

const rootCaMap = 'kube-root-ca.crt';

export function createNamespaceAccounts(world: World, caPem: string) {
  const { client } = world;
  const data = { 'ca.crt': caPem };
  const controller = world.controller('service account', async (name, signal) => {
    const namespace = world.namespaces.get(name);
    if (!namespace || namespace.metadata.deletionTimestamp) return;
    const account = { metadata: { name: 'default', namespace: name } };
    if (!world.serviceAccounts.get(`${name}/default`))
      await client.create(resources.serviceAccounts, account, { signal }).catch(unless(isAlreadyExists));
    const map = world.configMaps.get(`${name}/${rootCaMap}`);
    const made = { metadata: { name: rootCaMap, namespace: name }, data };
    if (!map) await client.create(resources.configMaps, made, { signal }).catch(unless(isAlreadyExists));
    else if (map.data?.['ca.crt'] !== caPem) await client.update(resources.configMaps, { ...map, data }, { signal });
  });
  world.namespaces.onChange(({ key }) => controller.wake(key));
  for (const [cache, name] of [
    [world.serviceAccounts, 'default'],
    [world.configMaps, rootCaMap],
  ] as const)
    cache.onChange(({ key }) => {
      const [namespace = '', changed] = key.split('/');
      if (changed === name) controller.wake(namespace);
    });
  return controller;
}

const notReadyTaints = ['not-ready', 'unreachable', 'network-unavailable'].map((name) => `node.kubernetes.io/${name}`);
const subnetBits = { IPv4: 24, IPv6: 64 } as const;

export function createNodeUpkeep(world: World, podCidr: string) {
  const { client } = world;
  const given = new Map<string, string>();
  const controller = world.controller('node', async (name, signal) => {
    const node = world.nodes.get(name);
    if (!node) return removePodsOf(name, signal);
    const spec: Record<string, unknown> = {};
    if (!node.spec.podCIDR) {
      const others = [...given].filter(([other]) => other !== name).map(([, cidr]) => cidr);
      const used = new Set([...world.nodes.list().flatMap((one) => one.spec.podCIDR ?? []), ...others]);
      const cidr = pickSubnet(podCidr, subnetBits[familyOf(podCidr)], used);
      if (cidr) {
        given.set(name, cidr);
        Object.assign(spec, { podCIDR: cidr, podCIDRs: [cidr] });
      }
    }
    const ready = node.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
    const had = node.spec.taints ?? [];
    const taints = had.filter(({ key }) => !(ready && notReadyTaints.includes(key)));
    if (taints.length !== had.length) spec.taints = taints.length > 0 ? taints : null;
    if (Object.keys(spec).length === 0) return;
    const patch = { metadata: { uid: node.metadata.uid }, spec };
    await client.patch(resources.nodes, { name }, patch, { type: 'merge', signal });
  });

  async function removePodsOf(node: string, signal: AbortSignal): Promise<void> {
    given.delete(node);
    for (const { metadata } of world.pods.list().filter(({ spec }) => spec.nodeName === node)) {
      const options = { gracePeriodSeconds: 0, preconditions: { uid: metadata.uid! }, signal };
      await client.delete(resources.pods, metadata, options).catch(unless(isNotFound));
    }
  }

  world.nodes.onChange(({ key }) => controller.wake(key));
  return controller;
}
