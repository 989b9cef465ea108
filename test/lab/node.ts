// A whole cluster of one node for tests: an API server in the caller's network, and in a network namespace of its own a runtime and
// `stevedore run` as a process. Nothing of it is left after `stop`.
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { demoImage, readBusybox } from '../../cri/local-images.ts';
import { askNode } from '../../cli/node-socket.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { exec } from '../../lib/exec.ts';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { removeCgroups } from './cgroups.ts';
import { type Cluster, startCluster } from './cluster.ts';
import type { Containerd } from './containerd.ts';
import type { Dockerd } from './dockerd.ts';
import { type Engine, engineKind, startEngine } from './engine.ts';
import { createLabHost, type LabHost } from './netns.ts';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const pinnedNode = join(repository, 'node_modules/node/bin/node');

export interface LabNodeOptions {
  /** Default: STEVEDORE_TEST_RUNTIME, or containerd. */
  readonly runtime?: 'containerd' | 'docker';
  readonly binary?: '1.6' | '2.x';
  /** Docker's containers run on while it is away. Default false. */
  readonly liveRestore?: boolean;
  /** Pods are on Docker's own bridge: no CNI. Default false. */
  readonly ownBridge?: boolean;
  /** More fields of KubeletConfiguration. */
  readonly kubelet?: Readonly<Record<string, unknown>>;
  readonly proxy?: Readonly<Record<string, unknown>>;
  readonly only?: 'agent' | 'proxy';
}

export interface LabNode {
  readonly name: string;
  readonly address: string;
  readonly cluster: Cluster;
  readonly host: LabHost;
  readonly engine: Engine;
  /** Throws where the node runs on Docker. */
  readonly containerd: Containerd;
  /** Where the node runs on Docker. */
  readonly dockerd: Dockerd | undefined;
  readonly rootDir: string;
  readonly socketPath: string;
  /** The daemon's process; undefined while it is down. */
  pid(): number | undefined;
  start(): Promise<void>;
  /** Ends the daemon; pods go on. */
  end(signal?: NodeJS.Signals): Promise<void>;
  waitForReady(timeoutMs?: number): Promise<void>;
  /** Reads the pod until `holds`; rejects with its last state. */
  waitForPod(name: string, holds: (pod: Pod) => boolean, timeoutMs?: number): Promise<Pod>;
  log(): Promise<string>;
  /** What a failing test prints: the daemon's log, the rules, the runtime's state. */
  report(): Promise<string>;
  stop(): Promise<void>;
}

/** A veth pair between the caller's network and the host's; the caller's end is ours and goes with the namespace. */
async function linkToCaller(host: LabHost): Promise<{ outside: string; inside: string }> {
  const id = randomBytes(3).toString('hex');
  const subnet = `172.28.${randomBytes(1)[0]}`;
  const low = (randomBytes(1)[0]! & 0xf) * 16;
  const [outside, inside] = [`${subnet}.${low + 1}`, `${subnet}.${low + 2}`];
  await exec('ip', ['link', 'add', `o${id}`, 'type', 'veth', 'peer', 'name', `i${id}`, 'netns', host.name]);
  await exec('ip', ['addr', 'add', `${outside}/28`, 'dev', `o${id}`]);
  await exec('ip', ['link', 'set', `o${id}`, 'up']);
  await host.exec('ip', ['addr', 'add', `${inside}/28`, 'dev', `i${id}`]);
  await host.exec('ip', ['link', 'set', `i${id}`, 'up']);
  // A packet to a Service needs a route before its address is changed; it never gets further than the host.
  await host.exec('ip', ['route', 'replace', '10.96.0.0/12', 'dev', `i${id}`]);
  return { outside, inside };
}

export async function startLabNode(options: LabNodeOptions = {}): Promise<LabNode> {
  const undo: (() => Promise<unknown>)[] = [];
  try {
    return await assemble(options, undo);
  } catch (error) {
    for (const step of undo.toReversed()) await step().catch(() => undefined);
    throw error;
  }
}

async function assemble(options: LabNodeOptions, undo: (() => Promise<unknown>)[]): Promise<LabNode> {
  const dir = await mkdtemp(join(tmpdir(), 'sv-n-'));
  undo.push(() => rm(dir, { recursive: true, force: true }));
  const host = await createLabHost('node');
  undo.push(() => host.stop());
  const { outside, inside } = await linkToCaller(host);
  const cluster = await startCluster({ address: outside });
  undo.push(() => cluster.stop());
  const podCidr = '10.244.0.0/24';
  const usual = engineKind();
  const engine = await startEngine({
    kind: options.binary ?? (options.runtime === undefined ? usual : options.runtime === 'docker' ? 'docker' : '1.6'),
    dir: join(dir, 'c'),
    netns: host.name,
    podCidr,
    ...(options.liveRestore === undefined ? {} : { liveRestore: options.liveRestore }),
    ...(options.ownBridge === undefined ? {} : { ownBridge: options.ownBridge }),
  });
  undo.push(engine.stop);
  await engine.loadImage(imageArchive([demoImage(imageArchitecture(), await readBusybox())]));

  const name = `lab-${randomBytes(3).toString('hex')}`;
  const cgroupRoot = `/${name}`;
  const rootDir = join(dir, 'kubelet');
  const socketPath = join(dir, 'stevedore.sock');
  const caFile = join(dir, 'ca.crt');
  await mkdir(rootDir, { recursive: true });
  await writeFile(caFile, cluster.caPem);
  const documents = [
    {
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      kind: 'KubeletConfiguration',
      containerRuntimeEndpoint: engine.endpoint,
      authentication: { x509: { clientCAFile: caFile } },
      podLogsDir: join(dir, 'pods'),
      cgroupRoot,
      ...options.kubelet,
    },
    {
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      clusterCIDR: '10.244.0.0/16',
      ...options.proxy,
    },
    {
      apiVersion: 'stevedore/v1alpha1',
      kind: 'StevedoreConfiguration',
      kubeconfig: await cluster.nodeKubeconfig(name),
      hostnameOverride: name,
      nodeIP: inside,
      rootDir,
      socketPath,
      log: { level: process.env.STEVEDORE_TEST_LOG ?? 'info', format: 'text' },
      cni: options.ownBridge
        ? { confDir: '' }
        : { confDir: join(dir, 'c', 'net.d'), binDir: join(dir, 'c', 'cni-bin') },
      // The kernel is everybody's here.
      kernelSettings: 'none',
    },
  ];
  const config = join(dir, 'config.yaml');
  await writeFile(config, documents.map((document) => stringify(document)).join('---\n'));

  const logPath = join(dir, 'stevedore.log');
  let child: ChildProcess | undefined;
  const built = join(repository, 'dist/stevedore');
  const [program, ...before] =
    process.env.STEVEDORE_TEST_BUILT && existsSync(built)
      ? [built]
      : [pinnedNode, join(repository, 'cli/stevedore.ts')];

  const end = async (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> => {
    const running = child;
    child = undefined;
    if (!running || running.exitCode !== null || running.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => running.once('exit', () => resolve()));
    running.kill(signal);
    await Promise.race([ended, sleep(15_000).then(() => running.kill('SIGKILL'))]);
    await ended;
  };

  const node: LabNode = {
    name,
    address: inside,
    cluster,
    host,
    engine,
    get containerd() {
      if (!engine.containerd) throw new Error('this node runs on Docker');
      return engine.containerd;
    },
    dockerd: engine.dockerd,
    rootDir,
    socketPath,
    pid: () => child?.pid,
    async start() {
      const output = await open(logPath, 'a');
      child = host.spawn(
        program!,
        [...before, 'run', '--config', config, ...(options.only ? ['--only', options.only] : [])],
        { stdio: ['ignore', output.fd, output.fd] },
      );
      await output.close();
    },
    end,
    async waitForReady(timeoutMs = 90_000) {
      const deadline = Date.now() + timeoutMs;
      for (;;) {
        const shown = await cluster.admin.get(resources.nodes, { name }).catch(() => undefined);
        if (shown?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True')) return;
        if (Date.now() > deadline)
          throw new Error(`the node is not Ready after ${timeoutMs} ms\n${await node.report()}`);
        await sleep(50);
      }
    },
    async waitForPod(podName, holds, timeoutMs = 60_000) {
      const deadline = Date.now() + timeoutMs;
      for (;;) {
        const pod = await cluster.admin
          .get(resources.pods, { namespace: 'default', name: podName })
          .catch(() => undefined);
        if (pod && holds(pod)) return pod;
        if (Date.now() > deadline)
          throw new Error(
            `pod ${podName} after ${timeoutMs} ms: ${JSON.stringify(pod?.status, null, 1)}\n${await node.report()}`,
          );
        await sleep(20);
      }
    },
    log: () => readFile(logPath, 'utf8').catch(() => ''),
    async report() {
      const said = await Promise.allSettled([
        node.log().then((text) => text.split('\n').slice(-60).join('\n')),
        askNode(socketPath, '/status').then((status) => stringify(status)),
        engine.tailLog(),
        engine.containerd?.ctr(['containers', 'ls']) ??
          engine.dockerd?.api('GET', '/containers/json?all=1').then(({ body }) => body),
        host.exec('iptables-save', ['-t', 'nat']).then(({ stdout }) => stdout.slice(-4_000)),
      ]);
      const titles = ['stevedore', 'status', 'runtime', 'containers', 'rules'];
      return said
        .map((each, at) => `--- ${titles[at]}\n${each.status === 'fulfilled' ? each.value : String(each.reason)}`)
        .join('\n');
    },
    async stop() {
      await end();
      for (const step of undo.toReversed())
        await step().catch((error: unknown) => process.stderr.write(`${String(error)}\n`));
      await removeCgroups(cgroupRoot);
    },
  };
  // Volumes of pods that still run are unmounted before their folder goes.
  undo.splice(1, 0, async () => {
    const table = await readFile('/proc/self/mountinfo', 'utf8');
    const below = table
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((path) => `${path}/`.startsWith(`${rootDir}/`));
    // The root directory itself is one where / is not shared.
    for (const path of below.sort().toReversed()) await exec('umount', ['-l', path]).catch(() => undefined);
  });
  await node.start();
  await node.waitForReady();
  return node;
}
