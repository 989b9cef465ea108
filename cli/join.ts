// `stevedore join`: makes this host a node of a cluster. Flags are kubeadm's.
import { hostname } from 'node:os';
import type { Command } from 'commander';
import { createKubeClient } from '../kube/http-client.ts';
import { systemClock as clock } from '../lib/clock.ts';
import { createLog, describeError } from '../lib/log.ts';
import { createHostReader } from './join/host-reader.ts';
import { joinNode } from './join/join-node.ts';
import { createService } from './join/service.ts';

export const configFile = '/etc/stevedore/config.yaml';
export const kubernetesDir = '/etc/kubernetes';
export const defaultEndpoint = 'unix:///run/containerd/containerd.sock';
export const endpointOf = (socket: string | undefined): string =>
  socket === undefined ? defaultEndpoint : socket.startsWith('/') ? `unix://${socket}` : socket;

interface JoinFlags {
  token?: string;
  discoveryToken?: string;
  tlsBootstrapToken?: string;
  discoveryTokenCaCertHash: string[];
  discoveryTokenUnsafeSkipCaVerification?: boolean;
  discoveryFile?: string;
  nodeName?: string;
  nodeIp?: string;
  criSocket?: string;
  ignorePreflightErrors: string[];
  dryRun?: boolean;
  only?: string;
}

const several = (value: string, before: string[]): string[] => [...before, ...value.split(',').filter(Boolean)];

export function registerJoin(program: Command): void {
  program
    .command('join')
    .description('make this host a node of a cluster')
    .argument('[api-server-endpoint]', 'HOST:PORT of the API server')
    .option('--token <token>', 'for discovery and for the first certificate')
    .option('--discovery-token <token>', 'for discovery only')
    .option('--tls-bootstrap-token <token>', 'for the first certificate only')
    .option('--discovery-token-ca-cert-hash <hash>', 'sha256:… of the CA; may be given several times', several, [])
    .option('--discovery-token-unsafe-skip-ca-verification', 'believe the token’s signature alone')
    .option('--discovery-file <file>', 'a kubeconfig file, or an https URL of one, instead of a token')
    .option('--node-name <name>', 'name of the node, instead of the host name')
    .option('--node-ip <addresses>', 'address of the node, or one of each family with a comma between')
    .option('--cri-socket <socket>', 'socket of the container runtime', defaultEndpoint)
    .option('--ignore-preflight-errors <names>', 'preflight errors to go on with; all: every one', several, [])
    .option('--only <half>', 'agent: leave Services to a kube-proxy that runs here already')
    .option('--dry-run', 'look at the host and the cluster, and change nothing')
    .action(async (endpoint: string | undefined, flags: JoinFlags) => {
      process.exitCode = await join(endpoint, flags);
    });
}

async function join(endpoint: string | undefined, flags: JoinFlags): Promise<number> {
  const say = (text: string): void => void process.stdout.write(text);
  const log = createLog({ level: 'warn', format: 'text' });
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopping.abort(new Error(signal)));
  if (flags.only !== undefined && flags.only !== 'agent') {
    process.stderr.write(
      `stevedore: --only ${flags.only}: a node is joined with both halves, or with the agent only\n`,
    );
    return 1;
  }
  try {
    await joinNode(
      {
        clock,
        log,
        host: createHostReader(),
        service: createService(),
        connect: (config) => createKubeClient({ clock, log }, config),
        say,
      },
      {
        endpoint,
        token: flags.discoveryToken ?? flags.token,
        tlsBootstrapToken: flags.tlsBootstrapToken ?? flags.token,
        caHashes: flags.discoveryTokenCaCertHash,
        skipCaVerification: flags.discoveryTokenUnsafeSkipCaVerification ?? false,
        discoveryFile: flags.discoveryFile,
        nodeName: (flags.nodeName ?? hostname()).trim().toLowerCase(),
        nodeIp: flags.nodeIp ?? '',
        runtimeEndpoint: endpointOf(flags.criSocket),
        withProxy: flags.only !== 'agent',
        ignored: flags.ignorePreflightErrors,
        dryRun: flags.dryRun ?? false,
        kubernetesDir,
        configFile,
        certDir: '/var/lib/kubelet/pki',
        cniConfDir: '/etc/cni/net.d',
        readyTimeoutMs: 120_000,
      },
      stopping.signal,
    );
    return 0;
  } catch (error) {
    process.stderr.write(`stevedore: this host did not join: ${describeError(error)}\n`);
    return 1;
  }
}
