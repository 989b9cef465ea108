import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { combineConfiguration } from '../config/load.ts';
import { parseDocuments } from '../config/documents.ts';
import { configurationFile, keepKubeProxyAway } from './cluster-settings.ts';
import { isSignedBy, parseToken } from './discovery.ts';
import type { HostReader } from './host-reader.ts';
import { movable } from './leave-node.ts';
import { blocking, findingsText, type PreflightOptions, runPreflight } from './preflight.ts';

interface Host {
  uid: number;
  texts: Record<string, string>;
  paths: string[];
  taken: number[];
  missing: string[];
  runtime: { name: string; version: string } | { error: string };
  running: { name: string; pid: number }[];
}

const goodHost: Host = {
  uid: 0,
  texts: {
    '/proc/sys/kernel/osrelease': '6.1.0-18-amd64',
    '/sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory hugetlb pids',
    '/proc/swaps': 'Filename Type Size Used Priority',
    '/proc/sys/net/ipv4/ip_forward': '1',
    '/proc/sys/net/bridge/bridge-nf-call-iptables': '1',
  },
  paths: [],
  taken: [],
  missing: [],
  runtime: { name: 'containerd', version: '1.6.20' },
  running: [],
};

const reader = (host: Host): HostReader => ({
  uid: () => host.uid,
  text: (path) => Promise.resolve(host.texts[path] ?? ''),
  exists: (path) => Promise.resolve(host.paths.includes(path)),
  list: () => Promise.resolve(['10-bridge.conflist']),
  portFree: (port) => Promise.resolve(!host.taken.includes(port)),
  onPath: (program) => Promise.resolve(!host.missing.includes(program)),
  runtime: () => Promise.resolve(host.runtime),
  processes: (names) => Promise.resolve(host.running.filter(({ name }) => names.includes(name))),
});

const options: PreflightOptions = {
  nodeName: 'worker-1',
  runtimeEndpoint: 'unix:///run/containerd/containerd.sock',
  failSwapOn: true,
  failCgroupV1: false,
  agentPort: 10_250,
  withProxy: true,
  cniConfDir: '/etc/cni/net.d',
  kubeconfig: '/etc/kubernetes/kubelet.conf',
};

const errorsOf = async (host: Partial<Host>, more: Partial<PreflightOptions> = {}): Promise<string[]> =>
  blocking(await runPreflight(reader({ ...goodHost, ...host }), { ...options, ...more }), []).map(({ name }) => name);

const modulesOf = '/lib/modules/6.1.0-18-amd64';

const texts = (more: Record<string, string>): Partial<Host> => ({ texts: { ...goodHost.texts, ...more } });

describe('preflight', () => {
  it('a good host has nothing to complain of', async () => {
    const findings = await runPreflight(reader(goodHost), options);
    expect(findings.filter(({ verdict }) => verdict !== 'ok')).toEqual([]);
    expect(findingsText(findings, true)).toBe('');
  });

  it.each<[string, Partial<Host>, string[]]>([
    ['no root', { uid: 1000 }, ['IsPrivilegedUser']],
    ['an old kernel', texts({ '/proc/sys/kernel/osrelease': '4.18.0' }), ['SystemVerification']],
    ['swap', texts({ '/proc/swaps': 'Filename Type\n/dev/sda2 partition 1 0 -2' }), ['Swap']],
    ['a cgroup without memory', texts({ '/sys/fs/cgroup/cgroup.controllers': 'cpu pids' }), ['Cgroups']],
    ['a port that is taken', { taken: [10_250] }, ['Port-10250']],
    ['no runtime', { runtime: { error: 'connection refused' } }, ['CRI']],
    ['no forwarding', texts({ '/proc/sys/net/ipv4/ip_forward': '0' }), ['FileContent--proc-sys-net-ipv4-ip_forward']],
    ['no iptables', { missing: ['iptables-restore'] }, ['FileExisting-iptables-restore']],
    ['a kubelet', { running: [{ name: 'kubelet', pid: 77 }] }, ['Kubelet']],
    ['a kube-proxy', { running: [{ name: 'kube-proxy', pid: 78 }] }, ['KubeProxy']],
    [
      'a module that is nowhere',
      texts({
        '/proc/modules': 'overlay 1 0',
        '/lib/modules/6.1.0-18-amd64/modules.dep': 'kernel/fs/overlayfs/overlay.ko:',
      }),
      ['KernelModule-nf_conntrack'],
    ],
    [
      'bridged pods without br_netfilter',
      texts({
        '/proc/sys/net/bridge/bridge-nf-call-iptables': '',
        '/etc/cni/net.d/10-bridge.conflist': '{"plugins":[{"type": "bridge"}]}',
      }),
      ['BridgeNetfilter'],
    ],
    ['joined before', { paths: ['/etc/kubernetes/kubelet.conf'] }, ['FileAvailable--etc-kubernetes-kubelet.conf']],
  ])('%s', async (_what, host, names) => expect(await errorsOf(host)).toEqual(names));

  it('cgroup v1, a missing module and a missing pod network are warnings', async () => {
    const host = {
      ...goodHost,
      texts: {
        ...goodHost.texts,
        '/sys/fs/cgroup/cgroup.controllers': '',
        '/proc/sys/net/bridge/bridge-nf-call-iptables': '',
      },
      paths: ['/sys/fs/cgroup/memory'],
    };
    const findings = await runPreflight({ ...reader(host), list: () => Promise.resolve([]) }, options);
    expect(findings.filter(({ verdict }) => verdict === 'warning').map(({ name }) => name)).toEqual([
      'Cgroups',
      'CNI',
      'BridgeNetfilter',
    ]);
    expect(blocking(findings, [])).toEqual([]);
  });

  it.each<[string, Record<string, string>, string]>([
    ['loaded', { '/proc/modules': 'nf_conntrack 200704 2 - Live\noverlay 1 0' }, 'is loaded'],
    [
      'built in',
      { [`${modulesOf}/modules.builtin`]: 'kernel/net/nf_conntrack.ko\nkernel/fs/overlay.ko' },
      'is part of',
    ],
    [
      'loadable',
      { [`${modulesOf}/modules.dep`]: 'kernel/net/nf_conntrack.ko.xz: a\nx/overlay.ko.xz:' },
      'can be loaded',
    ],
  ])('a module that is %s is good', async (_how, more, words) => {
    const host = texts({ [`${modulesOf}/modules.dep`]: 'x.ko:', ...more }) as Partial<Host>;
    const found = (await runPreflight(reader({ ...goodHost, ...host }), options)).filter(({ name }) =>
      name.startsWith('KernelModule'),
    );
    expect(found.map(({ verdict }) => verdict)).toEqual(['ok', 'ok']);
    for (const { message } of found) expect(message).toContain(words);
  });

  it('what is ignored does not block, and the agent alone needs no netfilter', async () => {
    const findings = await runPreflight(reader({ ...goodHost, taken: [10_250], uid: 1 }), options);
    expect(blocking(findings, ['port-10250']).map(({ name }) => name)).toEqual(['IsPrivilegedUser']);
    expect(blocking(findings, ['all'])).toEqual([]);
    expect(
      await errorsOf(
        { missing: ['iptables-restore'], running: [{ name: 'kube-proxy', pid: 1 }] },
        { withProxy: false },
      ),
    ).toEqual([]);
  });
});

describe('discovery', () => {
  const token = parseToken('abcdef.0123456789abcdef');
  const sign = (content: string, secret = token.secret, kid = token.id): string => {
    const header = Buffer.from(JSON.stringify({ alg: 'HS256', kid })).toString('base64url');
    const payload = Buffer.from(content).toString('base64url');
    return `${header}..${createHmac('sha256', secret).update(`${header}.${payload}`).digest('base64url')}`;
  };

  it('believes only the token’s signature over this very text', () => {
    expect(isSignedBy(token, 'text', sign('text'))).toBe(true);
    expect(isSignedBy(token, 'other', sign('text'))).toBe(false);
    expect(isSignedBy(token, 'text', sign('text', 'fedcba9876543210'))).toBe(false);
    expect(isSignedBy(token, 'text', sign('text', token.secret, 'zzzzzz'))).toBe(false);
    for (const junk of ['', '..', 'a.b.c', 'e30..']) expect(isSignedBy(token, 'text', junk)).toBe(false);
  });

  it.each(['', 'abc', 'abcdef.short', 'ABCDEF.0123456789abcdef', 'abcdef.0123456789abcdef0'])(
    '%j is no token',
    (text) => expect(() => parseToken(text)).toThrow('not of the form'),
  );
});

describe('the cluster’s configuration', () => {
  const host = {
    runtimeEndpoint: 'unix:///run/x.sock',
    kubeconfig: '/etc/kubernetes/kubelet.conf',
    bootstrapKubeconfig: '/etc/kubernetes/bootstrap-kubelet.conf',
    nodeName: 'n1',
    caFile: '/etc/kubernetes/pki/ca.crt',
    nodeIp: '',
    withProxy: true,
  };
  const read = (text: string) => combineConfiguration(parseDocuments('config.yaml', text), [], []);

  it('is taken over, with what this host decides', () => {
    const { kubelet, proxy, stevedore } = read(
      configurationFile(
        {
          kubelet:
            'apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nclusterDNS: [10.96.0.10]\ncontainerRuntimeEndpoint: ""\nrotateCertificates: true\n',
          proxy:
            'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig.conf}\nclusterCIDR: 10.244.0.0/16\nmode: nftables\n',
        },
        host,
      ),
    );
    expect(kubelet).toMatchObject({ clusterDNS: ['10.96.0.10'], containerRuntimeEndpoint: 'unix:///run/x.sock' });
    expect(proxy).toMatchObject({
      clusterCIDR: '10.244.0.0/16',
      mode: 'nftables',
      clientConnection: { kubeconfig: '' },
    });
    expect(stevedore).toMatchObject({ hostnameOverride: 'n1', kubeconfig: host.kubeconfig, proxy: { enabled: true } });
  });

  it('a cluster that left none gets Kubernetes’ defaults', () => {
    const { kubelet, stevedore, given } = read(
      configurationFile({ kubelet: undefined, proxy: undefined }, { ...host, withProxy: false }),
    );
    expect(kubelet).toMatchObject({
      rotateCertificates: true,
      authentication: { x509: { clientCAFile: '/etc/kubernetes/pki/ca.crt' }, anonymous: { enabled: false } },
    });
    expect(stevedore.proxy.enabled).toBe(false);
    expect(given.has('KubeProxyConfiguration')).toBe(false);
  });

  it('says how to keep kube-proxy away', () => {
    expect(keepKubeProxyAway('n1')).toContain('"operator":"NotIn","values":["n1"]');
  });
});

describe('leaving', () => {
  it('pods that a drain would move', () => {
    const pod = (name: string, more: object): Pod => ({ metadata: { name, ...more }, spec: { containers: [] } }) as Pod;
    const pods = [
      pod('web', {}),
      pod('agent', { ownerReferences: [{ kind: 'DaemonSet' }] }),
      pod('static', { annotations: { 'kubernetes.io/config.mirror': 'x' } }),
      { ...pod('done', {}), status: { phase: 'Succeeded' as const } },
    ];
    expect(movable(pods).map(({ metadata }) => metadata.name)).toEqual(['web']);
  });
});
