// `stevedore run`: the daemon. Reads the configuration, opens the runtime and the API, and wires the two halves.
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { type Agent, type AgentOptions, createAgent } from '../agent/agent.ts';
import { createIptablesChains } from '../agent/node/iptables-chains.ts';
import { kubeletVersion } from '../agent/node/version.ts';
import { createRestMetrics } from '../agent/server/rest-metrics.ts';
import type { KubeClient } from '../kube/client.ts';
import { createKubeClient } from '../kube/http-client.ts';
import { createNoClient } from '../kube/no-client.ts';
import type { Taint } from '../kube/types/core.ts';
import { aborted } from '../lib/abort.ts';
import type { Claim } from '../lib/claim.ts';
import { systemClock } from '../lib/clock.ts';
import { exec } from '../lib/exec.ts';
import { type FileLock, lockFile } from '../lib/file-lock.ts';
import { createLog, describeError, type Log } from '../lib/log.ts';
import { createRegistry, type MetricsRegistry } from '../lib/metrics.ts';
import { supervise } from '../lib/supervise.ts';
import { claimRuntime } from './claim-runtime.ts';
import { type Configuration, loadConfiguration } from './config/load.ts';
import { flagsInForce } from './flags-in-force.ts';
import { type Identity, type IdentityDeps, openIdentity } from './identity.ts';
import { type NodeSocket, serveNodeSocket } from './node-socket.ts';
import { openRuntime } from './open-runtime.ts';
import { openTracing } from './open-tracing.ts';
import { flagSettings, type RunFlags } from './run-flags.ts';
import { openProxy, type ProxyHalf } from './run-proxy.ts';
import { settle } from './settle.ts';
import { keepWatchdog, notifySystemd, watchdogMs } from './systemd-notify.ts';
import { version } from './version.ts';

export function registerRun(program: Command): void {
  program
    .command('run')
    .description('run the node: the agent (kubelet) and the Service proxy (kube-proxy)')
    .option('--config <file...>', 'KubeletConfiguration, KubeProxyConfiguration and StevedoreConfiguration documents')
    .option('--config-dir <folder>', 'folder of *.conf files merged over --config, in the order of their names')
    .option('--kubeconfig <file>', 'how to reach the API server, and as whom')
    .option('--bootstrap-kubeconfig <file>', 'used once, to ask for the certificate that --kubeconfig then holds')
    .option('--hostname-override <name>', 'name of the Node, instead of the host name')
    .option('--node-ip <addresses>', 'address of the node, or one of each family with a comma between')
    .option('--root-dir <folder>', 'where pods, plugins and state are kept (default /var/lib/kubelet)')
    .option('--cert-dir <folder>', 'where certificates are kept (default: pki under the root dir)')
    .option(
      '--container-runtime-endpoint <url>',
      'socket of the container runtime (default unix:///run/containerd/containerd.sock)',
    )
    .option('--node-labels <labels>', 'labels to register with: key=value,…')
    .option('--register-with-taints <taints>', 'taints to register with: key=value:effect,…')
    .option('--cloud-provider <name>', '"external", or empty')
    .option('--lock-file <file>', 'hold this file with flock while the daemon runs, and wait for it first')
    .option('--exit-on-lock-contention', 'end when another process waits for the --lock-file')
    .option('--only <half>', 'run only one half: agent or proxy')
    .option('--dry-run', 'with --only proxy: print the rules that would be written, and end')
    .option('-v, --v <level>', 'log level: debug, info, warn or error')
    .action(async (flags: RunFlags) => {
      process.exitCode = await run(flags);
      // All that has an order has ended. What does not end by itself, a call of the runtime that hangs or a command in a shell say, does not keep the daemon, nor its
      // successor; only what --dry-run printed may still have to reach its reader.
      setTimeout(() => process.exit(), flags.dryRun ? 250 : 20).unref();
    });
}

/** Ends only when told to, or when the daemon cannot do its job; resolves with the exit code. */
async function run(flags: RunFlags): Promise<number> {
  // For this process (dist/stevedore); what it starts shall not write there.
  delete process.env.NODE_COMPILE_CACHE;
  let configuration: Configuration;
  try {
    configuration = await loadConfiguration({
      files: flags.config ?? [],
      dropInFolder: flags.configDir,
      flags: flagSettings(flags),
    });
  } catch (error) {
    process.stderr.write(`stevedore: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
  const { stevedore } = configuration;
  const log = createLog({ level: stevedore.log.level, format: stevedore.log.format });
  for (const warning of configuration.warnings) log.warn(warning);
  if (flags.only !== undefined && flags.only !== 'agent' && flags.only !== 'proxy') {
    log.error(`--only ${flags.only}: it is agent or proxy`);
    return 1;
  }
  if (flags.exitOnLockContention && flags.lockFile === undefined) {
    log.error('--exit-on-lock-contention: there is no --lock-file to watch');
    return 1;
  }
  const halves = {
    agent: flags.only !== 'proxy' && stevedore.agent.enabled,
    proxy: flags.only !== 'agent' && stevedore.proxy.enabled,
  };
  try {
    return await runDaemon(configuration, halves, flags, log);
  } catch (error) {
    log.error('stevedore cannot run', { error });
    return 1;
  }
}

interface Halves {
  readonly agent: boolean;
  readonly proxy: boolean;
}

async function runDaemon(configuration: Configuration, halves: Halves, flags: RunFlags, log: Log): Promise<number> {
  const dryRun = flags.dryRun ?? false;
  const { kubelet, stevedore } = configuration;
  const registry = createRegistry();
  const nodeName = (stevedore.hostnameOverride || hostname()).trim().toLowerCase();
  const stopping = new AbortController();
  let exitCode = 0;
  const stop = (why: string, code: number): void => {
    if (stopping.signal.aborted) return;
    exitCode = code;
    log.info('stopping; pods go on', { why });
    stopping.abort(new Error(why));
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop(signal, 0));
  // Without an API server a node still runs the pods of its own manifests.
  const alone =
    halves.agent &&
    stevedore.kubeconfig === '' &&
    stevedore.bootstrapKubeconfig === '' &&
    (kubelet.staticPodPath !== '' || kubelet.staticPodURL !== '');
  if (alone)
    log.warn('no kubeconfig is named: the node runs alone, with the pods of its manifests and without Services', {
      staticPodPath: kubelet.staticPodPath,
      staticPodURL: kubelet.staticPodURL,
    });
  let identity: Identity | undefined;
  let lock: FileLock | undefined;
  try {
    if (flags.lockFile !== undefined) {
      log.info('waiting for the lock', { file: flags.lockFile });
      lock = await lockFile({ clock: systemClock }, flags.lockFile, stopping.signal);
    }
    if (!alone)
      identity = await openNodeIdentity(
        configuration,
        nodeName,
        { log, clock: systemClock, registry },
        stopping.signal,
      );
  } catch (error) {
    // Told to end while it waited for its certificate.
    if (stopping.signal.aborted) return exitCode;
    throw error;
  }
  const observe = createRestMetrics(registry);
  const client = identity
    ? createKubeClient({ log, clock: systemClock, observe }, { ...identity.config, userAgent: `stevedore/${version}` })
    : createNoClient();

  const tasks = supervise({
    log,
    onFault: (name, error) => {
      log.error(`${name} has ended though it must not; stevedore ends, and is started again by its unit`, { error });
      stop(`${name} failed`, 1);
    },
  });
  const inForce = flagsInForce(configuration, flags);
  const proxy =
    halves.proxy && !alone
      ? await openProxy({ configuration, client, registry, observe, log, nodeName, flags: inForce, dryRun })
      : undefined;
  if (dryRun) {
    if (proxy) tasks.start('proxy', proxy.run);
    try {
      process.stdout.write((await proxy?.dryRun(stopping.signal)) ?? '');
    } catch (error) {
      if (!stopping.signal.aborted) throw error;
    } finally {
      await tasks.stop();
      await client.close();
    }
    return exitCode;
  }
  const rotate = identity?.rotate;
  let socket: NodeSocket | undefined;
  let agent: Agent | undefined;
  let runtimeClaim: Claim | undefined;
  try {
    // First of all: where another daemon answers, nothing is touched.
    const shown = {
      log,
      get agent() {
        return agent;
      },
      proxy,
      nodeName,
      version,
    };
    socket = await serveNodeSocket(shown, stevedore.socketPath);
    if (flags.exitOnLockContention)
      void lock?.wanted(stopping.signal).then(
        (why) => stop(`${flags.lockFile}: ${why}`, 0),
        (error: unknown) => stop(`${flags.lockFile} cannot be watched: ${describeError(error)}`, 1),
      );
    if (rotate) tasks.start('client certificate', (signal) => rotate(client, signal));
    if (proxy) tasks.start('proxy', proxy.run);
    if (halves.agent) {
      agent = await startAgent(
        {
          configuration,
          client: alone ? undefined : client,
          registry,
          log,
          nodeName,
          flags: inForce,
          proxy,
          async claimRuntime() {
            const holder = `stevedore, process ${process.pid}, node ${nodeName}, root directory ${stevedore.rootDir}`;
            runtimeClaim = await claimRuntime(kubelet.containerRuntimeEndpoint, holder, log);
          },
          onFault: (task, error) => {
            log.error(`${task} has ended though it must not; stevedore ends, and is started again by its unit`, {
              error,
            });
            stop(`${task} failed`, 1);
          },
        },
        stopping.signal,
      );
      tasks.start('agent', agent.run);
      if (kubelet.makeIPTablesUtilChains)
        tasks.start('iptables chains', createIptablesChains({ exec, clock: systemClock, log }).run);
    }
    await notifySystemd('READY=1', log);
    tasks.start('watchdog', (signal) =>
      keepWatchdog({ clock: systemClock, log }, watchdogMs(process.env, process.pid), signal),
    );
    log.info('stevedore runs', {
      version,
      node: nodeName,
      agent: halves.agent,
      proxy: proxy !== undefined,
      rootDir: stevedore.rootDir,
      runtime: kubelet.containerRuntimeEndpoint,
    });
    await Promise.all([settle({ clock: systemClock, log }, stopping.signal), aborted(stopping.signal)]);
  } catch (error) {
    if (!stopping.signal.aborted) {
      log.error('stevedore cannot run', { error });
      exitCode = 1;
      stopping.abort(error);
    }
  }
  await notifySystemd('STOPPING=1', log);
  const ended = (async () => {
    await socket?.close();
    await tasks.stop();
    await runtimeClaim?.release();
    await client.close();
    lock?.release();
  })();
  const late = new AbortController();
  const overdue = systemClock.sleep(stevedore.stopTimeout, late.signal).then(
    () => log.warn('not everything ended in order within stopTimeout', { stopTimeoutMs: stevedore.stopTimeout }),
    () => undefined,
  );
  await Promise.race([ended, overdue]);
  late.abort();
  return exitCode;
}

async function openNodeIdentity(
  { kubelet, stevedore }: Configuration,
  nodeName: string,
  deps: IdentityDeps,
  signal: AbortSignal,
): Promise<Identity> {
  if (stevedore.kubeconfig === '')
    throw new Error(
      'no API server is named: give --kubeconfig FILE, or `kubeconfig:` in a StevedoreConfiguration document',
    );
  return openIdentity(
    deps,
    {
      nodeName,
      kubeconfig: stevedore.kubeconfig,
      bootstrapKubeconfig: stevedore.bootstrapKubeconfig,
      certDir: certDirOf(stevedore),
      rotate: kubelet.rotateCertificates,
    },
    signal,
  );
}

const certDirOf = ({ certDir, rootDir }: Configuration['stevedore']): string => certDir || join(rootDir, 'pki');

interface AgentStart {
  readonly configuration: Configuration;
  readonly client: KubeClient | undefined;
  readonly registry: MetricsRegistry;
  readonly log: Log;
  readonly nodeName: string;
  readonly flags: Readonly<Record<string, string>>;
  readonly proxy: ProxyHalf | undefined;
  claimRuntime(): Promise<void>;
  onFault(task: string, error: unknown): void;
}

async function startAgent(start: AgentStart, signal: AbortSignal) {
  const { configuration, client, registry, log, nodeName, proxy } = start;
  const { kubelet, stevedore } = configuration;
  const tracing = kubelet.tracing && (await openTracing({ log, clock: systemClock }, kubelet.tracing, nodeName));
  const tracer = tracing?.tracer;
  const runtime = await openRuntime(
    { log, clock: systemClock, tracer },
    {
      endpoint: kubelet.containerRuntimeEndpoint,
      runtimeRequestTimeoutMs: kubelet.runtimeRequestTimeout,
      rootDir: stevedore.rootDir,
      cni: stevedore.cni,
    },
  );
  const options: AgentOptions = {
    nodeName,
    flags: start.flags,
    nodeIp: stevedore.nodeIP,
    labels: stevedore.nodeLabels,
    taints: kubelet.registerWithTaints as readonly Taint[],
    config: kubelet,
    rootDir: stevedore.rootDir,
    certDir: certDirOf(stevedore),
    kubeletVersion: kubeletVersion(version),
    externalCloudProvider: stevedore.cloudProvider === 'external',
    cniConfDir: stevedore.cni.confDir,
    writeBridge: stevedore.cni.writeBridge,
    instanceMetadata: stevedore.instanceMetadata === 'auto',
    kernelSettings: stevedore.kernelSettings === 'auto',
    imageCredentials: {
      rootDir: stevedore.rootDir,
      ...(stevedore.imageCredentialProviderConfig
        ? {
            credentialProviderConfig: stevedore.imageCredentialProviderConfig,
            credentialProviderBinDir: stevedore.imageCredentialProviderBinDir,
          }
        : {}),
    },
  };
  const agent = await createAgent(
    {
      client,
      runtime,
      clock: systemClock,
      log,
      registry,
      onFault: start.onFault,
      claimRuntime: start.claimRuntime,
      tracer,
      ...(proxy ? { onServing: proxy.hint } : {}),
    },
    options,
    signal,
  );
  if (proxy) proxy.attach(agent.node);
  return {
    ...agent,
    async run(inner: AbortSignal) {
      // After the agent, whose last spans it sends.
      const stopped = new AbortController();
      const sending = tracing?.run(stopped.signal);
      try {
        await agent.run(inner);
      } finally {
        await runtime.close();
        stopped.abort();
        await sending;
      }
    },
  };
}
