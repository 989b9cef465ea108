// Hosts made of network namespaces: each has loopback up, links to others by veth pairs, and `unreachable` routes for the pod and service
// ranges, so that no packet of a test leaves the machine. A Node process cannot change its own namespace: run children with `spawn`.
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { exec, type ExecOptions, type ExecResult } from '../../lib/exec.ts';

/** Ranges that must never leave a lab host. */
export const labRanges: readonly string[] = ['10.96.0.0/12', '10.192.0.0/10', 'fd00:10:96::/108', 'fd00:10:244::/56'];

export interface LabLink {
  /** The interface's name on this side. */
  readonly device: string;
  /** This side's addresses, without prefix length. */
  readonly ipv4: string;
  readonly ipv6: string;
  /** The other side's. */
  readonly peerIpv4: string;
  readonly peerIpv6: string;
}

export interface LabHostOptions {
  /** Ranges made unreachable, besides what has a route of its own. Default `labRanges`. */
  readonly unreachable?: readonly string[];
  /** Forward packets between interfaces, as a node does. Default true. */
  readonly forward?: boolean;
}

export interface LabHost {
  /** Name in /run/netns; unique. */
  readonly name: string;
  readonly netnsPath: string;
  /** Runs a program in the host's network to its end. */
  exec(command: string, args: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** Starts a program in the host's network; it is ended by `stop`. */
  spawn(command: string, args: readonly string[], options?: SpawnOptions): ChildProcess;
  /** Starts a TypeScript file on the pinned Node in the host's network. */
  node(file: string, args?: readonly string[], options?: SpawnOptions): ChildProcess;
  /** The command line that runs something in this network: put it before a program's own. */
  readonly enter: readonly string[];
  /** Connects to another host with a veth pair; both ends get an address of each family and a default route is left alone. */
  link(other: LabHost): Promise<LabLink>;
  /** Global addresses of the host's interfaces, loopback left out. */
  addresses(): Promise<string[]>;
  /** Ends what was started here and takes the namespace away. Safe to call twice. */
  stop(): Promise<void>;
}

const pinnedNode = fileURLToPath(new URL('../../node_modules/node/bin/node', import.meta.url));

// Links of one process draw their subnets from one row, seeded at random so that files of tests do not meet.
let nextSubnet = randomBytes(2).readUInt16BE() % 0x3000;

function subnet(): { a4: string; b4: string; a6: string; b6: string } {
  const number = nextSubnet++ % 0x4000;
  const v4 = `172.${20 + (number >> 12)}.${(number >> 4) & 0xff}`;
  const low = (number & 0xf) * 16;
  const v6 = `fd5e:${(number + 1).toString(16)}::`;
  return { a4: `${v4}.${low + 1}`, b4: `${v4}.${low + 2}`, a6: `${v6}1`, b6: `${v6}2` };
}

async function endProcesses(name: string, children: ReadonlySet<ChildProcess>): Promise<void> {
  for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
  // Everything that still lives in this namespace was started by the test: the name is ours alone.
  for (let round = 0; round < 40; round++) {
    const { stdout } = await exec('ip', ['netns', 'pids', name]).catch(() => ({ stdout: '' }));
    const pids = stdout.split('\n').filter(Boolean).map(Number);
    if (pids.length === 0) return;
    if (round >= 20) for (const pid of pids) kill(pid);
    await sleep(50);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended meanwhile.
  }
}

async function prepare(name: string, options: LabHostOptions): Promise<void> {
  const inside = (...args: string[]) => exec('nsenter', [`--net=/run/netns/${name}`, ...args]);
  await inside('ip', 'link', 'set', 'lo', 'up');
  if (options.forward ?? true) {
    await inside('sysctl', '-qw', 'net.ipv4.ip_forward=1');
    await inside('sysctl', '-qw', 'net.ipv6.conf.all.forwarding=1');
  }
  await inside('sysctl', '-qw', 'net.ipv6.conf.default.accept_dad=0');
  for (const range of options.unreachable ?? labRanges) {
    const family = range.includes(':') ? '-6' : '-4';
    await inside('ip', family, 'route', 'add', 'unreachable', range, 'metric', '4278198272');
  }
}

/** Makes a host. `name` only helps reading; the namespace's own name is unique. Needs root. */
export async function createLabHost(name: string, options: LabHostOptions = {}): Promise<LabHost> {
  const unique = `sv-${name.slice(0, 20)}-${randomBytes(3).toString('hex')}`;
  const netnsPath = `/run/netns/${unique}`;
  const enter = ['nsenter', `--net=${netnsPath}`, '--'] as const;
  const children = new Set<ChildProcess>();
  let stopped: Promise<void> | undefined;
  await exec('ip', ['netns', 'add', unique]);

  // A test file that dies must not leave the namespace behind: without processes, unmounting and unlinking the name ends it.
  const lastResort = (): void => {
    for (const child of children) child.kill('SIGKILL');
    try {
      process.getBuiltinModule('node:child_process').spawnSync('umount', [netnsPath]);
      rmSync(netnsPath, { force: true });
    } catch {
      // Nothing more can be done while exiting.
    }
  };
  process.once('exit', lastResort);

  const tearDown = async (): Promise<void> => {
    await endProcesses(unique, children);
    await exec('ip', ['netns', 'del', unique]).catch(() => undefined);
    process.off('exit', lastResort);
  };

  const host: LabHost = {
    name: unique,
    netnsPath,
    enter,
    exec: (command, args, execOptions) => exec(enter[0], [...enter.slice(1), command, ...args], execOptions),
    spawn(command, args, spawnOptions = {}) {
      const child = spawn(enter[0], [...enter.slice(1), command, ...args], spawnOptions);
      children.add(child);
      child.once('exit', () => children.delete(child));
      return child;
    },
    node: (file, args = [], spawnOptions = {}) => host.spawn(pinnedNode, [file, ...args], spawnOptions),
    async link(other) {
      const { a4, b4, a6, b6 } = subnet();
      const id = randomBytes(3).toString('hex');
      const [mine, theirs] = [`l${id}a`, `l${id}b`];
      await exec('ip', [
        'link',
        'add',
        mine,
        'netns',
        unique,
        'type',
        'veth',
        'peer',
        'name',
        theirs,
        'netns',
        other.name,
      ]);
      const ends: readonly [LabHost, string, string, string][] = [
        [host, mine, a4, a6],
        [other, theirs, b4, b6],
      ];
      for (const [end, device, v4, v6] of ends) {
        await end.exec('ip', ['addr', 'add', `${v4}/28`, 'dev', device]);
        await end.exec('ip', ['-6', 'addr', 'add', `${v6}/64`, 'dev', device, 'nodad']);
        await end.exec('ip', ['link', 'set', device, 'up']);
      }
      return { device: mine, ipv4: a4, ipv6: a6, peerIpv4: b4, peerIpv6: b6 };
    },
    async addresses() {
      const { stdout } = await host.exec('ip', ['-j', 'addr', 'show', 'scope', 'global']);
      const links = JSON.parse(stdout) as { addr_info?: { local?: string }[] }[];
      return links.flatMap(({ addr_info = [] }) => addr_info.flatMap(({ local }) => (local ? [local] : [])));
    },
    stop: () => (stopped ??= tearDown()),
  };
  try {
    await prepare(unique, options);
  } catch (error) {
    await host.stop();
    throw error;
  }
  return host;
}
