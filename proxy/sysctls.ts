// The kernel settings a Service proxy needs, set as kube-proxy sets them. A host that does not let us is used as it is, and said once.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describeError, type Log } from '../lib/log.ts';
import type { KubeProxyConfiguration } from './config.ts';

export interface SysctlDeps {
  readonly log: Log;
  /** Where the kernel's settings are; default `/proc/sys` and `/sys`. */
  readonly procSys?: string;
  readonly sys?: string;
}

export interface Setting {
  /** Below /proc/sys, or absolute. */
  readonly path: string;
  readonly value: number;
  /** A higher value that is there already is left. */
  readonly atLeast?: boolean;
}

const mostTracked = 1024 * 1024;

/** nf_conntrack_max: so many for each core, within bounds; 0 leaves it as it is. */
export function conntrackMax(conntrack: KubeProxyConfiguration['conntrack'], cores: number): number {
  if (conntrack.maxPerCore <= 0) return 0;
  const scaled = conntrack.maxPerCore * cores;
  return scaled > mostTracked ? mostTracked : Math.max(scaled, conntrack.min);
}

/** What is to be set, in order. `localhostNodePorts`: node ports answer on 127.0.0.1. */
export function planSysctls(config: KubeProxyConfiguration, cores: number, localhostNodePorts: boolean): Setting[] {
  const { conntrack } = config;
  const max = conntrackMax(conntrack, cores);
  const netfilter = (name: string, value: number): Setting[] =>
    value > 0 ? [{ path: `net/netfilter/${name}`, value }] : [];
  const seconds = (ms: number): number => Math.floor(ms / 1000);
  return [
    ...netfilter('nf_conntrack_max', max),
    ...(max > 0 ? [{ path: '/module/nf_conntrack/parameters/hashsize', value: max / 4, atLeast: true }] : []),
    ...netfilter('nf_conntrack_tcp_timeout_established', seconds(conntrack.tcpEstablishedTimeout)),
    ...netfilter('nf_conntrack_tcp_timeout_close_wait', seconds(conntrack.tcpCloseWaitTimeout)),
    ...netfilter('nf_conntrack_tcp_be_liberal', conntrack.tcpBeLiberal ? 1 : 0),
    ...netfilter('nf_conntrack_udp_timeout', seconds(conntrack.udpTimeout)),
    ...netfilter('nf_conntrack_udp_timeout_stream', seconds(conntrack.udpStreamTimeout)),
    ...(localhostNodePorts ? [{ path: 'net/ipv4/conf/all/route_localnet', value: 1 }] : []),
  ];
}

export interface Sysctls {
  /** Never throws. */
  apply(settings: readonly Setting[]): Promise<void>;
  /** The setting's value below /proc/sys; undefined where it cannot be read. */
  read(path: string): Promise<number | undefined>;
}

export function createSysctls(deps: SysctlDeps): Sysctls {
  const { log, procSys = '/proc/sys', sys = '/sys' } = deps;
  const fileOf = (path: string): string => (path.startsWith('/') ? join(sys, path) : join(procSys, path));
  const read = async (path: string): Promise<number | undefined> => {
    try {
      return Number.parseInt(await readFile(fileOf(path), 'utf8'), 10);
    } catch {
      return undefined;
    }
  };
  return {
    read,
    async apply(settings) {
      const failed: string[] = [];
      for (const { path, value, atLeast } of settings) {
        const before = await read(path);
        if (before === value || (atLeast && before !== undefined && before >= value)) continue;
        try {
          await writeFile(fileOf(path), String(value));
          log.info('set a kernel parameter', { parameter: path, before, value });
        } catch (error) {
          failed.push(`${path}=${value} (${describeError(error)})`);
        }
      }
      if (failed.length > 0)
        log.warn('some kernel parameters could not be set; Services work with what this host has', {
          parameters: failed,
        });
    },
  };
}
