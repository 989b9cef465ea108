// `stevedore dev`: a cluster of this one machine in one command. Starts a containerd of its own, the control plane and the node, applies a
// demo, calls its Service, and stays up until it is told to end.
import { mkdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Runtime } from '../../cri/runtime.ts';
import { createMounter } from '../../agent/volumes/mounter.ts';
import { unshareRoot } from '../../agent/volumes/shared-root.ts';
import { addressAt, parseRange, pickSubnet } from '../../devcluster/addresses.ts';
import { type Controllers, startControllers } from '../../devcluster/controllers/controllers.ts';
import { createDevcluster, type Devcluster } from '../../devcluster/devcluster.ts';
import { systemClock } from '../../lib/clock.ts';
import { exec } from '../../lib/exec.ts';
import { createLog, describeError, type Log } from '../../lib/log.ts';
import { cleanupProxy } from '../../proxy/cleanup.ts';
import { type Child, endLeftover } from './child.ts';
import { loadImages, openRuntime, removeAllPods, startDevContainerd } from './containerd.ts';
import { addressesOf, applyDemo, callUntilAllAnswered, removeDemo, waitForDemo } from './demo.ts';
import { type DevFolders, devFolders } from './folders.ts';
import { allowForwarding, checkHost, type HostTools, makeBridge, removeBridge, writeNetwork } from './host.ts';
import { startNode, waitForNode } from './node.ts';
import { createSteps, type Steps } from './steps.ts';

export interface DevFlags {
  exit?: boolean;
  demo: boolean;
  dataDir: string;
  runDir: string;
  containerRuntimeEndpoint?: string;
  port: string;
  podCidr: string;
  serviceCidr: string;
  hostnameOverride?: string;
  verbose?: boolean;
}

const clock = systemClock;
const stepCount = 7;

interface Running {
  /** What undoes each thing that was started, the last first. */
  readonly undo: { readonly what: string; readonly work: () => Promise<unknown> }[];
}

/** Resolves with the exit code. */
export async function dev(flags: DevFlags): Promise<number> {
  const log = createLog({ level: flags.verbose ? 'debug' : 'warn', format: 'text' });
  const terminal = process.stdout.isTTY === true;
  const steps = createSteps({
    clock,
    total: flags.demo ? stepCount : stepCount - 2,
    terminal,
    write: (text) => void process.stdout.write(text),
  });
  const interrupted = new Promise<'interrupted'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve('interrupted'));
  });
  const running: Running = { undo: [] };
  let code = 0;
  try {
    const up = start(flags, log, steps, running);
    up.catch(() => undefined);
    const first = await Promise.race([up, interrupted]);
    if (first !== 'interrupted' && !flags.exit) {
      steps.line(first.tells);
      await Promise.race([interrupted, ...first.children.map(({ ended }) => ended)]);
    }
    steps.line(terminal ? '\nending …' : 'ending');
  } catch (error) {
    process.stderr.write(`stevedore dev: ${describeError(error)}\n`);
    code = 1;
  }
  for (const { what, work } of running.undo.toReversed())
    await work().catch((error: unknown) => {
      process.stderr.write(`stevedore dev: ${what} could not be undone: ${describeError(error)}\n`);
      code = 1;
    });
  return code;
}

interface Up {
  readonly children: readonly Child[];
  readonly tells: string;
}

async function start(flags: DevFlags, log: Log, steps: Steps, running: Running): Promise<Up> {
  const folders = devFolders(flags.dataDir, flags.runDir);
  const name = (flags.hostnameOverride ?? hostname()).toLowerCase();
  const own = flags.containerRuntimeEndpoint === undefined;
  const endpoint = flags.containerRuntimeEndpoint ?? `unix://${folders.containerdSocket}`;
  // The first node gets the first part of the pods' range.
  const nodeCidr = pickSubnet(flags.podCidr, 24, new Set())!;
  const address = addressAt(parseRange(nodeCidr), 1);
  const children: Child[] = [];
  const began = (what: string, work: () => Promise<unknown>): void => void running.undo.push({ what, work });

  const { tools } = (await steps.run('host', () => prepareHost(flags, folders, { address, nodeCidr, own })))!;
  began('the bridge', removeBridge);
  const { runtime } = (await steps.run('container runtime', () =>
    startRuntime({ folders, tools, own, endpoint, log, children, began }),
  ))!;
  const { devcluster } = (await steps.run('control plane', () =>
    startControlPlane(flags, folders, name, address, log, began),
  ))!;
  await steps.run('node', async (progress) => {
    const node = await startNode(clock, folders, {
      name,
      address,
      runtimeEndpoint: endpoint,
      podCidr: flags.podCidr,
      cniConf: own ? folders.cniConf : '/etc/cni/net.d',
    });
    children.push(node);
    began('the node', async () => {
      await node.stop(20_000);
      // Where a pod of somebody else's runtime still has a volume, it stays, and is found shared the next time.
      await unshareRoot({ mounter: createMounter(), log }, folders.nodeRoot, AbortSignal.timeout(20_000)).catch(
        () => false,
      );
      await cleanupProxy({ exec, clock, log }, { kubeProxy: false }, AbortSignal.timeout(30_000));
    });
    const version = await Promise.race([waitForNode(clock, devcluster.client, name, progress), node.ended]);
    return { said: `${name} ${version}` };
  });
  // Pods go before the node does: nobody would end them afterwards.
  began('the pods', async () => {
    const left = await removeDemo(clock, devcluster.client, 30_000);
    if (left.length > 0) steps.line(`pods that did not end by themselves are removed: ${left.join(', ')}`);
  });
  await steps.run('images', async () => {
    await loadImages(folders, tools, endpoint.replace(/^unix:\/\//, ''));
    return { said: 'pause and demo, built from this host’s busybox' };
  });
  if (flags.demo) await runDemo(devcluster, address, steps, children);
  void runtime;
  return { children, tells: howToTry(folders) };
}

async function prepareHost(
  flags: DevFlags,
  folders: DevFolders,
  { address, nodeCidr, own }: { address: string; nodeCidr: string; own: boolean },
): Promise<{ tools: HostTools; said: string }> {
  const tools = checkHost(own);
  await endLeftover(clock, folders.nodePid, folders.nodeConfig);
  await endLeftover(clock, folders.containerdPid, folders.containerdConfig);
  await mkdir(folders.data, { recursive: true, mode: 0o700 });
  await makeBridge(address, 24, flags.serviceCidr);
  const unset = await allowForwarding();
  await writeNetwork(own ? folders.cniConf : '/etc/cni/net.d', nodeCidr);
  return {
    tools,
    said:
      unset.length > 0
        ? `could not set ${unset.join(', ')}: pods may not reach Services that lead back to them`
        : `pods in ${flags.podCidr}, Services in ${flags.serviceCidr}`,
  };
}

type Began = (what: string, work: () => Promise<unknown>) => void;

async function startRuntime(start: {
  folders: DevFolders;
  tools: HostTools;
  own: boolean;
  endpoint: string;
  log: Log;
  children: Child[];
  began: Began;
}): Promise<{ runtime: Runtime; said: string }> {
  const { folders, tools, own, endpoint, log, children, began } = start;
  const child = own ? await startDevContainerd({ clock, log }, folders, tools) : undefined;
  if (child) {
    children.push(child);
    began('containerd', () => child.stop(10_000));
  }
  const opened = openRuntime({ clock, log }, endpoint);
  const { runtime, name } = await (child ? Promise.race([opened, child.ended]) : opened);
  began('the runtime', async () => {
    if (own) await removeAllPods(runtime);
    await runtime.close();
  });
  if (own) await removeAllPods(runtime);
  return { runtime, said: name };
}

async function startControlPlane(
  flags: DevFlags,
  folders: DevFolders,
  nodeName: string,
  address: string,
  log: Log,
  began: Began,
): Promise<{ devcluster: Devcluster; said: string }> {
  const devcluster = await createDevcluster(
    { clock, log },
    {
      dataDir: join(folders.data, 'control-plane'),
      listen: { host: address, port: Number(flags.port) },
      serviceCidr: flags.serviceCidr,
    },
  ).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EADDRINUSE') throw error;
    throw new Error(
      `port ${flags.port} of ${address} is taken, perhaps by another \`stevedore dev\`: end that, or choose another with --port`,
    );
  });
  const controllers: Controllers = startControllers(
    { clock, log, client: devcluster.client },
    { caPem: devcluster.caPem, podCidr: flags.podCidr },
  );
  began('the control plane', async () => {
    await controllers.stop();
    await devcluster.stop();
  });
  const secret = { mode: 0o600 };
  await writeFile(folders.adminKubeconfig, devcluster.adminKubeconfig(), secret);
  await writeFile(
    folders.nodeKubeconfig,
    await devcluster.kubeconfigFor({ user: `system:node:${nodeName}`, groups: ['system:nodes'] }),
    secret,
  );
  await controllers.ready(AbortSignal.timeout(30_000));
  return { devcluster, said: `${devcluster.url}, in memory, without DNS` };
}

async function runDemo(
  { client }: Devcluster,
  address: string,
  steps: Steps,
  children: readonly Child[],
): Promise<void> {
  const orEnded = <T>(work: Promise<T>): Promise<T> => Promise.race([work, ...children.map(({ ended }) => ended)]);
  await steps.run('demo: 3 replicas behind two Services, and a single pod', async (progress) => {
    await applyDemo(client);
    await orEnded(waitForDemo(clock, client, progress));
    return { said: 'all pods ready' };
  });
  await steps.run('calls', async () => {
    const { clusterUrl, nodePortUrl } = await addressesOf(client, address);
    for (const url of [clusterUrl, nodePortUrl]) {
      const answers: string[] = [];
      await orEnded(callWhenProgrammed(url, (answer) => void answers.push(answer)));
      for (const answer of answers) steps.line(`\n    GET ${url} answered by ${answer}`.slice(1));
    }
    return { said: 'different pods answered' };
  });
}

const programmedWithinMs = 10_000;

/** The Service's rules follow its endpoints within moments; until then a call is refused. */
async function callWhenProgrammed(url: string, tell: (answer: string) => void): Promise<void> {
  const startedMs = clock.monotonicMs();
  for (;;) {
    try {
      await callUntilAllAnswered(url, 60, tell);
      return;
    } catch (error) {
      if (clock.monotonicMs() - startedMs > programmedWithinMs)
        throw new Error(`the Service at ${url} does not answer`, { cause: error });
      await clock.sleep(200);
    }
  }
}

const howToTry = (folders: DevFolders): string => `
The cluster is up. It keeps nothing when it ends, and has no DNS. Try:

    export KUBECONFIG=${folders.adminKubeconfig}
    kubectl get pods -o wide
    kubectl rollout restart deployment/demo

Logs: ${folders.nodeLog}, ${folders.containerdLog}. Ctrl-C ends it all.`;
