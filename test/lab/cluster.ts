// The cluster a test runs against: devcluster, or a real etcd and kube-apiserver where KUBEBUILDER_ASSETS names a folder that holds them.
// Both have what runs pods: a scheduler, ReplicaSets, Deployments, EndpointSlices. Real ones of these where the folder has them, else ours.
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startControllers } from '../../devcluster/controllers/controllers.ts';
import { createDevcluster } from '../../devcluster/devcluster.ts';
import type { KubeClient } from '../../kube/client.ts';
import { systemClock } from '../../lib/clock.ts';
import { exec } from '../../lib/exec.ts';
import { createLog } from '../../lib/log.ts';
import { startControlPlane } from './control-plane.ts';

export interface ClusterOptions {
  /** Where the API server listens. Default 127.0.0.1. */
  readonly address?: string;
  readonly port?: number;
  readonly serviceCidr?: string;
  readonly podCidr?: string;
  /** Default true. */
  readonly controllers?: boolean;
}

export interface Identity {
  readonly user: string;
  readonly groups?: readonly string[];
}

export interface Cluster {
  readonly kind: 'devcluster' | 'kube-apiserver';
  readonly server: string;
  readonly caPem: string;
  /** Path of a kubeconfig with every right. */
  readonly adminKubeconfig: string;
  readonly admin: KubeClient;
  /** Makes a client certificate; returns the path of a kubeconfig with it. */
  kubeconfigFor(identity: Identity): Promise<string>;
  nodeKubeconfig(nodeName: string): Promise<string>;
  /** Returns what kubectl prints; rejects with its error where it fails. */
  kubectl(...args: string[]): Promise<string>;
  /** kubectl apply of these documents. */
  apply(manifest: string): Promise<string>;
  /** The API server is gone: connections break, new ones are refused. What it knows is kept. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  stop(): Promise<void>;
}

const assets = process.env.KUBEBUILDER_ASSETS;
const usesRealServer = (): boolean =>
  assets !== undefined && ['etcd', 'kube-apiserver'].every((name) => existsSync(join(assets, name)));
const has = (name: string): boolean => assets !== undefined && existsSync(join(assets, name));

export function kubectlPath(): string {
  const folders = [...(assets ? [assets] : []), '/usr/local/bin', '/usr/bin'];
  const found = folders.map((folder) => join(folder, 'kubectl')).find((path) => existsSync(path));
  if (!found)
    throw new Error(`no kubectl in ${folders.join(', ')}: install the package kubernetes-client or put one there`);
  return found;
}

const log = createLog({ level: process.env.STEVEDORE_TEST_LOG ? 'debug' : 'error', format: 'text' });

export const startCluster = (options: ClusterOptions = {}): Promise<Cluster> =>
  usesRealServer() ? startReal(options) : startDevcluster(options);

type Kubectl = Pick<Cluster, 'kubectl' | 'apply'>;

function kubectlWith(kubeconfig: string, cacheDir: string): Kubectl {
  const run = async (args: readonly string[], input?: string): Promise<string> => {
    const all = ['--kubeconfig', kubeconfig, '--cache-dir', join(cacheDir, 'kubectl-cache'), ...args];
    return (await exec(kubectlPath(), all, input === undefined ? {} : { input })).stdout;
  };
  return { kubectl: (...args) => run(args), apply: (manifest) => run(['apply', '-f', '-'], manifest) };
}

async function startDevcluster(options: ClusterOptions): Promise<Cluster> {
  const dir = await mkdtemp(join(tmpdir(), 'sv-dc-'));
  const devcluster = await createDevcluster(
    { clock: systemClock, log },
    {
      listen: { host: options.address ?? '127.0.0.1', port: options.port ?? 0 },
      ...(options.serviceCidr ? { serviceCidr: options.serviceCidr } : {}),
    },
  );
  const controllers =
    (options.controllers ?? true) ? startControllersFor(devcluster.client, devcluster.caPem, options) : undefined;
  const adminKubeconfig = join(dir, 'admin.kubeconfig');
  await writeFile(adminKubeconfig, devcluster.adminKubeconfig());
  if (controllers) await waitForAccount(devcluster.client);
  let count = 0;
  const kubeconfigFor = async (identity: Identity): Promise<string> => {
    const path = join(dir, `${++count}.kubeconfig`);
    await writeFile(path, await devcluster.kubeconfigFor(identity));
    return path;
  };
  return {
    kind: 'devcluster',
    server: devcluster.url,
    caPem: devcluster.caPem,
    adminKubeconfig,
    admin: devcluster.client,
    kubeconfigFor,
    nodeKubeconfig: (name) => kubeconfigFor({ user: `system:node:${name}`, groups: ['system:nodes'] }),
    ...kubectlWith(adminKubeconfig, dir),
    pause: devcluster.pause,
    resume: devcluster.resume,
    async stop() {
      await controllers?.stop();
      await devcluster.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

const startControllersFor = (client: KubeClient, caPem: string, { podCidr }: ClusterOptions) =>
  startControllers({ client, clock: systemClock, log }, { caPem, ...(podCidr ? { podCidr } : {}) });

async function startReal(options: ClusterOptions): Promise<Cluster> {
  const wanted = options.controllers ?? true;
  const real = { controllers: wanted && has('kube-controller-manager'), scheduler: wanted && has('kube-scheduler') };
  const plane = await startControlPlane({
    ...real,
    ...(options.address ? { address: options.address } : {}),
    ...(options.serviceCidr ? { serviceCidr: options.serviceCidr } : {}),
    ...(options.podCidr ? { clusterCidr: options.podCidr } : {}),
  });
  const caPem = await readFile(plane.caFile, 'utf8');
  const ours = wanted && !(real.controllers && real.scheduler);
  const controllers = ours ? startControllersFor(plane.admin, caPem, options) : undefined;
  const { kubectl, apply } = kubectlWith(plane.adminKubeconfig, plane.dir);
  // As in devcluster, nodes may read what a proxy reads.
  await kubectl(
    'create',
    'clusterrolebinding',
    'nodes-proxy',
    '--clusterrole=system:node-proxier',
    '--group=system:nodes',
  );
  if (wanted) await waitForAccount(plane.admin);
  return {
    kind: 'kube-apiserver',
    server: plane.server,
    caPem,
    adminKubeconfig: plane.adminKubeconfig,
    admin: plane.admin,
    kubeconfigFor: ({ user, groups }) =>
      plane.kubeconfigFor({ commonName: user, ...(groups?.[0] ? { organization: groups[0] } : {}) }),
    nodeKubeconfig: plane.nodeKubeconfig,
    kubectl,
    apply,
    pause: plane.stopApiServer,
    resume: plane.startApiServer,
    async stop() {
      await controllers?.stop();
      await plane.stop();
    },
  };
}

/** Pods can be made once their namespace has its service account. */
async function waitForAccount(client: KubeClient): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const found = await client.raw('GET', '/api/v1/namespaces/default/serviceaccounts/default').catch(() => undefined);
    if (found) return;
    await sleep(50);
  }
  throw new Error('the controllers did not make the default service account within 10 s');
}
