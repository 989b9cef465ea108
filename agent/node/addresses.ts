// The node's addresses: the flag, else a hostname that is an address, else what the name resolves to, else the default route's. The choice
// is pure; reading interfaces and routes stands at the end.
import { lookup } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import ipaddr from 'ipaddr.js';
import type { NodeAddress } from '../../kube/types/core.ts';

export interface InterfaceAddress {
  readonly device: string;
  readonly address: string;
}

export interface AddressFacts {
  /** Global addresses of all interfaces. */
  readonly interfaces: readonly InterfaceAddress[];
  /** Devices of the default routes, the preferred first. */
  readonly defaultDevices: { readonly ipv4: readonly string[]; readonly ipv6: readonly string[] };
  /** What the node's name resolves to. */
  readonly resolved: readonly string[];
}

export interface AddressOptions {
  readonly hostname: string;
  /** The `--node-ip` flag: none, one, or one of each family; `0.0.0.0` or `::` choose a family. */
  readonly nodeIps: readonly string[];
  /** A cloud controller manager gives the addresses. */
  readonly externalCloudProvider: boolean;
}

const isV6 = (address: string): boolean => isIP(address) === 6;
const isUnspecified = (address: string | undefined): boolean => address === '0.0.0.0' || address === '::';

/** Why the address cannot be this node's; undefined where it can. */
export function refuseNodeIp(address: string, interfaces: readonly InterfaceAddress[]): string | undefined {
  const said = `nodeIP "${address}"`;
  if (isIP(address) === 0) return `${said} is not an IP address`;
  if (/^127\.|^::1$/.test(address)) return `${said} can't be loopback address`;
  if (/^(22[4-9]|23\d)\.|^ff/i.test(address)) return `${said} can't be a multicast address`;
  if (/^169\.254\.|^fe[89ab]/i.test(address)) return `${said} can't be a link-local unicast address`;
  if (isUnspecified(address)) return `${said} can't be an all zeros address`;
  if (!interfaces.some((found) => found.address === address))
    return `${said} not found in the host's network interfaces`;
  return undefined;
}

/** The flag's value as addresses. Throws an Error that says what is wrong. */
export function parseNodeIps(text: string): string[] {
  const addresses = text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean);
  const wrong = addresses.find((address) => isIP(address) === 0);
  if (wrong !== undefined) throw new Error(`node IP "${wrong}" is not an IP address`);
  if (addresses.length > 2) throw new Error(`node IP "${text}": at most one address of each family`);
  if (addresses.length === 2 && isV6(addresses[0]!) === isV6(addresses[1]!))
    throw new Error(`node IP "${text}": two addresses must be of different families`);
  if (addresses.length === 2 && addresses.some(isUnspecified))
    throw new Error(`node IP "${text}": with two addresses neither may be all zeros`);
  return addresses;
}

function byDefaultRoute(facts: AddressFacts, preferV6: boolean): string | undefined {
  const families = preferV6 ? ([true, false] as const) : ([false, true] as const);
  for (const v6 of families) {
    for (const device of v6 ? facts.defaultDevices.ipv6 : facts.defaultDevices.ipv4) {
      const found = facts.interfaces.find((entry) => entry.device === device && isV6(entry.address) === v6);
      if (found) return found.address;
    }
  }
  // A host without a default route and with one network is clear enough.
  const [only, ...more] = facts.interfaces.filter(({ address }) => isV6(address) === preferV6);
  return more.length === 0 ? only?.address : undefined;
}

/**
 * The addresses for the Node's status; `present` are those it has. Throws an Error where none can be found or the flag's are not this
 * host's.
 */
export function computeAddresses(
  options: AddressOptions,
  facts: AddressFacts,
  present: readonly NodeAddress[] = [],
): readonly NodeAddress[] {
  const { hostname, nodeIps, externalCloudProvider } = options;
  const given = nodeIps.filter((address) => !isUnspecified(address));
  for (const address of given) {
    const wrong = refuseNodeIp(address, facts.interfaces);
    if (wrong !== undefined) throw new Error(wrong);
  }
  const name: NodeAddress = { type: 'Hostname', address: hostname };
  if (externalCloudProvider && present.length > 0) return present;
  if (externalCloudProvider && nodeIps.length === 0) return [name];
  if (given.length > 0) return [...given.map((address): NodeAddress => ({ type: 'InternalIP', address })), name];
  if (isIP(hostname) !== 0) return [{ type: 'InternalIP', address: hostname }, name];
  const preferV6 = nodeIps[0] !== undefined && isV6(nodeIps[0]);
  const usable = facts.resolved.filter((address) => refuseNodeIp(address, facts.interfaces) === undefined);
  const address =
    usable.find((candidate) => isV6(candidate) === preferV6) ?? usable[0] ?? byDefaultRoute(facts, preferV6);
  if (address === undefined)
    throw new Error(
      `can't get ip address of node ${hostname}: its name does not resolve to an address of this host and there is no default route; set the node IP`,
    );
  return [{ type: 'InternalIP', address }, name];
}

/** Devices of default routes in /proc/net/route, the smallest metric first. */
export function parseRoutesV4(text: string): string[] {
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.split('\t'))
    .filter(
      (fields) =>
        fields[1] === '00000000' && fields[7] === '00000000' && (Number.parseInt(fields[3] ?? '', 16) & 1) === 1,
    )
    .sort((a, b) => Number(a[6]) - Number(b[6]))
    .map(([device = '']) => device);
}

/** The same for /proc/net/ipv6_route. */
export function parseRoutesV6(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([target, prefix, , , , , , , flags, device]) => {
      const rejects = (Number.parseInt(flags ?? '0', 16) & 0x200) !== 0;
      return target === '0'.repeat(32) && prefix === '00' && device !== undefined && device !== 'lo' && !rejects;
    })
    .sort((a, b) => Number.parseInt(a[5] ?? '0', 16) - Number.parseInt(b[5] ?? '0', 16))
    .map((fields) => fields[9] ?? '');
}

/** The host's own addresses in /proc/net/fib_trie. */
export const parseLocalV4 = (text: string): string[] => [
  ...new Set([...text.matchAll(/\|-- (\S+)\n +\/32 host LOCAL/g)].map(([, address = '']) => address)),
];

/** The host's own addresses in /proc/net/if_inet6. */
export const parseLocalV6 = (text: string): InterfaceAddress[] =>
  text
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields.length === 6)
    .map(([digits = '', , , , , device = '']) => ({
      device,
      address: new ipaddr.IPv6(digits.match(/../g)!.map((byte) => Number.parseInt(byte, 16))).toString(),
    }));

/** Node's own list leaves out devices that have no carrier; an address there is one of this host all the same, as for the kubelet. */
async function readSilentAddresses(read: (path: string) => Promise<string>): Promise<InterfaceAddress[]> {
  const [v4, v6] = [await read('/proc/net/fib_trie'), await read('/proc/net/if_inet6')];
  return [...parseLocalV4(v4).map((address) => ({ device: '', address })), ...parseLocalV6(v6)];
}

/**
 * `resolve` looks the node's name up: the resolver may be slow, so it is asked only where the answer can matter. `wanted` are addresses that
 * should be this host's.
 */
export async function readAddressFacts(
  hostname: string,
  resolve: boolean,
  wanted: readonly string[] = [],
): Promise<AddressFacts> {
  const interfaces = Object.entries(networkInterfaces()).flatMap(([device, addresses = []]) =>
    addresses
      .filter(({ internal, address }) => !internal && !/^fe[89ab]/i.test(address))
      .map(({ address }) => ({ device, address })),
  );
  const read = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
  const has = (wantedOne: string): boolean => interfaces.some(({ address }) => address === wantedOne);
  // A host with many routes has a large table of them.
  const silent = wanted.every((each) => isUnspecified(each) || has(each)) ? [] : await readSilentAddresses(read);
  return {
    interfaces: [...interfaces, ...silent.filter(({ address }) => wanted.includes(address) && !has(address))],
    defaultDevices: {
      ipv4: parseRoutesV4(await read('/proc/net/route')),
      ipv6: parseRoutesV6(await read('/proc/net/ipv6_route')),
    },
    resolved: resolve
      ? await lookup(hostname, { all: true }).then(
          (found) => found.map(({ address }) => address),
          () => [],
        )
      : [],
  };
}
