// What every cluster needs done: default service accounts and the root CA map, ranges for nodes' pods, an end for pods whose node is gone.
import { isAlreadyExists, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import { familyOf, pickSubnet } from '../addresses.ts';
import { unless, type World } from './world.ts';

const rootCaMap = 'kube-root-ca.crt';

export function createNamespaceAccounts(world: World, caPem: string) {
  const { client, namespaces, serviceAccounts, configMaps } = world;
  const data = { 'ca.crt': caPem };
  const controller = world.controller('service account', async (namespace, signal) => {
    if (!namespaces.get(namespace)) return;
    const account = { metadata: { name: 'default', namespace } };
    if (!serviceAccounts.get(`${namespace}/default`))
      await client.create(resources.serviceAccounts, account, { signal }).catch(unless(isAlreadyExists));
    const map = configMaps.get(`${namespace}/${rootCaMap}`);
    const made = { metadata: { name: rootCaMap, namespace }, data };
    if (!map) await client.create(resources.configMaps, made, { signal }).catch(unless(isAlreadyExists));
    else if (map.data?.['ca.crt'] !== caPem) await client.update(resources.configMaps, { ...map, data }, { signal });
  });
  const wake = ({ key }: { readonly key: string }): void => controller.wake(key.split('/')[0]!);
  namespaces.onChange(wake);
  serviceAccounts.onChange(wake);
  configMaps.onChange(wake);
  return controller;
}

const subnetBits = { IPv4: 24, IPv6: 64 } as const;

export function createNodeUpkeep(world: World, podCidr: string) {
  const { client, nodes, pods } = world;
  const given = new Map<string, string>();
  const controller = world.controller('node', async (name, signal) => {
    const node = nodes.get(name);
    if (!node) return removePodsOf(name, signal);
    if (node.spec.podCIDR) return;
    const used = new Set([...nodes.list().flatMap(({ spec }) => spec.podCIDR ?? []), ...given.values()]);
    const cidr = given.get(name) ?? pickSubnet(podCidr, subnetBits[familyOf(podCidr)], used);
    if (!cidr) throw new Error(`no range for its pods is left in ${podCidr}`);
    given.set(name, cidr);
    const patch = { metadata: { uid: node.metadata.uid }, spec: { podCIDR: cidr, podCIDRs: [cidr] } };
    await client.patch(resources.nodes, { name }, patch, { type: 'merge', signal });
  });

  async function removePodsOf(node: string, signal: AbortSignal): Promise<void> {
    given.delete(node);
    for (const { metadata } of pods.list().filter(({ spec }) => spec.nodeName === node)) {
      const options = { gracePeriodSeconds: 0, preconditions: { uid: metadata.uid! }, signal };
      await client.delete(resources.pods, metadata, options).catch(unless(isNotFound));
    }
  }

  nodes.onChange(({ key }) => controller.wake(key));
  return controller;
}
