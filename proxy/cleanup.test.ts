// What is taken away of another mode, ours or a kube-proxy's, by the commands that are run.
import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { ExecError } from '../lib/exec.ts';
import { silentLog } from '../lib/log.ts';
import { cleanupOtherMode, cleanupProxy } from './cleanup.ts';
import type { Exec } from './iptables/tool.ts';

const { signal } = new AbortController();

interface Host {
  readonly tables?: readonly string[];
  readonly device?: boolean;
  /** ipset's sets by name, with their elements. */
  readonly sets?: Readonly<Record<string, readonly string[]>>;
  /** Virtual servers, as ipvsadm writes them. */
  readonly servers?: readonly string[];
  /** ipvsadm does not delete this one. */
  readonly stuck?: string;
  /** Lines of the nat table. */
  readonly nat?: readonly string[];
  /** Tools that are not there. */
  readonly missing?: readonly string[];
}

const shownAddresses = `1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
1: lo    inet6 ::1/128 scope host \\       valid_lft forever preferred_lft forever
2: eth0@if7    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever preferred_lft forever
9: kube-ipvs0    inet 10.96.0.1/32 scope global kube-ipvs0\\       valid_lft forever preferred_lft forever
9: kube-ipvs0    inet 198.51.100.7/32 scope global kube-ipvs0\\       valid_lft forever preferred_lft forever
9: kube-ipvs0    inet6 fd00::1/128 scope global \\       valid_lft forever preferred_lft forever
`;

function setUp({ tables = [], device = false, sets = {}, servers = [], stuck, nat = [], missing = [] }: Host) {
  const ran: string[] = [];
  let virtual = [...servers];
  const failed = (command: string, stderr: string): ExecError =>
    new ExecError(command, 'failed', stderr, { stderr, exitCode: 1 });
  const exec: Exec = (command, args, options) => {
    const line = [command, ...args].join(' ');
    if (missing.includes(command)) return Promise.reject(new ExecError(command, 'not-found', 'no such program'));
    const said = (stdout: string) => Promise.resolve({ stdout, stderr: '' });
    if (command === 'nft') {
      ran.push(line);
      return tables.includes(line) ? said('') : Promise.reject(failed(line, 'Error: No such file or directory'));
    }
    if (command === 'ip') {
      if (!device) return Promise.reject(failed(line, 'does not exist'));
      if (args[1] === 'delete') ran.push(line);
      return said(args[1] === 'addr' ? shownAddresses : '');
    }
    if (command === 'ipset') {
      const [verb, set = ''] = args;
      if (verb === 'list') return said(`${Object.keys(sets).join('\n')}\n`);
      if (verb === 'save')
        return said(
          `create ${set} bitmap:port range 0-65535\n${sets[set]!.map((each) => `add ${set} ${each}\n`).join('')}`,
        );
      ran.push(line);
      return said('');
    }
    if (command === 'ipvsadm') {
      if (args[0] === '-Sn')
        return said(virtual.map((each) => `-A ${each} -s rr\n-a ${each} -r 10.1.0.2:8080 -m -w 1\n`).join(''));
      ran.push(`${line}\n${String(options?.input)}`);
      const deleted = String(options?.input).split('\n');
      virtual = virtual.filter((each) => each === stuck || !deleted.includes(`-D ${each}`));
      return stuck === undefined ? said('') : Promise.reject(failed(line, 'Permission denied'));
    }
    if (args[0] === '--version')
      return said(`${command} v1.8.9 (${command.includes('legacy') ? 'legacy' : 'nf_tables'})`);
    if (command.endsWith('-save'))
      return said(command.startsWith('ip6') ? '' : `*nat\n${nat.join('\n')}\nCOMMIT\n*filter\nCOMMIT\n`);
    if (command.endsWith('-restore')) ran.push(String(options?.input));
    return said('');
  };
  return { ran, virtual: () => virtual, deps: { exec, clock: createFakeClock(), log: silentLog } };
}

const ipvs: Host = {
  device: true,
  sets: {
    'KUBE-CLUSTER-IP': ['10.96.0.1,tcp:443'],
    'KUBE-NODE-PORT-TCP': ['30080'],
    'KUBE-NODE-PORT-SCTP-HASH': ['192.0.2.1,sctp:30090'],
    'KUBE-MINE': [],
    others: ['30100'],
  },
  servers: [
    '-t 10.96.0.1:443',
    '-u 198.51.100.7:53',
    '-t [fd00::1]:443',
    '-t 192.0.2.1:30080',
    '-u 192.0.2.1:30080',
    '--sctp-service 192.0.2.1:30090',
    '-t 192.0.2.1:30100',
    '-t 203.0.113.9:30080',
    '-f 7',
  ],
  nat: [
    ':KUBE-SERVICES - [0:0]',
    ':KUBE-NODE-PORT - [0:0]',
    '-A PREROUTING -j KUBE-SERVICES',
    '-A PREROUTING -j KUBE-NODE-PORT',
  ],
};

/** The servers that are kube-proxy's: at its device's addresses, and at the node's with a port of a set. */
const kubes = [
  '-t 10.96.0.1:443',
  '-u 198.51.100.7:53',
  '-t [fd00::1]:443',
  '-t 192.0.2.1:30080',
  '--sctp-service 192.0.2.1:30090',
];

describe('cleaning up', () => {
  it.each(['nftables', 'iptables'] as const)('on %s, tables of a kube-proxy on nftables go', async (mode) => {
    const { ran, deps } = setUp({ tables: ['nft delete table ip kube-proxy', 'nft delete table ip6 kube-proxy'] });
    expect(await cleanupOtherMode(deps, mode, signal)).toEqual([]);
    expect(ran).toContain('nft delete table ip kube-proxy');
    expect(ran).toContain('nft delete table ip6 kube-proxy');
    expect(ran.includes('nft delete table ip stevedore')).toBe(mode === 'iptables');
  });

  it('on iptables, what the IPVS mode left goes, and the chains that are ours stay', async () => {
    const { ran, deps } = setUp(ipvs);
    expect(await cleanupOtherMode(deps, 'iptables', signal)).toEqual([]);
    expect(ran.filter((line) => !line.startsWith('nft'))).toEqual([
      '*nat\n:KUBE-NODE-PORT - [0:0]\n-D PREROUTING -j KUBE-NODE-PORT\n-X KUBE-NODE-PORT\nCOMMIT\n',
      `ipvsadm -R\n${kubes.map((each) => `-D ${each}\n`).join('')}`,
      'ipset destroy KUBE-CLUSTER-IP',
      'ipset destroy KUBE-NODE-PORT-TCP',
      'ipset destroy KUBE-NODE-PORT-SCTP-HASH',
      'ip link delete kube-ipvs0',
    ]);
  });

  it('virtual servers that kube-proxy did not make stay', async () => {
    const { virtual, deps } = setUp(ipvs);
    expect(await cleanupProxy(deps, { kubeProxy: true }, signal)).toEqual([]);
    expect(virtual()).toEqual(ipvs.servers?.filter((each) => !kubes.includes(each)));
    const others = setUp({ ...ipvs, servers: ['-t 192.0.2.1:80', '-f 7'] });
    expect(await cleanupProxy(others.deps, { kubeProxy: true }, signal)).toEqual([]);
    expect(others.ran.filter((line) => line.startsWith('ipvsadm'))).toEqual([]);
  });

  it('one that cannot be deleted is told, and what comes after it goes all the same', async () => {
    const { ran, deps } = setUp({ ...ipvs, stuck: '-t [fd00::1]:443' });
    expect(await cleanupOtherMode(deps, 'nftables', signal)).toEqual([
      expect.stringMatching(/^IPVS: the virtual server -t \[fd00::1\]:443 stays: .*Permission denied/),
    ]);
    expect(ran).toContain('ipset destroy KUBE-CLUSTER-IP');
    expect(ran).toContain('ip link delete kube-ipvs0');
  });

  it('where that mode did not run, its tools are not asked', async () => {
    const { ran, deps } = setUp({ ...ipvs, device: false });
    expect(await cleanupOtherMode(deps, 'iptables', signal)).toEqual([]);
    expect(ran.filter((line) => !line.startsWith('nft'))).toEqual([]);
  });

  it('tools that are not there are no failure; what they refuse is', async () => {
    const { deps } = setUp({ ...ipvs, missing: ['ipvsadm', 'ipset'] });
    expect(await cleanupProxy(deps, { kubeProxy: true }, signal)).toEqual([]);
    const refusing: Exec = (command, args, options) =>
      command === 'ipvsadm'
        ? Promise.reject(new ExecError('ipvsadm', 'failed', 'no permission'))
        : deps.exec(command, args, options);
    const left = await cleanupOtherMode({ ...deps, exec: refusing }, 'nftables', signal);
    expect(left).toEqual([expect.stringContaining('IPVS: virtual servers')]);
  });
});
