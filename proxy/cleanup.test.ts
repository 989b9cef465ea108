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
  readonly sets?: readonly string[];
  /** Lines of the nat table. */
  readonly nat?: readonly string[];
  /** Tools that are not there. */
  readonly missing?: readonly string[];
}

function setUp({ tables = [], device = false, sets = [], nat = [], missing = [] }: Host) {
  const ran: string[] = [];
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
      return said('');
    }
    if (command === 'ipset') {
      if (args[0] === 'list') return said(`${sets.join('\n')}\n`);
      ran.push(line);
      return said('');
    }
    if (args[0] === '--version')
      return said(`${command} v1.8.9 (${command.includes('legacy') ? 'legacy' : 'nf_tables'})`);
    if (command.endsWith('-save'))
      return said(command.startsWith('ip6') ? '' : `*nat\n${nat.join('\n')}\nCOMMIT\n*filter\nCOMMIT\n`);
    if (command.endsWith('-restore')) ran.push(String(options?.input));
    else if (command === 'ipvsadm') ran.push(line);
    return said('');
  };
  return { ran, deps: { exec, clock: createFakeClock(), log: silentLog } };
}

const ipvs: Host = {
  device: true,
  sets: ['KUBE-CLUSTER-IP', 'KUBE-6-NODE-PORT-LOCAL-TCP', 'KUBE-MINE', 'others'],
  nat: [
    ':KUBE-SERVICES - [0:0]',
    ':KUBE-NODE-PORT - [0:0]',
    '-A PREROUTING -j KUBE-SERVICES',
    '-A PREROUTING -j KUBE-NODE-PORT',
  ],
};

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
      'ip link delete kube-ipvs0',
      'ipvsadm -C',
      'ipset destroy KUBE-CLUSTER-IP',
      'ipset destroy KUBE-6-NODE-PORT-LOCAL-TCP',
    ]);
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
    expect(left).toEqual([expect.stringContaining('IPVS: ')]);
  });
});
