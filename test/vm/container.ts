// The virtual machine's disk, booted by systemd in namespaces of this host instead of under qemu: the same package, units and story at the full speed of the
// processors. Not shown here: cgroup v2, AppArmor, kernel modules, the clock, swap and the memory of the host, which are this host's own.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { exec } from '../../lib/exec.ts';
import { describeError } from '../../lib/log.ts';
import { removeCgroups } from '../lab/cgroups.ts';
import { cacheDir, network, paths } from './image.ts';
import type { Machine } from './machine.ts';

const outerEnd = 'vmtap0';
const script = fileURLToPath(new URL('container-boot.sh', import.meta.url));
const ip = async (...args: string[]): Promise<void> => void (await exec('ip', args));

// nsenter leaves a process in the groups of its caller.
const enterCgroups = 'for group in /sys/fs/cgroup/*/cgroup.procs; do echo $$ >$group; done';

const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const startedMs = performance.now();
  await work();
  return Math.round((performance.now() - startedMs) / 100) / 10;
};

/** `disk`: the raw disk that is copied and written to. Default: the one that image.ts makes. */
export async function startContainer(options: { disk?: string } = {}): Promise<Machine> {
  const work = await mkdtemp(join(cacheDir, 'run-'));
  const name = `stevedore-vm-${basename(work)}`;
  const disk = join(work, 'disk.raw');
  const consoleLog = join(work, 'console.log');
  let parent: ChildProcess | undefined;
  /** Of PID 1, as this host counts. */
  let pid = 0;
  await writeFile(consoleLog, '');
  await exec('cp', ['--sparse=always', options.disk ?? paths.disk, disk], { timeoutMs: 300_000 });
  await ip('link', 'set', 'lo', 'up');

  const inside = (script: string, limits: { timeoutMs?: number; input?: string | Uint8Array } = {}) =>
    exec(
      'nsenter',
      [
        ...['--target', String(pid), '--mount', '--uts', '--ipc', '--net', '--pid', '--cgroup'],
        ...[
          'env',
          '-i',
          'HOME=/root',
          'LANG=C.UTF-8',
          'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        ],
        ...['/bin/bash', '-c', `${enterCgroups}\ncd /root\n${script}`],
      ],
      { timeoutMs: limits.timeoutMs ?? 120_000, ...(limits.input === undefined ? {} : { input: limits.input }) },
    );

  const firstChild = async (): Promise<number> => {
    for (let tries = 0; tries < 500; tries++) {
      const children = await readFile(`/proc/${parent?.pid}/task/${parent?.pid}/children`, 'utf8').catch(() => '');
      const comm = await readFile(`/proc/${parent?.pid}/comm`, 'utf8').catch(() => '');
      if (comm.trim() === 'unshare' && children.trim() !== '') return Number(children.trim().split(' ')[0]);
      await sleep(20);
    }
    throw new Error(`the container did not start: ${await readFile(consoleLog, 'utf8')}`);
  };
  const boot = async (): Promise<void> => {
    const log = await open(consoleLog, 'a');
    parent = spawn('bash', [script, disk, name, consoleLog], {
      stdio: ['ignore', log.fd, log.fd],
      env: { ...process.env, GUEST: `${network.guest}/${network.prefix}`, GATEWAY: network.host },
    });
    await log.close();
    pid = await firstChild();
    await ip('link', 'add', outerEnd, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(pid)).catch(
      async (cause: unknown) => {
        const said = (await readFile(consoleLog, 'utf8')).slice(-3000);
        throw new Error(`the container ended as it began: ${describeError(cause)}; its console: ${said}`, { cause });
      },
    );
    await ip('address', 'add', `${network.host}/${network.prefix}`, 'dev', outerEnd);
    await ip('link', 'set', outerEnd, 'up');
    // Answers to pods come back the way they went; nothing else is routed.
    await ip('route', 'replace', network.pods, 'via', network.guest);
    for (let tries = 0; tries < 300; tries++) {
      const state = await inside('systemctl is-system-running || true', { timeoutMs: 10_000 }).catch(() => undefined);
      if (state && /running|degraded/.test(state.stdout)) return;
      if (parent.exitCode !== null) break;
      await sleep(200);
    }
    throw new Error(`systemd did not come up: ${(await machine.console()).slice(-3000)}`);
  };
  const ended = async (): Promise<void> => {
    const child = parent;
    if (!child) return;
    if (child.exitCode === null && child.signalCode === null)
      await new Promise<void>((resolve) => child.once('exit', () => resolve()));
    await exec('ip', ['link', 'delete', outerEnd]).catch(() => undefined);
    await removeCgroups(name);
  };
  // All that runs inside ends with PID 1, and PID 1 with its parent.
  const kill = async (): Promise<void> => {
    parent?.kill('SIGKILL');
    await ended();
  };
  // For a story that is ended from outside: what is left of a container that has just been killed cannot be waited for but here.
  const lastResort = (): void => {
    parent?.kill('SIGKILL');
    rmSync(work, { recursive: true, force: true });
    const groups = `/sys/fs/cgroup/*/${name}`;
    execFileSync('sh', [
      '-c',
      `for i in $(seq 50); do find ${groups} -depth -type d -exec rmdir {} + 2>/dev/null; ls -d ${groups} >/dev/null 2>&1 || exit 0; sleep 0.1; done`,
    ]);
  };
  process.once('exit', lastResort);

  const machine: Machine = {
    kind: 'container',
    async run(script, limits) {
      return (await inside(`set -e\n${script}`, limits)).stdout;
    },
    async tryRun(script, limits) {
      const { stdout } = await inside(`( ${script}\n) 2>&1; echo "exit $?"`, limits);
      const at = stdout.lastIndexOf('exit ');
      const code = Number(stdout.slice(at + 'exit '.length));
      return { ok: code === 0, code, output: stdout.slice(0, at).trim() };
    },
    put: async (file, to) => void (await inside(`cat > ${to}`, { input: await readFile(file), timeoutMs: 300_000 })),
    reboot: () =>
      timed(async () => {
        await inside('systemctl reboot', { timeoutMs: 20_000 }).catch(() => undefined);
        await ended();
        await boot();
      }),
    powerCut: () =>
      timed(async () => {
        await kill();
        await boot();
      }),
    link: (up) => ip('link', 'set', outerEnd, up ? 'up' : 'down'),
    console: () => readFile(consoleLog, 'utf8').catch(() => ''),
    async stop() {
      await kill();
      process.off('exit', lastResort);
      await rm(work, { recursive: true, force: true });
    },
  };
  try {
    await boot();
    return machine;
  } catch (error) {
    await machine.stop();
    throw error;
  }
}
