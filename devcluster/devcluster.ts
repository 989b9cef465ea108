// The embedded control plane: a Kubernetes API server in memory for one machine. It is a fixture and a first taste; it has no DNS, keeps
// nothing but its certificate authority, and users outgrow it into a real control plane.
import { createHistory } from '../kube/history.ts';
import { createKubeClient } from '../kube/http-client.ts';
import { renderKubeconfig } from '../kube/render-kubeconfig.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { addressAt, parseRange } from './addresses.ts';
import { bootstrap } from './bootstrap.ts';
import { createAuthority } from './certificates.ts';
import type { Obj } from './kinds.ts';
import { createRegistry } from './registry.ts';
import { startServer } from './server.ts';
import { createTokens } from './tokens.ts';

export interface DevclusterDeps {
  readonly clock: Clock;
  readonly log: Log;
}

export interface DevclusterOptions {
  /** Where the certificate authority is kept, so that kubeconfigs outlive a restart. Absent: in memory. */
  readonly dataDir?: string;
  /** The host is also the address in the server's kubeconfigs and in the endpoints of the Service `kubernetes`. */
  readonly listen: { readonly host: string; readonly port: number };
  /** Default 10.96.0.0/16. */
  readonly serviceCidr?: string;
}

export type Devcluster = Awaited<ReturnType<typeof createDevcluster>>;

const ownName = 'kubernetes.default.svc.cluster.local';
/** Also as it is abbreviated inside the cluster: `kubernetes`, `kubernetes.default`, … */
const ownNames = [1, 2, 3, 5].map((parts) => ownName.split('.').slice(0, parts).join('.'));

export async function createDevcluster({ clock, log }: DevclusterDeps, options: DevclusterOptions) {
  const { serviceCidr = '10.96.0.0/16' } = options;
  const { host } = options.listen;
  const authority = await createAuthority({ clock }, options.dataDir);
  const names = new Set(['localhost', '127.0.0.1', '::1', ...ownNames, host, addressAt(parseRange(serviceCidr), 1)]);
  const [serving, admin, kubeletClient] = await Promise.all([
    authority.issueServer('kube-apiserver', [...names]),
    authority.issueClient('kubernetes-admin', ['system:masters']),
    authority.issueClient('kube-apiserver-kubelet-client', ['system:masters']),
  ]);
  // Versions start at the time of day, so that those of an earlier run are too old rather than wrong.
  const storage = createHistory<Obj>(clock.now());
  const registry = createRegistry({ clock, storage, random: Math.random }, { serviceCidr });
  const tokens = createTokens({ clock, find: registry.find }, authority.keyPem);
  const serverDeps = { log, clock, storage, registry, tokens, identity: kubeletClient };
  const { certPem: caPem } = authority;
  const tls = { ...serving, caPem };
  let server = await startServer(serverDeps, { ...options.listen, ...tls });
  const { port } = server;
  const url = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const advertiseAddress = host.startsWith('127.') || host === '::1' ? undefined : host;
  bootstrap(registry, { serviceCidr, port, advertiseAddress });
  const data = (pem: string) => ({ from: 'data' as const, pem });
  const client = createKubeClient(
    { clock, log },
    {
      source: 'devcluster',
      server: url,
      certificateAuthority: data(caPem),
      clientCertificate: data(admin.certPem),
      clientKey: data(admin.keyPem),
      userAgent: 'stevedore-devcluster',
    },
  );
  const cluster = { cluster: 'stevedore-dev', server: url, certificateAuthority: data(caPem) };
  const render = (user: string, pair: typeof admin): string =>
    renderKubeconfig({ ...cluster, user, client: { certificate: data(pair.certPem), key: data(pair.keyPem) } });
  return {
    url,
    caPem,
    /** With every right. */
    client,
    adminKubeconfig: (): string => render('kubernetes-admin', admin),
    /** With a client certificate for this user. */
    async kubeconfigFor({ user, groups = [] }: { user: string; groups?: readonly string[] }): Promise<string> {
      return render(user, await authority.issueClient(user, groups));
    },
    /** Stops answering, as an API server that is gone; what it knows is kept. */
    pause: (): Promise<void> => server.close(),
    async resume(): Promise<void> {
      server = await startServer(serverDeps, { host, port, ...tls });
    },
    async stop(): Promise<void> {
      await client.close();
      await server.close();
    },
  };
}
