// `stevedore join` against a real control plane with what kubeadm leaves there, and each way it can go wrong: one clear message, and nothing
// left on the host.
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { caHash } from '../../cli/join/discovery.ts';
import { type JoinOptions, joinNode } from '../../cli/join/join-node.ts';
import { loadConfiguration } from '../../cli/config/load.ts';
import { createKubeClient } from '../../kube/http-client.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { resources } from '../../kube/resources.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { applyBootstrapObjects } from '../lab/bootstrap-objects.ts';
import { type ControlPlane, startControlPlane } from '../lab/control-plane.ts';

let plane: ControlPlane;
let token: string;
let expired: string;
let hash: string;
let folder: string;

const kubelet =
  'apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nclusterDNS: [10.96.0.10]\nmaxPods: 42\nsyncFrequency: 0s\nrotateCertificates: true\n';
const proxy =
  'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.244.0.0/16\nclientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig.conf}\n';

beforeAll(async () => {
  plane = await startControlPlane({ controllers: true });
  expired = (await applyBootstrapObjects(plane, { expiresAt: new Date(Date.now() + 3000) })).token;
  token = (await applyBootstrapObjects(plane, { kubelet, proxy })).token;
  hash = caHash(await readFile(plane.caFile, 'utf8'));
  for (let tries = 0; tries < 200; tries++) {
    const map = await plane.admin.get(resources.configMaps, { namespace: 'kube-public', name: 'cluster-info' });
    if (map.data?.[`jws-kubeconfig-${token.slice(0, 6)}`]) return;
    await sleep(100);
  }
  throw new Error('cluster-info was not signed');
});
afterAll(() => plane?.stop());
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-join-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const said: string[] = [];
const started: string[] = [];

async function attempt(options: Partial<JoinOptions> = {}, offsetMs = 0, available = true): Promise<void> {
  said.length = 0;
  started.length = 0;
  const clock = { ...systemClock, now: () => systemClock.now() + offsetMs };
  await joinNode(
    {
      clock,
      log: silentLog,
      say: (text) => void said.push(text),
      connect: (config) => createKubeClient({ clock: systemClock, log: silentLog }, config),
      host: {
        uid: () => 0,
        text: (path) =>
          Promise.resolve(
            path.endsWith('ip_forward')
              ? '1'
              : path.endsWith('osrelease')
                ? '6.1.0'
                : path.includes('modules')
                  ? ''
                  : 'cpu memory pids',
          ),
        exists: () => Promise.resolve(false),
        list: () => Promise.resolve(['10-x.conf']),
        portFree: (port) => Promise.resolve(port !== 1),
        onPath: () => Promise.resolve(true),
        runtime: () => Promise.resolve({ name: 'containerd', version: '2.1.9' }),
        processes: () => Promise.resolve([]),
      },
      service: {
        unavailable: () => Promise.resolve(available ? undefined : 'no systemd runs here'),
        async start() {
          started.push('started');
          // The daemon would do this.
          const client = createKubeClient(
            { clock: systemClock, log: silentLog },
            await loadKubeconfig(join(folder, 'kubernetes/kubelet.conf')),
          );
          const name = options.nodeName ?? 'j1';
          await client.create(resources.nodes, {
            apiVersion: 'v1',
            kind: 'Node',
            metadata: { name },
            spec: {},
            status: { conditions: [{ type: 'Ready', status: 'True', reason: 'KubeletReady' }] },
          });
          await client.close();
        },
        stop: () => Promise.resolve(void started.push('stopped')),
      },
    },
    {
      endpoint: plane.server.replace('https://', ''),
      token,
      tlsBootstrapToken: undefined,
      caHashes: [hash],
      skipCaVerification: false,
      discoveryFile: undefined,
      nodeName: 'j1',
      nodeIp: '192.0.2.9',
      runtimeEndpoint: 'unix:///run/containerd/containerd.sock',
      withProxy: true,
      ignored: ['Swap'],
      dryRun: false,
      kubernetesDir: join(folder, 'kubernetes'),
      configFile: join(folder, 'stevedore/config.yaml'),
      certDir: join(folder, 'pki'),
      cniConfDir: '/etc/cni/net.d',
      readyTimeoutMs: 10_000,
      ...options,
    },
    new AbortController().signal,
  );
}

/** What is below the folder, but for the files that the store's link points at. A folder counts where nothing is in it. */
const files = async (): Promise<string[]> => {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries.map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1)).sort();
  return paths.filter(
    (path) => !paths.some((other) => other.startsWith(`${path}/`)) && !/kubelet-client-\d/.test(path),
  );
};

const nothing = async (): Promise<void> => expect(await readdir(folder, { recursive: true })).toEqual([]);

it('joins: identity, the cluster’s configuration, the unit, Ready', async () => {
  await attempt();
  expect(await files()).toEqual([
    'kubernetes/bootstrap-kubelet.conf',
    'kubernetes/kubelet.conf',
    'kubernetes/pki/ca.crt',
    'pki/kubelet-client-current.pem',
    'stevedore/config.yaml',
  ]);
  const config = await loadConfiguration({ files: [join(folder, 'stevedore/config.yaml')] });
  expect(config.kubelet).toMatchObject({ maxPods: 42, clusterDNS: ['10.96.0.10'] });
  expect(config.stevedore).toMatchObject({ hostnameOverride: 'j1', nodeIP: '192.0.2.9' });
  expect(config.proxy).toMatchObject({ clusterCIDR: '10.244.0.0/16', clientConnection: { kubeconfig: '' } });
  expect(started).toEqual(['started']);
  expect(said.join('')).toContain('node j1 is Ready');
  expect(said.join('')).toContain('--user=system:node:j1');
  expect(said.join('')).toContain('kubectl -n kube-system patch daemonset kube-proxy');
});

it('without systemd it says how to start the daemon', async () => {
  await attempt({ nodeName: 'j2' }, 0, false);
  expect(said.join('')).toContain('stevedore run --config');
});

it('by a discovery file', async () => {
  const file = join(folder, 'discovery.conf');
  const { data } = await plane.admin.get(resources.configMaps, { namespace: 'kube-public', name: 'cluster-info' });
  await writeFile(file, data?.kubeconfig ?? '');
  await attempt({
    nodeName: 'j3',
    endpoint: undefined,
    token: undefined,
    tlsBootstrapToken: token,
    caHashes: [],
    discoveryFile: file,
  });
  expect(said.join('')).toContain('node j3 is Ready');
});

it('a name that is taken is said, and nothing is left', async () => {
  await expect(attempt()).rejects.toThrow('a node named j1 is in this cluster and Ready');
  await nothing();
});

it('a dry run changes nothing', async () => {
  await attempt({ nodeName: 'j4', dryRun: true });
  await nothing();
});

it.each<[string, () => Promise<void>, RegExp]>([
  [
    'a token the cluster does not know',
    () => attempt({ token: 'abcdef.0123456789abcdef' }),
    /the cluster does not know the token abcdef/,
  ],
  [
    'a token with a wrong secret',
    () => attempt({ token: `${token.slice(0, 7)}0123456789abcdef` }),
    /the token's secret is wrong/,
  ],
  [
    'another CA',
    () => attempt({ caHashes: [`sha256:${'0'.repeat(64)}`] }),
    /the cluster's CA has the fingerprint sha256:/,
  ],
  ['no hash at all', () => attempt({ caHashes: [] }), /give --discovery-token-ca-cert-hash/],
  ['a clock two days off', () => attempt({}, -2 * 86_400_000), /this host's clock is 2 days behind the API server's/],
  [
    'a clock two days ahead, by a discovery file',
    async () => {
      const { data } = await plane.admin.get(resources.configMaps, { namespace: 'kube-public', name: 'cluster-info' });
      const file = join(await mkdtemp(join(folder, 'discovery-')), 'discovery.conf');
      await writeFile(file, data?.kubeconfig ?? '');
      const more = { endpoint: undefined, token: undefined, tlsBootstrapToken: token, caHashes: [] };
      try {
        await attempt({ ...more, discoveryFile: file }, 2 * 86_400_000);
      } finally {
        await rm(dirname(file), { recursive: true });
      }
    },
    /this host's clock is 2 days ahead of the API server's/,
  ],
  [
    'an API server that is not there',
    () => attempt({ endpoint: '127.0.0.1:1' }),
    /the API server at https:\/\/127.0.0.1:1 cannot be reached/,
  ],
])('%s is said, and nothing is left', async (_what, run, message) => {
  await expect(run()).rejects.toThrow(message);
  await nothing();
  expect(started).toEqual([]);
});

it('an expired token is said, and nothing is left', async () => {
  for (let tries = 0; tries < 100; tries++) {
    const map = await plane.admin.get(resources.configMaps, { namespace: 'kube-public', name: 'cluster-info' });
    if (!map.data?.[`jws-kubeconfig-${expired.slice(0, 6)}`]) break;
    await sleep(200);
  }
  await expect(attempt({ token: expired })).rejects.toThrow(/it expired/);
  await expect(attempt({ tlsBootstrapToken: expired })).rejects.toThrow(/does not take the token: it expired/);
  await nothing();
});

it('what fails in the middle is taken back', async () => {
  await expect(
    attempt({ nodeName: 'other', configFile: join(folder, 'kubernetes/pki/ca.crt/impossible') }),
  ).rejects.toThrow();
  await nothing();
});
