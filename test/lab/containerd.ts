// A private containerd for tests: its own root, state, socket, streaming port, CNI network and plugins under one folder, and nothing
// of it left after `stop`.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pauseImage, pauseImageName } from '../../cri/local-images.ts';
import { createCriRuntime } from '../../cri/containerd/cri-runtime.ts';
import { systemClock } from '../../lib/clock.ts';
import { exec } from '../../lib/exec.ts';
import { silentLog } from '../../lib/log.ts';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { bridgeNetwork, containerdConfig, type ContainerdFolders } from './containerd-config.ts';
import { removeHostPorts } from './host-ports.ts';
import { listProcesses, signalProcess, waitForEnd, withDescendants } from './process-tree.ts';

/** Where a containerd 2.x may be: a folder with containerd, its shim and ctr. */
export const containerd2Folder = process.env.STEVEDORE_CONTAINERD2 ?? '';
export const hasContainerd2 = (): boolean =>
  containerd2Folder !== '' && existsSync(join(containerd2Folder, 'containerd'));

export interface ContainerdOptions {
  /** Its own; made where it is missing. Keep the path short: sockets below it may have 107 bytes. */
  readonly dir: string;
  /** `1.6` is the host's (Debian 12), `2.x` that of containerd2Folder. Default `1.6`. */
  readonly binary?: '1.6' | '2.x';
  /** A network namespace by name (of /run/netns) or path, in which the bridge, the streaming server and host ports live. Default: the caller's. */
  readonly netns?: string;
  /** One range, or one for each family. Default: a random 10.200–10.249.x.0/24. */
  readonly podCidr?: string | readonly string[];
  /** Masquerade what leaves the pods' range. Default false. */
  readonly ipMasq?: boolean;
  readonly mtu?: number;
  /** Default 127.0.0.1, on a port that is free. */
  readonly streamingAddress?: string;
  readonly streamingPort?: number;
  /** Without a network configuration the runtime reports NetworkReady=false until `writeNetwork` is called. Default true. */
  readonly network?: boolean;
  /** The runc to use. Default: the host's. */
  readonly runc?: string;
}

export interface Containerd {
  /** Path of the socket; the endpoint is `unix://` and this. */
  readonly socket: string;
  readonly endpoint: string;
  readonly dir: string;
  /** `host:port` of the runtime's streaming server. */
  readonly streamingAddress: string;
  readonly bridge: string;
  readonly podCidrs: readonly string[];
  readonly logPath: string;
  /** `certs.d`: a folder for each registry, with its hosts.toml. */
  readonly registryDir: string;
  /** Pid of the daemon. */
  pid(): number;
  /** Imports a docker or OCI archive for the CRI. */
  importImage(tarPath: string): Promise<void>;
  /** Runs `ctr --namespace k8s.io`; resolves with its output. */
  ctr(args: readonly string[]): Promise<string>;
  writeNetwork(): Promise<void>;
  /** Ends the daemon as a crash would, leaving containers running, and starts it again. */
  restart(signal?: NodeJS.Signals): Promise<void>;
  /** Ends containers, shims and the daemon, and removes all that was made. */
  stop(): Promise<void>;
  /** The last part of the daemon's log, for a failing test to print. */
  tailLog(): Promise<string>;
}

const cniPlugins = ['/usr/lib/cni', '/opt/cni/bin'];

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });

const answers = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(path);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });

function foldersOf(dir: string): ContainerdFolders & { readonly log: string; readonly images: string } {
  return {
    root: join(dir, 'root'),
    state: join(dir, 'state'),
    opt: join(dir, 'opt'),
    cniConf: join(dir, 'net.d'),
    cniBin: join(dir, 'cni-bin'),
    ipam: join(dir, 'ipam'),
    registry: join(dir, 'certs.d'),
    images: join(dir, 'images'),
    socket: join(dir, 'containerd.sock'),
    log: join(dir, 'containerd.log'),
  };
}

/** Mount points below a folder, the deepest last. */
async function mountsBelow(dir: string): Promise<string[]> {
  const table = await readFile('/proc/self/mountinfo', 'utf8');
  return table
    .split('\n')
    .map((line) => (line.split(' ')[4] ?? '').replaceAll('\\040', ' '))
    .filter((path) => path.startsWith(`${dir}/`));
}

/** Ends and removes what a containerd under `dir` left, whoever started it; also what a killed test run left behind. */
export async function cleanContainerd(dir: string, netns?: string): Promise<void> {
  const folders = foldersOf(dir);
  const processes = await listProcesses();
  // Both the daemon (--config DIR/…) and its shims (-address SOCKET) name the folder.
  const config = join(dir, 'config.toml');
  const own = processes.filter(({ command }) => command.includes(config) || command.includes(folders.socket));
  const roots = own.filter(({ pid }) => pid !== process.pid).map(({ pid }) => pid);
  const all = withDescendants(processes, roots);
  for (const pid of all) signalProcess(pid, 'SIGKILL');
  if (!(await waitForEnd(all, 10_000))) throw new Error(`processes of the containerd in ${dir} do not end: ${all}`);
  for (const path of (await mountsBelow(dir)).toReversed()) await exec('umount', ['-l', path]).catch(() => undefined);
  const left = await mountsBelow(dir);
  if (left.length > 0) throw new Error(`not removing ${dir}: still mounted below it: ${left.join(', ')}`);
  const bridge = await readFile(join(dir, 'bridge'), 'utf8').catch(() => undefined);
  if (bridge) {
    await inNetns(netns, 'ip', ['link', 'delete', bridge]).catch(() => undefined);
    await removeHostPorts((command, args) => inNetns(netns, command, args), bridge).catch(() => undefined);
  }
  await rm(dir, { recursive: true, force: true });
}

const netnsPath = (netns: string): string => (netns.startsWith('/') ? netns : `/run/netns/${netns}`);

function inNetns(netns: string | undefined, command: string, args: readonly string[]) {
  return netns === undefined
    ? exec(command, args)
    : exec('nsenter', [`--net=${netnsPath(netns)}`, '--', command, ...args]);
}

/** Starts a containerd of one's own; on failure nothing is left. Needs root. */
export async function startContainerd(options: ContainerdOptions): Promise<Containerd> {
  const { dir, binary = '1.6', netns } = options;
  await cleanContainerd(dir, netns);
  try {
    return await start(options, dir, binary, netns);
  } catch (error) {
    const log = await readFile(foldersOf(dir).log, 'utf8').catch(() => '');
    await cleanContainerd(dir, netns);
    throw new Error(`containerd ${binary} did not start in ${dir}; its log ends:\n${log.slice(-3000)}`, {
      cause: error,
    });
  }
}

async function start(
  options: ContainerdOptions,
  dir: string,
  binary: '1.6' | '2.x',
  netns: string | undefined,
): Promise<Containerd> {
  const folders = foldersOf(dir);
  for (const path of [folders.root, folders.state, folders.opt, folders.cniConf, folders.registry, folders.images])
    await mkdir(path, { recursive: true });
  const plugins = cniPlugins.find((path) => existsSync(join(path, 'bridge')));
  if (!plugins) throw new Error(`no CNI plugins in ${cniPlugins.join(' or ')}: install containernetworking-plugins`);
  await symlink(plugins, folders.cniBin);

  const bin = binary === '2.x' ? containerd2Folder : '/usr/bin';
  const path = `${bin}:${process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin'}`;
  const streamingHost = options.streamingAddress ?? '127.0.0.1';
  const streamingPort = options.streamingPort ?? (await freePort());
  const configPath = join(dir, 'config.toml');
  await writeFile(
    configPath,
    containerdConfig(folders, {
      version: binary === '2.x' ? 3 : 2,
      sandboxImage: pauseImageName,
      runc: options.runc ?? '/usr/sbin/runc',
      streamingAddress: streamingHost,
      streamingPort,
    }),
  );

  const random = randomBytes(4);
  const bridge = `sv${random.toString('hex')}`;
  const podCidrs =
    options.podCidr === undefined
      ? [`10.${200 + (random[0]! % 50)}.${random[1]!}.0/24`]
      : typeof options.podCidr === 'string'
        ? [options.podCidr]
        : options.podCidr;
  await writeFile(join(dir, 'bridge'), bridge);
  const writeNetwork = (): Promise<void> =>
    writeFile(
      join(folders.cniConf, '10-bridge.conflist'),
      bridgeNetwork({
        bridge,
        podCidrs,
        ipamDir: folders.ipam,
        ipMasq: options.ipMasq ?? false,
        mtu: options.mtu,
      }),
    );
  if (options.network !== false) await writeNetwork();

  const ctr = async (args: readonly string[]): Promise<string> => {
    const all = ['--address', folders.socket, '--namespace', 'k8s.io', ...args];
    return (await exec(join(bin, 'ctr'), all, { env: { PATH: path } })).stdout;
  };

  let pid = 0;
  const launch = async (): Promise<void> => {
    await rm(folders.socket, { force: true });
    const log = await open(folders.log, 'a');
    const command = [join(bin, 'containerd'), '--config', configPath];
    const [program, ...args] =
      netns === undefined ? command : ['nsenter', `--net=${netnsPath(netns)}`, '--', ...command];
    const child = spawn(program!, args, { stdio: ['ignore', log.fd, log.fd], env: { ...process.env, PATH: path } });
    await log.close();
    let ended: string | undefined;
    child.on('exit', (code, signal) => {
      ended = `exit ${code ?? signal}`;
    });
    child.on('error', (error) => {
      ended = error.message;
    });
    child.unref();
    pid = child.pid ?? 0;
    for (const until = performance.now() + 60_000; ; await sleep(30)) {
      if (ended !== undefined) throw new Error(`the daemon ended: ${ended}`);
      if ((await answers(folders.socket)) && (await criServes(ctr))) return;
      if (performance.now() > until) throw new Error('the daemon does not answer within 60 s');
    }
  };
  await launch();

  const importImage = async (tarPath: string): Promise<void> => {
    await ctr(['images', 'import', tarPath]);
  };
  const pauseTar = join(folders.images, 'pause.tar');
  await writeFile(pauseTar, imageArchive([pauseImage(imageArchitecture())]));
  await importImage(pauseTar);

  return {
    socket: folders.socket,
    endpoint: `unix://${folders.socket}`,
    dir,
    streamingAddress: `${streamingHost}:${streamingPort}`,
    bridge,
    podCidrs,
    logPath: folders.log,
    registryDir: folders.registry,
    pid: () => pid,
    importImage,
    ctr,
    writeNetwork,
    async restart(signal = 'SIGKILL') {
      signalProcess(pid, signal);
      if (!(await waitForEnd([pid], 20_000))) throw new Error(`containerd ${pid} does not end on ${signal}`);
      await launch();
    },
    async stop() {
      await removeSandboxes(`unix://${folders.socket}`);
      await removeTasks(ctr);
      signalProcess(pid, 'SIGTERM');
      await waitForEnd([pid], 5_000);
      await cleanContainerd(dir, netns);
    },
    tailLog: async () => (await readFile(folders.log, 'utf8').catch(() => '')).slice(-5000),
  };
}

async function criServes(ctr: (args: readonly string[]) => Promise<string>): Promise<boolean> {
  try {
    const plugins = await ctr(['plugins', 'ls']);
    return plugins.split('\n').some((line) => /io\.containerd\.grpc\.v1\s+cri\s.*\sok/.test(line));
  } catch {
    return false;
  }
}

/** The CRI's own way, where it still works: host ports and addresses are given back through CNI. */
async function removeSandboxes(endpoint: string): Promise<void> {
  const runtime = createCriRuntime(
    { log: silentLog, clock: systemClock },
    { endpoint, runtimeRequestTimeoutMs: 10_000 },
  );
  try {
    const sandboxes = await runtime.listSandboxes(undefined, { timeoutMs: 5_000 });
    for (let next = 0; next < sandboxes.length; next += 8)
      await Promise.allSettled(
        sandboxes.slice(next, next + 8).map(async ({ id }) => {
          await runtime.stopSandbox(id);
          await runtime.removeSandbox(id);
        }),
      );
  } catch {
    // The daemon is gone or hangs: what follows needs it not.
  } finally {
    await runtime.close();
  }
}

/** Deleted through the daemon, tasks take their cgroups along. */
async function removeTasks(ctr: (args: readonly string[]) => Promise<string>): Promise<void> {
  const tasks = (await ctr(['tasks', 'ls', '-q']).catch(() => '')).split('\n').filter((id) => id !== '');
  for (let next = 0; next < tasks.length; next += 8)
    await Promise.all(tasks.slice(next, next + 8).map((id) => ctr(['tasks', 'rm', '-f', id]).catch(() => undefined)));
}
