// Takes away what a kube-proxy in IPVS mode left, and nothing of others: virtual servers that somebody else made stay.
import { describeError, type Log } from '../lib/log.ts';
import type { Exec } from './iptables/tool.ts';

/** The dummy device that carries the virtual addresses of that mode: where there is none, that mode did not run here. */
const device = 'kube-ipvs0';

/** Its ipset sets; those of IPv6 have a 6 in their names. */
const kubeSet =
  /^KUBE-(?:6-)?(?:LOOP-BACK|CLUSTER-IP|EXTERNAL-IP|LOAD-BALANCER|LOAD-BALANCER-(?:LOCAL|FW|SOURCE-IP|SOURCE-CIDR)|EXTERNAL-IP-LOCAL|NODE-PORT-(?:LOCAL-)?(?:TCP|UDP|SCTP-HASH)|HEALTH-CHECK-NODE-PORT|IPVS-IPS)$/;
const nodePortSet = /^KUBE-(?:6-)?NODE-PORT-(?:LOCAL-)?(TCP|UDP|SCTP)/;

type Protocol = 'TCP' | 'UDP' | 'SCTP';

export interface VirtualServer {
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
  /** As ipvsadm takes it after `-D`. */
  readonly option: string;
}

const protocols: Readonly<Record<string, Protocol>> = { '-t': 'TCP', '-u': 'UDP', '--sctp-service': 'SCTP' };

/** From `ipvsadm -Sn`. Those by firewall mark are never kube-proxy's and are left out. */
export function parseVirtualServers(saved: string): VirtualServer[] {
  return [...saved.matchAll(/^-A (-t|-u|--sctp-service) (\[[^\]]+\]|[^\s:]+):(\d+)(?:\s|$)/gm)].map(
    ([, flag = '', host = '', port = '']) => ({
      protocol: protocols[flag]!,
      address: host.replace(/^\[|\]$/g, ''),
      port: Number(port),
      option: `${flag} ${host}:${port}`,
    }),
  );
}

/** From `ip -o addr show`: the addresses of each device. */
export function parseAddresses(shown: string): Map<string, Set<string>> {
  const byDevice = new Map<string, Set<string>>();
  for (const [, name = '', address = ''] of shown.matchAll(/^\d+: (\S+?)(?:@\S+)? +inet6? ([^\s/]+)/gm)) {
    const addresses = byDevice.get(name) ?? new Set();
    byDevice.set(name, addresses.add(address));
  }
  return byDevice;
}

/** From `ipset save SET` of a set of node ports: `TCP 30080`. */
const parseNodePorts = (set: string, saved: string): string[] =>
  [...saved.matchAll(/^add \S+ (?:\S+:)?(\d+)(?:\s|$)/gm)].map(([, port]) => `${nodePortSet.exec(set)?.[1]} ${port}`);

/** kube-proxy's are those at an address of its device, and at an address of the node those whose port is in its sets of node ports. */
export function kubeVirtualServers(
  servers: readonly VirtualServer[],
  addresses: ReadonlyMap<string, ReadonlySet<string>>,
  nodePorts: ReadonlySet<string>,
): VirtualServer[] {
  const bound = addresses.get(device);
  const local = new Set([...addresses.values()].flatMap((each) => [...each]));
  return servers.filter(
    ({ protocol, address, port }) =>
      bound?.has(address) || (local.has(address) && nodePorts.has(`${protocol} ${port}`)),
  );
}

export interface IpvsCleanupDeps {
  readonly exec: Exec;
  readonly log: Log;
  /** A tool is not there: nothing of its kind can be here either. */
  isMissing(error: unknown): boolean;
  /** Removes the iptables chains that only this mode has; returns what could not be removed, a line each. */
  removeChains(): Promise<readonly string[]>;
}

/** Removes it all; returns what could not be removed, a line each. The device goes last, so that a clean-up cut short is done again. */
export async function cleanupIpvs(deps: IpvsCleanupDeps, signal: AbortSignal): Promise<string[]> {
  const { exec, log } = deps;
  const run = async (command: string, args: readonly string[], input?: string): Promise<string> =>
    (await exec(command, args, input === undefined ? { signal } : { signal, input })).stdout;
  const there = await run('ip', ['link', 'show', device]).then(
    () => true,
    () => false,
  );
  if (!there) return [];

  const failures: string[] = [...(await deps.removeChains())];
  const attempt = async <T>(what: string, fallback: T, action: () => Promise<T>): Promise<T> => {
    try {
      return await action();
    } catch (error) {
      if (deps.isMissing(error))
        log.warn('the tool is not there: this of the IPVS mode stays until the node boots', { what });
      else failures.push(`IPVS: ${what}: ${describeError(error)}`);
      return fallback;
    }
  };

  const addresses = parseAddresses(await attempt('addresses of the node', '', () => run('ip', ['-o', 'addr', 'show'])));
  const sets = (await attempt('sets', '', () => run('ipset', ['list', '-name'])))
    .split('\n')
    .filter((name) => kubeSet.test(name));
  const nodePorts = new Set<string>();
  for (const set of sets.filter((name) => nodePortSet.test(name)))
    for (const port of parseNodePorts(set, await attempt(`set ${set}`, '', () => run('ipset', ['save', set]))))
      nodePorts.add(port);

  const listServers = async (): Promise<VirtualServer[]> => parseVirtualServers(await run('ipvsadm', ['-Sn']));
  await attempt('virtual servers', undefined, async () => {
    const all = await listServers();
    const ours = kubeVirtualServers(all, addresses, nodePorts);
    if (ours.length > 0) {
      // One process for all of them. It goes on after a line that is refused and exits with the last one's code: what is left tells.
      const refusal = await run('ipvsadm', ['-R'], ours.map(({ option }) => `-D ${option}\n`).join('')).then(
        () => undefined,
        (error: unknown) => error,
      );
      const left = kubeVirtualServers(await listServers(), addresses, nodePorts);
      const why = refusal === undefined ? 'ipvsadm gave no reason' : describeError(refusal);
      for (const { option } of left) failures.push(`IPVS: the virtual server ${option} stays: ${why}`);
      log.info('removed virtual servers of the IPVS mode', { removed: ours.length - left.length });
    }
    const others = all.filter((server) => !ours.includes(server)).map(({ option }) => option);
    if (others.length > 0) log.info('virtual servers that are not known to be of kube-proxy stay', { servers: others });
  });
  for (const set of sets) await attempt(`set ${set}`, undefined, () => run('ipset', ['destroy', set]));
  await attempt('device', undefined, async () => {
    await run('ip', ['link', 'delete', device]);
    log.info('removed the device of the IPVS mode', { device });
  });
  return failures;
}
