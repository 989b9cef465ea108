// A real control plane on loopback for tests: etcd and kube-apiserver with Node authorizer and NodeRestriction, on request the
// controller manager and scheduler, all with certificates of a CA of its own, under one folder. Nothing of it is left after `stop`.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { exec } from '../../lib/exec.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import type { KubeClient } from '../../kube/client.ts';
import { createKubeClient } from '../../kube/http-client.ts';
import { renderKubeconfig } from '../../kube/render-kubeconfig.ts';
import { parseKubeconfig } from '../../kube/kubeconfig.ts';

// KUBEBUILDER_ASSETS is the field's convention for a folder that holds both.
const folders = [process.env.KUBEBUILDER_ASSETS].filter((folder) => folder !== undefined);

export function findBinary(name: string): string {
  const found = folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
  if (found === undefined)
    throw new Error(`no ${name}: set KUBEBUILDER_ASSETS to a folder that holds etcd and kube-apiserver`);
  return found;
}

export const hasControlPlane = (): boolean =>
  ['etcd', 'kube-apiserver'].every((name) => folders.some((folder) => existsSync(join(folder, name))));

export interface ControlPlaneOptions {
  /** Also run the controller manager. Default false. */
  readonly controllers?: boolean;
  readonly scheduler?: boolean;
  /** Where the API server listens. Default 127.0.0.1. */
  readonly address?: string;
  /** Further names and addresses of the serving certificate. */
  readonly alsoKnownAs?: readonly string[];
  readonly serviceCidr?: string;
  /** Pod range that the controller manager hands out in /24s. Default 10.244.0.0/16. */
  readonly clusterCidr?: string;
  /** More flags of the API server. */
  readonly flags?: readonly string[];
}

export interface Identity {
  readonly commonName: string;
  readonly organization?: string;
}

export interface ControlPlane {
  readonly dir: string;
  readonly server: string;
  /** PEM file of the CA that signs everything. */
  readonly caFile: string;
  /** A kubeconfig of cluster-admin. */
  readonly adminKubeconfig: string;
  readonly admin: KubeClient;
  /** Makes a client certificate and a kubeconfig around it; returns the kubeconfig's path. */
  kubeconfigFor(identity: Identity): Promise<string>;
  /** A kubeconfig with the node's own identity. */
  nodeKubeconfig(nodeName: string): Promise<string>;
  /** A kubeconfig with a token. */
  tokenKubeconfig(token: string): Promise<string>;
  kubectl(...args: string[]): Promise<string>;
  /** Ends the API server as a crash would; `startApiServer` brings it back with all its data. */
  stopApiServer(): Promise<void>;
  startApiServer(): Promise<void>;
  log(name: 'etcd' | 'kube-apiserver' | 'kube-controller-manager' | 'kube-scheduler'): Promise<string>;
  stop(): Promise<void>;
}

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });

interface Authority {
  readonly dir: string;
  readonly caFile: string;
  issue(name: string, identity: Identity, hosts?: readonly string[]): Promise<{ cert: string; key: string }>;
}

async function createAuthority(dir: string): Promise<Authority> {
  const caFile = join(dir, 'ca.crt');
  const caKey = join(dir, 'ca.key');
  const openssl = (...args: string[]) => exec('openssl', args);
  await openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', caKey);
  await openssl('req', '-x509', '-new', '-key', caKey, '-subj', '/CN=stevedore-lab-ca', '-days', '30', '-out', caFile);
  return {
    dir,
    caFile,
    async issue(name, { commonName, organization }, hosts = []) {
      const [cert, key, request, extensions] = ['crt', 'key', 'csr', 'ext'].map((end) => join(dir, `${name}.${end}`));
      const subject = `${organization === undefined ? '' : `/O=${organization}`}/CN=${commonName}`;
      const names = hosts.map((host) => `${/^[\d.]+$|:/.test(host) ? 'IP' : 'DNS'}:${host}`).join(',');
      await writeFile(
        extensions!,
        `keyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n${names ? `subjectAltName=${names}\n` : ''}`,
      );
      await openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', key!);
      await openssl('req', '-new', '-key', key!, '-subj', subject, '-out', request!);
      await openssl(
        ...['x509', '-req', '-in', request!, '-CA', caFile, '-CAkey', caKey, '-CAcreateserial'],
        ...['-days', '30', '-extfile', extensions!, '-out', cert!],
      );
      return { cert: cert!, key: key! };
    },
  };
}

const file = (path: string) => ({ from: 'file' as const, path });

const ended = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null;

async function end(child: ChildProcess | undefined, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (!child || ended(child)) return;
  const done = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill(signal);
  await Promise.race([done, sleep(8000).then(() => void child.kill('SIGKILL'))]);
  await done;
}

/** Starts it and waits until it answers; takes about five seconds. */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const { address = '127.0.0.1', serviceCidr = '10.96.0.0/16', clusterCidr = '10.244.0.0/16' } = options;
  const dir = await mkdtemp(join(tmpdir(), 'sv-cp-'));
  const children = new Map<string, ChildProcess>();
  const lastResort = (): void => {
    for (const child of children.values()) child.kill('SIGKILL');
  };
  process.once('exit', lastResort);
  const start = async (name: string, args: readonly string[]): Promise<void> => {
    const log = await open(join(dir, `${name}.log`), 'a');
    const child = spawn(findBinary(name), args, { stdio: ['ignore', log.fd, log.fd], cwd: dir });
    await log.close();
    children.set(name, child);
  };
  const readLog = (name: string): Promise<string> => readFile(join(dir, `${name}.log`), 'utf8').catch(() => '');
  const stop = async (): Promise<void> => {
    await admin?.close().catch(() => undefined);
    for (const name of ['kube-scheduler', 'kube-controller-manager', 'kube-apiserver', 'etcd'])
      await end(children.get(name), name === 'etcd' ? 'SIGKILL' : 'SIGTERM');
    process.off('exit', lastResort);
    await rm(dir, { recursive: true, force: true });
  };
  let admin: KubeClient | undefined;
  try {
    const pki = join(dir, 'pki');
    await mkdir(pki);
    const authority = await createAuthority(pki);
    const [etcdPort, peerPort, port] = [await freePort(), await freePort(), await freePort()];
    const server = `https://${address}:${port}`;
    const serving = await authority.issue('apiserver', { commonName: 'kube-apiserver' }, [
      ...['127.0.0.1', 'localhost', 'kubernetes', 'kubernetes.default.svc', '10.96.0.1', address],
      ...(options.alsoKnownAs ?? []),
    ]);
    const toKubelet = await authority.issue('apiserver-kubelet', {
      commonName: 'kube-apiserver-kubelet-client',
      organization: 'system:masters',
    });
    const accountKey = join(pki, 'sa.key');
    await exec('openssl', ['genrsa', '-out', accountKey, '2048']);

    const cluster = { cluster: 'lab', server, certificateAuthority: file(authority.caFile), user: 'user' };
    const kubeconfigFor = async (identity: Identity): Promise<string> => {
      const id = randomBytes(3).toString('hex');
      const { cert, key } = await authority.issue(`client-${id}`, identity);
      const path = join(dir, `${id}.kubeconfig`);
      await writeFile(path, renderKubeconfig({ ...cluster, client: { certificate: file(cert), key: file(key) } }));
      return path;
    };
    const adminKubeconfig = await kubeconfigFor({ commonName: 'lab-admin', organization: 'system:masters' });

    await start('etcd', [
      ...['--data-dir', join(dir, 'etcd'), '--unsafe-no-fsync', '--log-level', 'warn'],
      ...[
        '--listen-client-urls',
        `http://127.0.0.1:${etcdPort}`,
        '--advertise-client-urls',
        `http://127.0.0.1:${etcdPort}`,
      ],
      ...['--listen-peer-urls', `http://127.0.0.1:${peerPort}`],
      ...['--initial-advertise-peer-urls', `http://127.0.0.1:${peerPort}`],
      ...['--initial-cluster', `default=http://127.0.0.1:${peerPort}`],
    ]);
    const connection = createKubeClient(
      { log: silentLog, clock: systemClock },
      parseKubeconfig(await readFile(adminKubeconfig, 'utf8'), adminKubeconfig),
    );
    admin = connection;

    const waitReady = async (): Promise<void> => {
      for (let tries = 0; ; tries++) {
        const child = children.get('kube-apiserver');
        if (tries > 600 || !child || ended(child))
          throw new Error(`kube-apiserver did not become ready:\n${(await readLog('kube-apiserver')).slice(-3000)}`);
        try {
          await connection.raw('GET', '/readyz', { timeoutMs: 2000 });
          await connection.raw('GET', '/api/v1/namespaces/kube-node-lease', { timeoutMs: 2000 });
          return;
        } catch {
          await sleep(100);
        }
      }
    };
    const startApiServer = async (): Promise<void> => {
      await start('kube-apiserver', [
        `--etcd-servers=http://127.0.0.1:${etcdPort}`,
        `--bind-address=${address}`,
        `--advertise-address=${address === '127.0.0.1' ? '10.255.255.1' : address}`,
        '--endpoint-reconciler-type=none',
        `--secure-port=${port}`,
        `--service-cluster-ip-range=${serviceCidr}`,
        `--client-ca-file=${authority.caFile}`,
        `--tls-cert-file=${serving.cert}`,
        `--tls-private-key-file=${serving.key}`,
        `--kubelet-client-certificate=${toKubelet.cert}`,
        `--kubelet-client-key=${toKubelet.key}`,
        '--kubelet-preferred-address-types=InternalIP,Hostname',
        `--service-account-key-file=${accountKey}`,
        `--service-account-signing-key-file=${accountKey}`,
        '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
        '--authorization-mode=Node,RBAC',
        '--enable-admission-plugins=NodeRestriction',
        '--enable-bootstrap-token-auth=true',
        '--allow-privileged=true',
        '--profiling=false',
        ...(options.flags ?? []),
      ]);
      await waitReady();
    };
    await startApiServer();
    if (options.controllers)
      await start('kube-controller-manager', [
        `--kubeconfig=${adminKubeconfig}`,
        `--cluster-signing-cert-file=${authority.caFile}`,
        `--cluster-signing-key-file=${join(pki, 'ca.key')}`,
        `--root-ca-file=${authority.caFile}`,
        `--service-account-private-key-file=${accountKey}`,
        '--controllers=*,bootstrapsigner,tokencleaner',
        '--allocate-node-cidrs=true',
        `--cluster-cidr=${clusterCidr}`,
        `--service-cluster-ip-range=${serviceCidr}`,
        `--secure-port=${await freePort()}`,
        '--bind-address=127.0.0.1',
        '--leader-elect=false',
        `--cert-dir=${dir}`,
        '--use-service-account-credentials=false',
      ]);
    if (options.scheduler)
      await start('kube-scheduler', [
        `--kubeconfig=${adminKubeconfig}`,
        `--secure-port=${await freePort()}`,
        '--bind-address=127.0.0.1',
        '--leader-elect=false',
        `--cert-dir=${dir}`,
      ]);
    return {
      dir,
      server,
      caFile: authority.caFile,
      adminKubeconfig,
      admin: connection,
      kubeconfigFor,
      nodeKubeconfig: (nodeName) =>
        kubeconfigFor({ commonName: `system:node:${nodeName}`, organization: 'system:nodes' }),
      async tokenKubeconfig(token) {
        const path = join(dir, `${randomBytes(3).toString('hex')}.kubeconfig`);
        await writeFile(path, renderKubeconfig({ ...cluster, token }));
        return path;
      },
      kubectl: async (...args) =>
        (await exec(findBinary('kubectl'), ['--kubeconfig', adminKubeconfig, ...args])).stdout,
      stopApiServer: () => end(children.get('kube-apiserver'), 'SIGKILL'),
      startApiServer,
      log: readLog,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
