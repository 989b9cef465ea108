// A private Docker Engine for tests: its own containerd, root, state, socket and CNI network under one folder, and nothing of it left after
// `stop`. No bridge and no rules of Docker's: what the pods' network is, CNI says.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { exec } from '../../lib/exec.ts';
import { bridgeNetwork } from './containerd-config.ts';
import { removeHostPorts } from './host-ports.ts';
import { listProcesses, signalProcess, waitForEnd, withDescendants } from './process-tree.ts';

export interface DockerdOptions {
  /** Its own; made where it is missing. Keep the path short: sockets below it may have 107 bytes. */
  readonly dir: string;
  /** A network namespace by name (of /run/netns) or path, in which the bridge and host ports live. Default: the caller's. */
  readonly netns?: string;
  /** One range, or one for each family. Default: a random 10.200–10.249.x.0/24. */
  readonly podCidr?: string | readonly string[];
  /** Containers run on while the daemon is away. Default false. */
  readonly liveRestore?: boolean;
  /** Without a network configuration pods cannot run until `writeNetwork` is called. Default true. */
  readonly network?: boolean;
  /** The daemon makes its bridge, on the first pod range, and its rules: what pods are on where no CNI is configured. Default false. */
  readonly ownBridge?: boolean;
}

export interface Dockerd {
  readonly dir: string;
  readonly socket: string;
  readonly endpoint: string;
  readonly cniConfDir: string;
  readonly cniBinDir: string;
  readonly bridge: string;
  readonly podCidrs: readonly string[];
  pid(): number;
  /** Loads a docker archive. */
  loadImage(tar: Uint8Array): Promise<void>;
  /** A call of the API, behind the adapter's back; resolves with what came back. */
  api(method: string, path: string, body?: unknown): Promise<{ readonly status: number; readonly body: string }>;
  writeNetwork(): Promise<void>;
  /** Ends the daemon and starts it again; its containerd goes on. */
  restart(signal?: NodeJS.Signals): Promise<void>;
  /**
   * The same in two steps, with other settings of daemon.json from then on, as an upgrade changes them; `upgraded`: and with the dockerd that
   * STEVEDORE_DOCKERD2 names, where it does.
   */
  end(signal?: NodeJS.Signals): Promise<void>;
  start(settings?: Readonly<Record<string, unknown>>, as?: { readonly upgraded?: boolean }): Promise<void>;
  /** Stands still as one that hangs: connections are taken, nothing is answered. */
  hang(): void;
  goOn(): void;
  stop(): Promise<void>;
  tailLog(): Promise<string>;
}

const cniPlugins = ['/usr/lib/cni', '/opt/cni/bin'];
const netnsPath = (netns: string): string => (netns.startsWith('/') ? netns : `/run/netns/${netns}`);
const enter = (netns: string | undefined): readonly string[] =>
  netns === undefined ? [] : ['nsenter', `--net=${netnsPath(netns)}`, '--'];

function run(netns: string | undefined, command: string, args: readonly string[]) {
  const [program, ...rest] = [...enter(netns), command, ...args];
  return exec(program!, rest);
}

const answerMs = 60_000;

function ask(socketPath: string, method: string, path: string, body?: Uint8Array | string, type = 'application/json') {
  return new Promise<{ status: number; body: string }>((resolve, reject) => {
    const asked = request(
      { socketPath, method, path, headers: body === undefined ? {} : { 'content-type': type } },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
        answer.on('error', reject);
      },
    );
    asked.on('error', reject);
    asked.setTimeout(answerMs, () => asked.destroy(new Error(`${method} ${path}: no answer within ${answerMs} ms`)));
    asked.end(body);
  });
}

async function mountsBelow(dir: string): Promise<string[]> {
  const table = await readFile('/proc/self/mountinfo', 'utf8');
  return table
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${dir}/`));
}

/** Ends and removes what an engine under `dir` left, whoever started it; also what a killed test run left behind. */
export async function cleanDockerd(dir: string, netns?: string): Promise<void> {
  const processes = await listProcesses();
  // The daemons name files of the folder in their arguments, shims the socket.
  const own = processes.filter(({ pid, command }) => pid !== process.pid && command.some((word) => named(word, dir)));
  const all = withDescendants(
    processes,
    own.map(({ pid }) => pid),
  );
  for (const pid of all) signalProcess(pid, 'SIGKILL');
  if (!(await waitForEnd(all, 10_000)))
    throw new Error(`processes of the engine in ${dir} do not end: ${all.join(' ')}`);
  for (const path of (await mountsBelow(dir)).toReversed()) await exec('umount', ['-l', path]).catch(() => undefined);
  const left = await mountsBelow(dir);
  if (left.length > 0) throw new Error(`not removing ${dir}: still mounted below it: ${left.join(', ')}`);
  const bridge = await readFile(join(dir, 'bridge'), 'utf8').catch(() => undefined);
  if (bridge) {
    await run(netns, 'ip', ['link', 'delete', bridge]).catch(() => undefined);
    await removeHostPorts((command, args) => run(netns, command, args), bridge).catch(() => undefined);
  }
  await rm(dir, { recursive: true, force: true });
}

/** The first address of a range, with its length: 10.1.0.0/24 → 10.1.0.1/24. */
const gatewayOf = (cidr: string): string => cidr.replace(/\d+\/(\d+)$/, '1/$1');

const named = (word: string, dir: string): boolean =>
  ['daemon.json', 'containerd.toml', 'containerd.sock'].some((file) => word === join(dir, file));

/** Starts a Docker Engine of one's own; on failure nothing is left. Needs root and Debian's docker.io. */
export async function startDockerd(options: DockerdOptions): Promise<Dockerd> {
  const { dir, netns } = options;
  if (!['/usr/sbin/dockerd', '/usr/bin/dockerd'].some((path) => existsSync(path)))
    throw new Error('no dockerd here: install the package docker.io');
  await cleanDockerd(dir, netns);
  try {
    return await start(options);
  } catch (error) {
    const log = await readFile(join(dir, 'dockerd.log'), 'utf8').catch(() => '');
    await cleanDockerd(dir, netns);
    throw new Error(`dockerd did not start in ${dir}; its log ends:\n${log.slice(-3000)}`, { cause: error });
  }
}

async function start(options: DockerdOptions): Promise<Dockerd> {
  const { dir, netns } = options;
  const at = (name: string): string => join(dir, name);
  for (const name of ['net.d', 'opt']) await mkdir(at(name), { recursive: true });
  const plugins = cniPlugins.find((path) => existsSync(join(path, 'bridge')));
  if (!plugins) throw new Error(`no CNI plugins in ${cniPlugins.join(' or ')}: install containernetworking-plugins`);
  await symlink(plugins, at('cni-bin'));
  const socket = at('docker.sock');
  const random = randomBytes(4);
  const bridge = `sv${random.toString('hex')}`;
  const podCidrs =
    options.podCidr === undefined ? [`10.${200 + (random[0]! % 50)}.${random[1]!}.0/24`] : [options.podCidr].flat();
  await writeFile(at('bridge'), bridge);
  await writeFile(
    at('containerd.toml'),
    `version = 2
root = ${JSON.stringify(at('containerd-root'))}
state = ${JSON.stringify(at('containerd-state'))}
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = ${JSON.stringify(at('containerd.sock'))}
[plugins."io.containerd.internal.v1.opt"]
  path = ${JSON.stringify(at('opt'))}
`,
  );
  let settings: Record<string, unknown> = {
    'data-root': at('root'),
    'exec-root': at('exec'),
    pidfile: at('dockerd.pid'),
    hosts: [`unix://${socket}`],
    containerd: at('containerd.sock'),
    'containerd-namespace': 'moby',
    ...(options.ownBridge
      ? // Docker's own rules, which on a host without net.bridge.bridge-nf-call-iptables take nothing from pods of one node.
        { bip: gatewayOf(podCidrs[0]!), iptables: true }
      : { bridge: 'none', iptables: false, 'ip-forward': false, 'ip-masq': false }),
    ip6tables: false,
    'userland-proxy': false,
    'oom-score-adjust': 0,
    'shutdown-timeout': 3,
    'live-restore': options.liveRestore ?? false,
    'exec-opts': ['native.cgroupdriver=cgroupfs'],
  };
  const configure = (changes: Readonly<Record<string, unknown>>): Promise<void> => {
    settings = { ...settings, ...changes };
    return writeFile(at('daemon.json'), JSON.stringify(settings));
  };
  await configure({});

  const launch = async (
    command: readonly string[],
    logName: string,
  ): Promise<{ pid: number; ended(): string | undefined }> => {
    const log = await open(at(logName), 'a');
    const [program, ...args] = [...enter(netns), ...command];
    const child = spawn(program!, args, { stdio: ['ignore', log.fd, log.fd], detached: true });
    await log.close();
    let ended: string | undefined;
    child.on('exit', (code, signal) => {
      ended = `exit ${code ?? signal}`;
    });
    child.on('error', (error) => {
      ended = error.message;
    });
    child.unref();
    return { pid: child.pid ?? 0, ended: () => ended };
  };
  const until = async (
    what: string,
    ended: () => string | undefined,
    answers: () => Promise<boolean>,
  ): Promise<void> => {
    for (const limit = performance.now() + 60_000; ; await sleep(30)) {
      if (ended() !== undefined) throw new Error(`${what} ended: ${ended()}`);
      if (await answers()) return;
      if (performance.now() > limit) throw new Error(`${what} does not answer within 60 s`);
    }
  };

  const containerd = await launch(['containerd', '--config', at('containerd.toml')], 'containerd.log');
  await until('containerd', containerd.ended, async () => existsSync(at('containerd.sock')));
  let program = 'dockerd';
  let pid = 0;
  const launchDockerd = async (): Promise<void> => {
    await rm(socket, { force: true });
    await rm(at('dockerd.pid'), { force: true });
    const dockerd = await launch([program, '--config-file', at('daemon.json')], 'dockerd.log');
    pid = dockerd.pid;
    await until('dockerd', dockerd.ended, async () =>
      ask(socket, 'GET', '/_ping').then(
        ({ status }) => status === 200,
        () => false,
      ),
    );
  };
  await launchDockerd();
  const writeNetwork = (): Promise<void> =>
    writeFile(at('net.d/10-bridge.conflist'), bridgeNetwork({ bridge, podCidrs, ipamDir: at('ipam'), ipMasq: false }));
  if (options.network !== false && !options.ownBridge) await writeNetwork();

  const end = async (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> => {
    signalProcess(pid, signal);
    if (!(await waitForEnd([pid], 30_000))) throw new Error(`dockerd ${pid} does not end on ${signal}`);
  };
  return {
    dir,
    socket,
    endpoint: `unix://${socket}`,
    cniConfDir: at('net.d'),
    cniBinDir: at('cni-bin'),
    bridge,
    podCidrs,
    pid: () => pid,
    async loadImage(tar) {
      const { status, body } = await ask(socket, 'POST', '/images/load', tar, 'application/x-tar');
      if (status !== 200 || body.includes('"error"')) throw new Error(`loading an image: ${status} ${body}`);
    },
    api: (method, path, body) => ask(socket, method, path, body === undefined ? undefined : JSON.stringify(body)),
    writeNetwork,
    async restart(signal = 'SIGKILL') {
      await end(signal);
      await launchDockerd();
    },
    end,
    async start(changes = {}, { upgraded = false } = {}) {
      const newer = upgraded && process.env.STEVEDORE_DOCKERD2;
      if (newer) program = newer;
      // From version 25 on there is no such word: it leaves its own score alone.
      await configure(newer ? { ...changes, 'oom-score-adjust': undefined } : changes);
      await launchDockerd();
    },
    hang: () => signalProcess(pid, 'SIGSTOP'),
    goOn: () => signalProcess(pid, 'SIGCONT'),
    async stop() {
      signalProcess(pid, 'SIGCONT');
      await removeContainers(socket);
      for (const each of [pid, containerd.pid]) {
        signalProcess(each, 'SIGTERM');
        await waitForEnd([each], 5_000);
      }
      await cleanDockerd(dir, netns);
    },
    tailLog: async () => (await readFile(at('dockerd.log'), 'utf8').catch(() => '')).slice(-5000),
  };
}

/** Through the daemon, so that cgroups and mounts go too. */
async function removeContainers(socket: string): Promise<void> {
  try {
    const { body } = await ask(socket, 'GET', '/containers/json?all=1');
    const all = JSON.parse(body) as { Id: string }[];
    for (let next = 0; next < all.length; next += 8)
      await Promise.all(
        all.slice(next, next + 8).map(({ Id }) => ask(socket, 'DELETE', `/containers/${Id}?force=1&v=1`)),
      );
  } catch {
    // The daemon is gone or hangs: what follows needs it not.
  }
}
