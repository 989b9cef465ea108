// A node's server for tests, without the rest of the agent: a Node object that points at it, one pod on a real runtime, and one whose
// streams the server speaks itself (its "container" is this machine's shell, as a runtime that hands over streams would give it).
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { createKubeletMetrics } from '../../agent/server/kubelet-metrics.ts';
import { createNodeServer, type NodeServer } from '../../agent/server/node-server.ts';
import type { PodDirectory } from '../../agent/server/directory.ts';
import { createNodeStats, type NodeStats } from '../../agent/stats/node-stats.ts';
import { sandboxImage } from '../../agent/stats/sandbox-image.ts';
import { loadClientCa } from '../../agent/tls/client-ca.ts';
import { loadServingCertificate } from '../../agent/tls/serving.ts';
import { demoImage, demoImageName, readBusybox } from '../../cri/local-images.ts';
import type { Runtime } from '../../cri/runtime.ts';
import { leastContainer, leastSandbox } from '../../cri/configs.fixture.ts';
import type { ContainerConfig, SandboxConfig, StreamChannels } from '../../cri/types.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { createKubeClient } from '../../kube/http-client.ts';
import { parseKubeconfig } from '../../kube/kubeconfig.ts';
import { RuntimeError } from '../../cri/errors.ts';
import { systemClock } from '../../lib/clock.ts';
import { createLog } from '../../lib/log.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import { type Engine, type EngineKind, engineKind, startEngine } from './engine.ts';

export const nodeName = 'lab-node';
export const realPod = 'real';
export const localPod = 'local';
const realUid = '11111111-1111-4111-8111-111111111111';
const localUid = '22222222-2222-4222-8222-222222222222';
const cgroupParent = '/stevedore-server';

export interface NodeServerLab {
  readonly controlPlane: ControlPlane;
  readonly engine: Engine;
  readonly runtime: Runtime;
  readonly server: NodeServer;
  readonly stats: NodeStats;
  readonly port: number;
  readonly containerId: string;
  readonly sandboxId: string;
  readonly log: () => string;
  stop(): Promise<void>;
}

/** Says its number once a second, answers http on 8080 and echoes what is typed at it. */
const script =
  'mkdir -p /tmp/www; echo hello-from-http > /tmp/www/index.html; httpd -p 8080 -h /tmp/www; echo begin; sleep 0.2; echo oops >&2; exec cat';

const sandboxConfig = (logs: string): SandboxConfig =>
  leastSandbox({
    metadata: { name: realPod, uid: realUid, namespace: 'default', attempt: 0 },
    logDirectory: logs,
    labels: {
      'io.kubernetes.pod.uid': realUid,
      'io.kubernetes.pod.name': realPod,
      'io.kubernetes.pod.namespace': 'default',
    },
    cgroupParent,
  });

const containerConfig = (sandbox: SandboxConfig): ContainerConfig =>
  leastContainer(demoImageName, ['sh', '-c', script], {
    workingDir: '/tmp',
    labels: { ...sandbox.labels, 'io.kubernetes.container.name': 'main' },
    logPath: 'main/0.log',
    stdin: true,
    resources: { cpuShares: 102, memoryLimitInBytes: 512 * 1024 * 1024, oomScoreAdj: 1000 },
  });

/** Runs a program of this machine on the channels, as a runtime that hands over streams does. */
async function runLocally(command: readonly string[], channels: StreamChannels, signal: AbortSignal): Promise<number> {
  const child: ChildProcess = spawn(command[0]!, command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
  const stop = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', stop, { once: true });
  child.stdin!.on('error', () => undefined);
  const sizes = (async () => {
    for await (const { width, height } of channels.resize) child.stdin?.write(`size ${width}x${height}\n`);
  })();
  void sizes.catch(() => undefined);
  const ended = once(child, 'exit');
  if (channels.stdin)
    void channels.stdin
      .pipeTo(Writable.toWeb(child.stdin!) as WritableStream<Uint8Array>, { signal })
      .catch(() => undefined);
  else child.stdin!.end();
  const out = [
    [child.stdout!, channels.stdout],
    [child.stderr!, channels.stderr],
  ] as const;
  await Promise.all(
    out.map(async ([from, to]) => {
      if (to) await (Readable.toWeb(from) as ReadableStream<Uint8Array>).pipeTo(to, { signal });
      else from.resume();
    }),
  );
  const [code] = (await ended) as [number | null];
  return code ?? 137;
}

/** The real runtime, but for the container that is this machine. */
const withLocal = (runtime: Runtime): Runtime => ({
  ...runtime,
  exec: async (request, options) =>
    request.containerId === 'local'
      ? { kind: 'duplex', open: (channels, signal) => runLocally(request.command, channels, signal) }
      : await runtime.exec(request, options),
  attach: async (request, options) =>
    request.containerId === 'local'
      ? { kind: 'duplex', open: (channels, signal) => runLocally(['cat'], channels, signal) }
      : await runtime.attach(request, options),
  portForward: async (sandbox, ports, options) =>
    sandbox === 'local'
      ? {
          kind: 'duplex',
          open: async (port) => {
            const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
            await once(socket, 'connect').catch((error: Error) => {
              throw new RuntimeError('unknown', 'PortForward', error.message, error);
            });
            return {
              readable: Readable.toWeb(socket) as ReadableStream<Uint8Array>,
              writable: Writable.toWeb(socket) as WritableStream<Uint8Array>,
            };
          },
        }
      : await runtime.portForward(sandbox, ports, options),
});

const podObject = (name: string, uid: string): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'default', uid },
  spec: {
    nodeName,
    automountServiceAccountToken: false,
    containers: [{ name: 'main', image: demoImageName, stdin: true }],
  },
});

const runningStatus = (scheme: string, id: string, now: string) => ({
  phase: 'Running' as const,
  startTime: now,
  containerStatuses: [
    {
      name: 'main',
      ready: true,
      restartCount: 0,
      image: demoImageName,
      imageID: demoImageName,
      containerID: `${scheme}://${id}`,
      started: true,
      state: { running: { startedAt: now } },
    },
  ],
});

export async function startNodeServerLab(dir: string, options: { kind?: EngineKind } = {}): Promise<NodeServerLab> {
  const lines: string[] = [];
  const log = createLog({ level: 'debug', format: 'text', write: (line) => void lines.push(line) });
  const logs = join(dir, 'pods', `default_${realPod}_${realUid}`);
  await mkdir(join(logs, 'main'), { recursive: true });
  const stops: (() => Promise<unknown>)[] = [];
  const stop = async (): Promise<void> => {
    for (const end of stops.toReversed()) await end();
  };
  try {
    const controlPlane = await startControlPlane();
    stops.push(() => controlPlane.stop());
    const engine = await startEngine({ kind: options.kind ?? engineKind(), dir: join(dir, 'c') });
    stops.push(() => engine.stop());
    await engine.loadImage(imageArchive([demoImage(imageArchitecture(), await readBusybox())]));
    const runtime = await engine.openRuntime(join(dir, 'state'), log);
    stops.push(() => runtime.close());
    const sandbox = sandboxConfig(logs);
    const sandboxId = await runtime.runSandbox(sandbox, '');
    const containerId = await runtime.createContainer(sandboxId, containerConfig(sandbox), sandbox);
    await runtime.startContainer(containerId);

    const now = new Date().toISOString().replace(/\.\d+Z/, 'Z');
    const { admin } = controlPlane;
    await admin.create(resources.serviceAccounts, { metadata: { name: 'default', namespace: 'default' } });
    const pods = new Map<string, Pod>();
    for (const [name, uid, id] of [
      [realPod, realUid, containerId],
      [localPod, localUid, 'local'],
    ] as const) {
      const made = await admin.create(resources.pods, podObject(name, uid));
      const status = runningStatus(engine.kind === 'docker' ? 'docker' : 'containerd', id, now);
      await admin.patch(
        resources.pods,
        { namespace: 'default', name },
        { status },
        { type: 'merge', subresource: 'status' },
      );
      pods.set(name, { ...made, metadata: { ...made.metadata, uid }, status });
    }
    const directory: PodDirectory = {
      pods: () => [...pods.values()],
      byName: (namespace, name) => (namespace === 'default' ? pods.get(name) : undefined),
      container: (uid) =>
        uid === realUid
          ? { id: containerId, state: 'running', logPath: join(logs, 'main/0.log'), restartCount: 0 }
          : { id: 'local', state: 'running', logPath: '', restartCount: 0 },
      sandbox: (uid) => ({ id: uid === realUid ? sandboxId : 'local', ips: [], ready: true }),
      async ended(id, signal) {
        while ((await runtime.inspectContainer(id, { signal })).state === 'running')
          await sleep(50, undefined, { signal });
      },
    };
    const both = withLocal(runtime);
    const nodeKubeconfig = await controlPlane.kubeconfigFor({ commonName: nodeName, organization: 'system:masters' });
    const client = createKubeClient(
      { log, clock: systemClock },
      parseKubeconfig(await readFile(nodeKubeconfig, 'utf8'), nodeKubeconfig),
    );
    stops.push(() => client.close());
    const metrics = createRegistry();
    const probeMetrics = createRegistry();
    const counts = createKubeletMetrics(metrics);
    counts.nodeName.set({ node: nodeName }, 1);
    const watched = { log, clock: systemClock };
    const stats = createNodeStats(
      {
        ...watched,
        runtime,
        volumes: async () => [],
        sandboxImage: (one) => sandboxImage(runtime, one),
        pods: { ...directory, cgroup: (pod) => (pod.metadata.name === realPod ? cgroupParent : undefined) },
      },
      { nodeName, rootFolder: dir, podLogsFolder: join(dir, 'pods'), podsCgroup: cgroupParent },
    );
    const server = createNodeServer(
      {
        ...watched,
        pods: directory,
        runtime: both,
        client,
        serving: await loadServingCertificate(watched, { certificateFolder: dir, hosts: [nodeName, '127.0.0.1'] }),
        clientCa: await loadClientCa(watched, controlPlane.caFile),
        health: [],
        figures: { metrics, probeMetrics, stats },
        counts,
        configz: () => ({ kind: 'KubeletConfiguration' }),
      },
      {
        nodeName,
        address: '127.0.0.1',
        port: 0,
        anonymous: false,
        tokenWebhook: true,
        authorizationMode: 'Webhook',
        rootFolder: dir,
        version: 'v1.36.0',
      },
    );
    const { port } = await server.listen();
    stops.push(() => server.close());
    await admin.create(resources.nodes, { metadata: { name: nodeName }, spec: {} });
    await admin.patch(
      resources.nodes,
      { name: nodeName },
      {
        status: {
          addresses: [{ type: 'InternalIP', address: '127.0.0.1' }],
          daemonEndpoints: { kubeletEndpoint: { Port: port } },
          conditions: [{ type: 'Ready', status: 'True' }],
          // A client's WebSocket is then handed on by the API server; else it would come as SPDY, which other clients of the tests speak.
          declaredFeatures: ['ExtendWebSocketsToKubelet'],
        },
      },
      { type: 'merge', subresource: 'status' },
    );
    return {
      controlPlane,
      engine,
      runtime,
      server,
      stats,
      port,
      containerId,
      sandboxId,
      log: () => lines.join(''),
      stop,
    };
  } catch (error) {
    await stop().catch(() => undefined);
    throw error;
  }
}
