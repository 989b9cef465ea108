// The embedded control plane: a Kubernetes API server in memory for one machine, and its small controllers. It is a fixture and a first taste;
// it has no DNS, keeps nothing but its certificate authority, and users outgrow it into a real control plane.
import { createKubeClient } from '../kube/http-client.ts';
import type { KubeClient } from '../kube/client.ts';
import type { Node, Secret } from '../kube/types/core.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import type { Pod } from '../kube/types/pod.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { addressAt, parseRange } from './addresses.ts';
import { authenticateToken, createAuthenticate } from './authenticate.ts';
import { createAuthorize } from './authorize.ts';
import { bootstrap, signClusterInfo } from './bootstrap.ts';
import { createAuthority, type KeyPair } from './certificates.ts';
import { createDispatch } from './dispatch.ts';
import { createHandlers } from './handlers.ts';
import { kindByName } from './kinds.ts';
import { spliceUpgrade } from './node-link.ts';
import { createRegistry } from './registry.ts';
import { type ApiServer, startServer } from './server.ts';
import { signRequests } from './signer.ts';
import { createStorage } from './store.ts';
import { createTokens } from './tokens.ts';

export interface DevclusterDeps {
  readonly clock: Clock;
  readonly log: Log;
}

export interface DevclusterOptions {
  /** Where the certificate authority is kept, so that kubeconfigs outlive a restart. Absent: in memory. */
  readonly dataDir?: string;
  readonly listen: { readonly host: string; readonly port: number };
  /** Further names and addresses for the server's certificate. */
  readonly names?: readonly string[];
  /** The address in the server's kubeconfigs and in the endpoints of the Service `kubernetes`. Default: the host listened on. */
  readonly advertiseAddress?: string;
  /** One range, or one for each family separated by a comma. Default 10.96.0.0/16. */
  readonly serviceCidr?: string;
  /** Whether nodes may list Services and EndpointSlices as themselves; on a cluster made by kubeadm they may not. Default true. */
  readonly nodesMayProxy?: boolean;
}

export interface Devcluster {
  readonly url: string;
  readonly caPem: string;
  adminKubeconfig(): string;
  /** A kubeconfig with a client certificate for this user. */
  kubeconfigFor(identity: { readonly user: string; readonly groups?: readonly string[] }): Promise<string>;
  /** A client with every right. */
  readonly client: KubeClient;
  /** The certificate the API server shows to nodes. */
  readonly kubeletClient: KeyPair;
  /** Stops answering, as an API server that is gone; what it knows is kept. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  stop(): Promise<void>;
}

const version = {
  major: '1',
  minor: '36',
  gitVersion: 'v1.36.2+stevedore.devcluster',
  gitTreeState: 'clean',
  goVersion: 'none',
  compiler: 'none',
  platform: 'linux/amd64',
};

const unspecified = ['0.0.0.0', '::'];

export async function createDevcluster(deps: DevclusterDeps, options: DevclusterOptions): Promise<Devcluster> {
  const { clock, log } = deps;
  const serviceCidrs = (options.serviceCidr ?? '10.96.0.0/16').split(',');
  const authority = await createAuthority({ clock }, options.dataDir);
  const address =
    options.advertiseAddress ?? (unspecified.includes(options.listen.host) ? '127.0.0.1' : options.listen.host);
  const names = [
    'localhost',
    '127.0.0.1',
    '::1',
    'kubernetes',
    'kubernetes.default',
    'kubernetes.default.svc',
    'kubernetes.default.svc.cluster.local',
  ];
  const serviceAddresses = serviceCidrs.map((cidr) => firstAddress(cidr));
  const [serving, admin, kubeletClient] = await Promise.all([
    authority.issueServer('kube-apiserver', [
      ...new Set([...names, address, ...serviceAddresses, ...(options.names ?? [])]),
    ]),
    authority.issueClient('kubernetes-admin', ['system:masters']),
    authority.issueClient('kube-apiserver-kubelet-client', ['system:masters']),
  ]);

  const storage = createStorage({ clock });
  const registry = createRegistry({ clock, storage, random: Math.random }, { serviceCidrs });
  const one = <T>(plural: string, namespace: string | undefined, name: string, group = ''): T | undefined =>
    registry.collectionOf(kindByName(plural, group)).get(namespace, name) as unknown as T | undefined;
  const many = <T>(plural: string, namespace: string | undefined, group: string): readonly T[] =>
    registry.collectionOf(kindByName(plural, group)).list(namespace) as unknown as readonly T[];

  const plurals = { ServiceAccount: 'serviceaccounts', Pod: 'pods', Secret: 'secrets', Node: 'nodes' } as const;
  const tokens = createTokens(
    { clock, find: (kind, namespace, name) => one<KubeObject>(plurals[kind], namespace, name) },
    authority.keyPem,
  );
  const identities = {
    clock,
    tokens,
    secret: (namespace: string, name: string) => one<Secret>('secrets', namespace, name),
  };
  const rbac = 'rbac.authorization.k8s.io';
  const authorize = createAuthorize({
    role: (namespace, name) => one(namespace ? 'roles' : 'clusterroles', namespace, name, rbac),
    bindings: (namespace) => many(namespace ? 'rolebindings' : 'clusterrolebindings', namespace, rbac),
  });
  const handlers = createHandlers({ clock, storage, registry });
  const nodeLink = {
    pod: (namespace: string, name: string) => registry.read(kindByName('pods'), namespace, name) as unknown as Pod,
    node: (name: string) => one<Node>('nodes', undefined, name),
    ...kubeletClient,
  };
  let server: ApiServer;
  let signing = Promise.resolve();
  const dispatch = createDispatch({
    clock,
    storage,
    registry,
    handlers,
    tokens,
    authorize,
    authenticateToken: (token) => authenticateToken(identities, token),
    nodeLink,
    version,
    serverAddress: () => `${bracketed(address)}:${server.port}`,
    onCertificateRequest() {
      signing = signing
        .then(() => signRequests({ clock, log, registry, authority }))
        .catch((error: unknown) =>
          log.error('certificate requests could not be gone through; tried again with the next', { error }),
        );
    },
  });
  const serverDeps = {
    log,
    authenticate: createAuthenticate(identities),
    authorize,
    dispatch,
    upgrade: (...[request, target, message, socket, head]: Parameters<Parameters<typeof startServer>[0]['upgrade']>) =>
      spliceUpgrade(nodeLink, request, target, message, socket, head),
  };
  const tls = { ...serving, caPem: authority.caPem };
  server = await startServer(serverDeps, { ...options.listen, ...tls });
  const { port } = server;
  const url = `https://${bracketed(address)}:${port}`;

  const kubeconfig = (user: string, pair: KeyPair | undefined): string =>
    renderKubeconfig({ url, caPem: authority.caPem, user, pair });
  bootstrap(registry, {
    serviceCidrs,
    port,
    advertiseAddress: address.startsWith('127.') || address === '::1' ? undefined : address,
    infoKubeconfig: kubeconfig('', undefined),
    nodesMayProxy: options.nodesMayProxy ?? true,
  });
  const unsign = signClusterInfo(registry);
  const data = (pem: string) => ({ from: 'data' as const, pem });
  const client = createKubeClient(
    { clock, log },
    {
      source: 'devcluster',
      server: url,
      certificateAuthority: data(authority.caPem),
      clientCertificate: data(admin.certPem),
      clientKey: data(admin.keyPem),
      userAgent: 'stevedore-devcluster',
    },
  );

  return {
    url,
    caPem: authority.caPem,
    client,
    kubeletClient,
    adminKubeconfig: () => kubeconfig('kubernetes-admin', admin),
    kubeconfigFor: async ({ user, groups = [] }) => kubeconfig(user, await authority.issueClient(user, groups)),
    pause: () => server.close(),
    async resume() {
      server = await startServer(serverDeps, { host: options.listen.host, port, ...tls });
    },
    async stop() {
      unsign();
      await client.close();
      await server.close();
      await signing;
    },
  };
}

const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address);

const firstAddress = (cidr: string): string => addressAt(parseRange(cidr), 1);

const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** A kubeconfig as JSON, which is YAML. Without a user it is what cluster-info holds. */
function renderKubeconfig({
  url,
  caPem,
  user,
  pair,
}: {
  url: string;
  caPem: string;
  user: string;
  pair: KeyPair | undefined;
}): string {
  const cluster = { server: url, 'certificate-authority-data': base64(caPem) };
  const name = pair ? 'stevedore-dev' : '';
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name, cluster }],
    contexts: pair ? [{ name, context: { cluster: name, user } }] : [],
    'current-context': pair ? name : '',
    users: pair
      ? [
          {
            name: user,
            user: { 'client-certificate-data': base64(pair.certPem), 'client-key-data': base64(pair.keyPem) },
          },
        ]
      : [],
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}
