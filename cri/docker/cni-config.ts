// CNI network configurations: which one is used, and what each plugin of it is told. After CNI's specification 1.0. Pure but for `readNetwork`.
import { access, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type * as t from '../types.ts';

type Plugin = Readonly<Record<string, unknown>> & { readonly type: string };

export interface Network {
  readonly name: string;
  readonly cniVersion: string;
  readonly disableCheck: boolean;
  readonly plugins: readonly Plugin[];
}

/** What the pod asks of plugins that say they can. */
export interface NetworkWishes {
  readonly portMappings: readonly t.PortMapping[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly podCidr: string;
  readonly dns?: t.SandboxConfig['dns'];
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A list, or a single plugin's configuration. Throws an Error that says what is wrong. */
export function parseNetwork(text: string): Network {
  const value: unknown = JSON.parse(text);
  if (!isObject(value)) throw new Error('it is not a JSON object');
  const { name, cniVersion = '0.2.0', disableCheck = false } = value;
  if (typeof name !== 'string' || name === '') throw new Error('it has no name');
  if (typeof cniVersion !== 'string') throw new Error('its cniVersion is not a string');
  const plugins = Array.isArray(value.plugins) ? value.plugins : [value];
  if (plugins.length === 0) throw new Error('it names no plugin');
  for (const plugin of plugins)
    if (!isObject(plugin) || typeof plugin.type !== 'string' || !/^[\w.-]+$/.test(plugin.type))
      throw new Error('a plugin of it has no type');
  return { name, cniVersion, disableCheck: disableCheck === true, plugins: plugins as Plugin[] };
}

/** The first usable file by name, as every runtime chooses it. Resolves with why there is none, in words. */
export async function readNetwork(
  confDir: string,
  binDirs: readonly string[],
): Promise<{ network: Network } | { trouble: string }> {
  const names = await readdir(confDir).catch(() => []);
  const files = names.filter((name) => /\.(conflist|conf|json)$/.test(name)).toSorted();
  const troubles: string[] = [];
  for (const file of files) {
    const path = join(confDir, file);
    try {
      const network = parseNetwork(await readFile(path, 'utf8'));
      const missing = await missingPlugins(network, binDirs);
      if (missing.length === 0) return { network };
      troubles.push(`${path} needs the CNI plugins ${missing.join(', ')}, which are not in ${binDirs.join(':')}`);
    } catch (error) {
      troubles.push(`${path}: ${(error as Error).message}`);
    }
  }
  return { trouble: troubles.join('; ') || `no network config found in ${confDir}: cni plugin not initialized` };
}

async function missingPlugins(network: Network, binDirs: readonly string[]): Promise<string[]> {
  const found = await Promise.all(network.plugins.map(({ type }) => findPlugin(type, binDirs)));
  return network.plugins.map(({ type }) => type).filter((_, at) => found[at] === undefined);
}

export async function findPlugin(type: string, binDirs: readonly string[]): Promise<string | undefined> {
  for (const dir of binDirs) {
    const path = join(dir, type);
    if (
      await access(path).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

const bandwidth = (text: string | undefined): number => {
  const [, digits, unit = ''] = /^(\d+(?:\.\d+)?)([kKMGT]i?)?$/.exec(text ?? '') ?? [];
  const factors: Record<string, number> = {
    '': 1,
    k: 1e3,
    K: 1e3,
    M: 1e6,
    G: 1e9,
    T: 1e12,
    Ki: 2 ** 10,
    ki: 2 ** 10,
    Mi: 2 ** 20,
    Gi: 2 ** 30,
    Ti: 2 ** 40,
  };
  return digits === undefined ? 0 : Math.round(Number(digits) * (factors[unit] ?? 1));
};
// As large as plugins take; what containerd sets.
const burst = 2 ** 31 - 1;

/** Every capability that Kubernetes has something to say to. */
export function capabilityArgs(wishes: NetworkWishes): Record<string, unknown> {
  const args: Record<string, unknown> = {};
  const ports = wishes.portMappings.filter(({ hostPort }) => hostPort > 0);
  if (ports.length > 0)
    args.portMappings = ports.map((port) => ({
      hostPort: port.hostPort,
      containerPort: port.containerPort,
      protocol: port.protocol.toLowerCase(),
      hostIP: port.hostIp,
    }));
  const ingress = bandwidth(wishes.annotations['kubernetes.io/ingress-bandwidth']);
  const egress = bandwidth(wishes.annotations['kubernetes.io/egress-bandwidth']);
  if (ingress > 0 || egress > 0)
    args.bandwidth = {
      ...(ingress > 0 ? { ingressRate: ingress, ingressBurst: burst } : {}),
      ...(egress > 0 ? { egressRate: egress, egressBurst: burst } : {}),
    };
  if (wishes.podCidr !== '') args.ipRanges = wishes.podCidr.split(',').map((subnet) => [{ subnet }]);
  if (wishes.dns)
    args.dns = { servers: wishes.dns.servers, searches: wishes.dns.searches, options: wishes.dns.options };
  return args;
}

/** What one plugin reads on its standard input. */
export function pluginInput(
  network: Network,
  plugin: Plugin,
  args: Readonly<Record<string, unknown>>,
  prevResult: unknown,
): Record<string, unknown> {
  const { capabilities, ...own } = plugin;
  const able = isObject(capabilities) ? Object.keys(capabilities).filter((key) => capabilities[key] === true) : [];
  const told = able.filter((key) => args[key] !== undefined).map((key) => [key, args[key]] as const);
  return {
    ...own,
    name: network.name,
    cniVersion: network.cniVersion,
    ...(told.length > 0 ? { runtimeConfig: Object.fromEntries(told) } : {}),
    ...(prevResult === undefined ? {} : { prevResult }),
  };
}

/** The pod's addresses in a plugin's result, of every version of the specification. */
export function addressesOf(result: unknown): string[] {
  if (!isObject(result)) return [];
  const bare = (address: unknown): string[] => (typeof address === 'string' ? [address.split('/')[0] ?? ''] : []);
  if (isObject(result.ip4) || isObject(result.ip6))
    return [result.ip4, result.ip6].flatMap((each) => (isObject(each) ? bare(each.ip) : []));
  const interfaces = Array.isArray(result.interfaces) ? result.interfaces : [];
  const inside = (index: unknown): boolean => {
    const found: unknown = typeof index === 'number' ? interfaces[index] : undefined;
    return !isObject(found) || (typeof found.sandbox === 'string' && found.sandbox !== '');
  };
  const ips = Array.isArray(result.ips) ? result.ips : [];
  return ips.flatMap((ip) => (isObject(ip) && inside(ip.interface) ? bare(ip.address) : []));
}

/** CHECK came with 0.4.0. */
export function canCheck(network: Network): boolean {
  const [major = 0, minor = 0] = network.cniVersion.split('.').map(Number);
  return !network.disableCheck && (major > 0 || minor >= 4);
}
