// The virtual machine: qemu on emulated processors, a serial console into a file, one network link to the namespace it is started in, ssh over it.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { exec, type ExecResult } from '../../lib/exec.ts';
import { cacheDir, network, paths } from './image.ts';

export interface Machine {
  /** A container (container.ts) has cgroup version 1, and much of its host's kernel. */
  readonly kind: 'vm' | 'container';
  /** Runs a shell script in the machine as root. Rejects where it fails. */
  run(script: string, options?: { timeoutMs?: number; input?: string | Uint8Array }): Promise<string>;
  /** As `run`, but a script that fails resolves too, with what it said. */
  tryRun(script: string, options?: { timeoutMs?: number }): Promise<{ ok: boolean; code: number; output: string }>;
  /** Copies a file of this host into the machine. */
  put(file: string, to: string): Promise<void>;
  /** Restarts it as an operator would; resolves when ssh answers again from the new boot. Returns the seconds it took. */
  reboot(): Promise<number>;
  /** Power cut: qemu is killed, and started again on the same disk. */
  powerCut(): Promise<number>;
  /** Takes the link down, or brings it up again. */
  link(up: boolean): Promise<void>;
  console(): Promise<string>;
  stop(): Promise<void>;
}

export interface MachineOptions {
  readonly memoryMb?: number;
  /** Default 2. */
  readonly cpus?: number;
  /** The raw disk below the overlay that the machine writes to. Default: the one that image.ts makes. */
  readonly disk?: string;
}

const tap = 'vmtap0';
const ip = (...args: string[]): Promise<ExecResult> => exec('ip', args);

/** The link's own namespace is this process's: it has loopback and the tap, and nothing that leads out. */
async function makeLink(): Promise<void> {
  await ip('link', 'set', 'lo', 'up');
  await ip('link', 'delete', tap).catch(() => undefined);
  await ip('tuntap', 'add', 'dev', tap, 'mode', 'tap');
  await ip('address', 'add', `${network.host}/${network.prefix}`, 'dev', tap);
  await ip('link', 'set', tap, 'up');
  // Answers to pods come back the way they went; nothing else is routed.
  await ip('route', 'replace', network.pods, 'via', network.guest);
}

export async function startMachine(options: MachineOptions = {}): Promise<Machine> {
  const work = await mkdtemp(join(cacheDir, 'run-'));
  // A socket's path is short.
  const sockets = await mkdtemp(join(tmpdir(), 'svm-'));
  const disk = join(work, 'disk.qcow2');
  const consoleLog = join(work, 'console.log');
  let qemu: ChildProcess | undefined;
  await makeLink();
  await exec('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', options.disk ?? paths.disk, '-F', 'raw', disk]);

  const startQemu = async (): Promise<void> => {
    const errors = await open(join(work, 'qemu.log'), 'a');
    qemu = spawn(
      'qemu-system-x86_64',
      [
        ...['-nodefaults', '-no-user-config', '-display', 'none', '-machine', 'q35'],
        // Five levels of page tables would only make each miss of the emulated TLB dearer.
        ...['-accel', 'tcg,thread=multi,tb-size=512', '-cpu', 'max,la57=off', '-smp', String(options.cpus ?? 2)],
        ...['-m', String(options.memoryMb ?? 2048), '-kernel', paths.kernel, '-initrd', paths.initrd],
        ...['-append', 'root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 apparmor=1 security=apparmor panic=5'],
        ...['-drive', `file=${disk},if=virtio,format=qcow2,cache=unsafe,discard=unmap`],
        ...['-netdev', `tap,id=n0,ifname=${tap},script=no,downscript=no`, '-device', 'virtio-net-pci,netdev=n0'],
        ...[
          '-device',
          'virtio-rng-pci',
          '-chardev',
          `file,id=c0,path=${consoleLog},append=on`,
          '-serial',
          'chardev:c0',
        ],
      ],
      { stdio: ['ignore', errors.fd, errors.fd] },
    );
    await errors.close();
  };
  const killQemu = async (): Promise<void> => {
    const child = qemu;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const done = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGKILL');
    await done;
  };
  const lastResort = (): void => void qemu?.kill('SIGKILL');
  process.once('exit', lastResort);

  const ssh = (script: string, limits: { timeoutMs?: number; input?: string | Uint8Array; fresh?: boolean } = {}) =>
    exec(
      'ssh',
      [
        ...['-i', paths.sshKey, '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null'],
        ...[
          '-o',
          'LogLevel=ERROR',
          '-o',
          'BatchMode=yes',
          '-o',
          'ConnectTimeout=40',
          '-o',
          'ServerAliveInterval=15',
          '-o',
          'ServerAliveCountMax=12',
        ],
        ...(limits.fresh
          ? []
          : ['-o', 'ControlMaster=auto', '-o', `ControlPath=${sockets}/s`, '-o', 'ControlPersist=60']),
        `root@${network.guest}`,
        script,
      ],
      { timeoutMs: limits.timeoutMs ?? 120_000, ...(limits.input === undefined ? {} : { input: limits.input }) },
    );
  // The shared connection of a boot that has ended would only hang.
  const forget = async (): Promise<void> => {
    await exec('ssh', ['-O', 'exit', '-o', `ControlPath=${sockets}/s`, `root@${network.guest}`]).catch(() => undefined);
    await rm(join(sockets, 's'), { force: true });
  };
  const bootId = async (): Promise<string> =>
    (await ssh('cat /proc/sys/kernel/random/boot_id', { fresh: true, timeoutMs: 40_000 })).stdout.trim();

  /** Until ssh answers from a boot other than this one. */
  const awaitBoot = async (before: string): Promise<string> => {
    for (let tries = 0; tries < 200; tries++) {
      const now = await bootId().catch(() => before);
      if (now !== before) return now;
      if (qemu?.exitCode !== null) throw new Error(`qemu ended: ${await readFile(join(work, 'qemu.log'), 'utf8')}`);
      await sleep(2_000);
    }
    throw new Error(
      `the machine did not answer by ssh; its console ends with\n${(await machine.console()).slice(-3000)}`,
    );
  };
  const timed = async (work: () => Promise<unknown>): Promise<number> => {
    const startedMs = performance.now();
    await work();
    return Math.round((performance.now() - startedMs) / 100) / 10;
  };
  let boot = '';

  const machine: Machine = {
    kind: 'vm',
    async run(script, limits) {
      return (await ssh(`set -e\n${script}`, limits)).stdout;
    },
    async tryRun(script, limits) {
      const { stdout } = await ssh(`( ${script}\n) 2>&1; echo "exit $?"`, limits);
      const at = stdout.lastIndexOf('exit ');
      const code = Number(stdout.slice(at + 'exit '.length));
      return { ok: code === 0, code, output: stdout.slice(0, at).trim() };
    },
    async put(file, to) {
      await ssh(`cat > ${to}`, { input: await readFile(file), timeoutMs: 300_000 });
    },
    reboot: () =>
      timed(async () => {
        await ssh('systemctl reboot', { timeoutMs: 20_000 }).catch(() => undefined);
        await forget();
        boot = await awaitBoot(boot);
      }),
    powerCut: () =>
      timed(async () => {
        await killQemu();
        await forget();
        await startQemu();
        boot = await awaitBoot(boot);
      }),
    link: async (up) => void (await ip('link', 'set', tap, up ? 'up' : 'down')),
    console: () => readFile(consoleLog, 'utf8').catch(() => ''),
    async stop() {
      await forget();
      await killQemu();
      process.off('exit', lastResort);
      await ip('link', 'delete', tap).catch(() => undefined);
      await rm(work, { recursive: true, force: true });
      await rm(sockets, { recursive: true, force: true });
    },
  };
  try {
    await startQemu();
    boot = await awaitBoot('');
    return machine;
  } catch (error) {
    await machine.stop();
    throw error;
  }
}
