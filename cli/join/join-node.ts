// The steps of `stevedore join`, each with its line of progress; what fails undoes what was made.
import { join } from 'node:path';
import { bootstrapClient } from '../../agent/tls/bootstrap.ts';
import { createCertificateStore } from '../../agent/tls/certificate-store.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { ClientConfig } from '../../kube/client-config.ts';
import { isNotFound } from '../../kube/errors.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { renderKubeconfig } from '../../kube/render-kubeconfig.ts';
import { resources } from '../../kube/resources.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { withTimeout } from '../../lib/abort.ts';
import { parseDocuments } from '../config/documents.ts';
import { combineConfiguration, type Configuration } from '../config/load.ts';
import { type ClusterSettings, configurationFile, keepKubeProxyAway, readClusterSettings } from './cluster-settings.ts';
import { checkToken, type Cluster, discoverByFile, discoverByToken, parseToken } from './discovery.ts';
import type { HostReader } from './host-reader.ts';
import { blocking, findingsText, runPreflight } from './preflight.ts';
import type { Service } from './service.ts';
import { createUndo, type Undo } from './undo.ts';

export interface JoinDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly host: HostReader;
  readonly service: Service;
  connect(config: ClientConfig): KubeClient;
  say(text: string): void;
}

export interface JoinOptions {
  /** `HOST:PORT`; with a discovery file it may be absent. */
  readonly endpoint: string | undefined;
  readonly token: string | undefined;
  readonly tlsBootstrapToken: string | undefined;
  readonly caHashes: readonly string[];
  readonly skipCaVerification: boolean;
  readonly discoveryFile: string | undefined;
  readonly nodeName: string;
  readonly nodeIp: string;
  readonly runtimeEndpoint: string;
  readonly withProxy: boolean;
  readonly ignored: readonly string[];
  readonly dryRun: boolean;
  /** Folders; tests have their own. */
  readonly kubernetesDir: string;
  readonly configFile: string;
  readonly certDir: string;
  readonly cniConfDir: string;
  /** How long Ready is awaited, in milliseconds. */
  readonly readyTimeoutMs: number;
}

/** The join cannot go on. The message says why and what to do. */
export class JoinError extends Error {
  override name = 'JoinError';
}

async function discover(deps: JoinDeps, options: JoinOptions, signal: AbortSignal): Promise<Cluster> {
  if (options.discoveryFile !== undefined) return discoverByFile(options.discoveryFile, signal);
  if (options.endpoint === undefined || options.token === undefined)
    throw new JoinError('give HOST:PORT and --token with --discovery-token-ca-cert-hash, or --discovery-file');
  return discoverByToken(
    {
      endpoint: options.endpoint,
      token: parseToken(options.token),
      caHashes: options.caHashes,
      skipCaVerification: options.skipCaVerification,
    },
    deps.clock.now(),
    signal,
  );
}

const bootstrapText = ({ server, ca }: Cluster, token: string): string =>
  renderKubeconfig({
    cluster: 'kubernetes',
    server,
    certificateAuthority: { from: 'data', pem: ca },
    user: 'tls-bootstrap-token-user',
    token,
  });

async function preflight(deps: JoinDeps, options: JoinOptions): Promise<void> {
  const findings = await runPreflight(deps.host, {
    nodeName: options.nodeName,
    runtimeEndpoint: options.runtimeEndpoint,
    failSwapOn: true,
    failCgroupV1: false,
    agentPort: 10_250,
    withProxy: options.withProxy,
    cniConfDir: options.cniConfDir,
    kubeconfig: join(options.kubernetesDir, 'kubelet.conf'),
  });
  deps.say(findingsText(findings, true));
  const wrong = blocking(findings, options.ignored);
  if (wrong.length > 0)
    throw new JoinError(
      `the host is not ready: ${wrong.map(({ name }) => name).join(', ')} (to go on all the same: --ignore-preflight-errors=${wrong.map(({ name }) => name).join(',')})`,
    );
}

function readSettings(
  settings: ClusterSettings,
  options: JoinOptions,
  paths: { kubeconfig: string; bootstrap: string; ca: string },
) {
  const text = configurationFile(settings, {
    runtimeEndpoint: options.runtimeEndpoint,
    kubeconfig: paths.kubeconfig,
    bootstrapKubeconfig: paths.bootstrap,
    nodeName: options.nodeName,
    caFile: paths.ca,
    nodeIp: options.nodeIp,
    withProxy: options.withProxy,
  });
  const configuration: Configuration = combineConfiguration(parseDocuments(options.configFile, text), [], []);
  return { text, configuration };
}

async function awaitReady(
  deps: JoinDeps,
  client: KubeClient,
  options: JoinOptions,
  signal: AbortSignal,
): Promise<void> {
  const { clock, say } = deps;
  let told = '';
  const ready = async (inner: AbortSignal): Promise<void> => {
    for (;;) {
      const node: Node | undefined = await client
        .get(resources.nodes, { name: options.nodeName }, { signal: inner })
        .catch(() => undefined);
      const condition = node?.status?.conditions?.find(({ type }) => type === 'Ready');
      if (condition?.status === 'True') return;
      const text = condition ? `not Ready yet: ${condition.message ?? ''}` : 'waiting for the node to register';
      if (text !== told) say(`  … ${text}\n`);
      told = text;
      await clock.sleep(500, inner);
    }
  };
  try {
    await withTimeout(clock, 'becoming Ready', options.readyTimeoutMs, signal, ready);
    say(`node ${options.nodeName} is Ready\n`);
  } catch (error) {
    signal.throwIfAborted();
    say(
      `node ${options.nodeName} joined, and is not Ready after ${options.readyTimeoutMs / 1000} s (${told}); see: journalctl -u stevedore, stevedore status\n`,
    );
    if (!(error instanceof Error)) throw error;
  }
}

async function install(
  deps: JoinDeps,
  options: JoinOptions,
  cluster: Cluster,
  undo: Undo,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log, say } = deps;
  const token = options.tlsBootstrapToken ?? options.token;
  if (token === undefined)
    throw new JoinError('--discovery-file needs --tls-bootstrap-token for the node’s first identity');
  await checkToken(cluster, token, clock.now(), signal);
  const paths = {
    kubeconfig: join(options.kubernetesDir, 'kubelet.conf'),
    bootstrap: join(options.kubernetesDir, 'bootstrap-kubelet.conf'),
    ca: join(options.kubernetesDir, 'pki/ca.crt'),
  };
  await undo.write(paths.ca, cluster.ca, 0o644);
  await undo.write(paths.bootstrap, bootstrapText(cluster, token), 0o600);
  say(`asking ${cluster.server} for a certificate for node ${options.nodeName}\n`);
  const store = createCertificateStore({ folder: options.certDir, name: 'kubelet-client' });
  await undo.note(paths.kubeconfig);
  await undo.folder(options.certDir);
  await undo.setAside(store.currentPath);
  await bootstrapClient(
    { clock, log, store, connect: deps.connect },
    { nodeName: options.nodeName, kubeconfig: paths.kubeconfig, bootstrapKubeconfig: paths.bootstrap, attempts: 5 },
    signal,
  );
  const client = deps.connect(await loadKubeconfig(paths.kubeconfig));
  try {
    await refuseTakenName(client, options.nodeName, signal);
    const settings = await readClusterSettings(client, signal);
    say(
      settings.kubelet === undefined
        ? 'the cluster has no kubelet-config ConfigMap: Kubernetes’ defaults hold\n'
        : "taking over the cluster's kubelet-config ConfigMap\n",
    );
    const { text, configuration } = readSettings(settings, options, paths);
    for (const warning of configuration.warnings) say(`  warning: ${warning}\n`);
    await undo.write(options.configFile, text, 0o644);
    if (options.withProxy) {
      say(
        'the Service proxy uses the node’s own identity, which has to be let read Services and EndpointSlices:\n' +
          `  kubectl create clusterrolebinding stevedore:${options.nodeName}:proxy --clusterrole=system:node-proxier --user=system:node:${options.nodeName}\n`,
      );
      if (settings.proxy !== undefined)
        say(
          `the cluster's own kube-proxy DaemonSet would land on this node too; keep it away with\n  ${keepKubeProxyAway(options.nodeName)}\nor join with --only agent\n`,
        );
    }
    await startAndWait(deps, client, options, undo, signal);
  } finally {
    await client.close();
  }
}

/** Somebody else's node must not be taken over by a slip of the name. A bootstrap token may not look: the node's own identity may. */
async function refuseTakenName(client: KubeClient, nodeName: string, signal: AbortSignal): Promise<void> {
  const node: Node | undefined = await client
    .get(resources.nodes, { name: nodeName }, { signal, timeoutMs: 10_000 })
    .catch((error: unknown) => {
      if (isNotFound(error)) return undefined;
      throw error;
    });
  if (node?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True'))
    throw new JoinError(
      `a node named ${nodeName} is in this cluster and Ready: give another --node-name, or delete it first (kubectl delete node ${nodeName})`,
    );
}

async function startAndWait(
  deps: JoinDeps,
  client: KubeClient,
  options: JoinOptions,
  undo: Undo,
  signal: AbortSignal,
): Promise<void> {
  const why = await deps.service.unavailable();
  if (why !== undefined) {
    deps.say(`${why}; start the daemon yourself:\n  stevedore run --config ${options.configFile}\n`);
    return;
  }
  undo.push(() => deps.service.stop());
  await deps.service.start(signal);
  deps.say('stevedore.service is enabled and started\n');
  await awaitReady(deps, client, options, signal);
}

/** Rejects with a JoinError, DiscoveryError, SigningError, ConfigurationError or ApiError; nothing half-made is left then. */
export async function joinNode(deps: JoinDeps, options: JoinOptions, signal: AbortSignal): Promise<void> {
  deps.say('looking at the host\n');
  await preflight(deps, options);
  deps.say('looking at the cluster\n');
  const cluster = await discover(deps, options, signal);
  deps.say(`the cluster at ${cluster.server} is who it says it is\n`);
  if (options.dryRun) {
    deps.say('dry run: nothing was changed\n');
    return;
  }
  const undo = createUndo();
  try {
    await install(deps, options, cluster, undo, signal);
  } catch (error) {
    await undo.back();
    throw error;
  }
}
