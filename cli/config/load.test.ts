import { mkdtemp, rm, writeFile, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { defaultKubeletConfiguration } from '../../agent/config.ts';
import { ConfigurationError, parseDocuments } from './documents.ts';
import { combineConfiguration, loadConfiguration, type Configuration, type FlagSetting } from './load.ts';

const read = (text: string, dropIn = '', flags: FlagSetting[] = []): Configuration =>
  combineConfiguration(parseDocuments('a.yaml', text), parseDocuments('50-x.conf', dropIn), flags);

const kubelet = (fields: string): string =>
  `apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n${fields}`;

const problemsOf = (work: () => unknown): string[] => {
  try {
    work();
  } catch (error) {
    if (error instanceof ConfigurationError) return error.message.split('\n');
    throw error;
  }
  return [];
};

// What kubeadm 1.36 leaves in the kubelet-config ConfigMap.
const kubeadm = kubelet(`
authentication: {anonymous: {enabled: false}, webhook: {cacheTTL: 0s, enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: ""
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
`);

describe('configuration documents', () => {
  it('nothing at all is all defaults', () => {
    const { kubelet: config, stevedore, warnings } = read('');
    expect(config).toEqual(defaultKubeletConfiguration());
    expect(config).toMatchObject({
      port: 10_250,
      maxPods: 110,
      nodeStatusUpdateFrequency: 10_000,
      nodeStatusReportFrequency: 300_000,
      nodeLeaseDurationSeconds: 40,
      syncFrequency: 60_000,
      serializeImagePulls: true,
      evictionHard: { 'memory.available': '100Mi', 'nodefs.available': '10%' },
      authentication: { anonymous: { enabled: false }, webhook: { enabled: true, cacheTTL: 120_000 } },
    });
    expect(stevedore.socketPath).toBe('/run/stevedore/stevedore.sock');
    expect(warnings).toEqual([]);
  });

  it("takes kubeadm's own ConfigMap without a word", () => {
    const { kubelet: config, warnings } = read(kubeadm);
    expect(warnings).toEqual([]);
    expect(config).toMatchObject({
      cgroupDriver: 'systemd',
      clusterDNS: ['10.96.0.10'],
      rotateCertificates: true,
      containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
      syncFrequency: 60_000,
      crashLoopBackOff: { maxContainerRestartPeriod: 300_000 },
    });
  });

  it('several documents in one file, each of its kind', () => {
    const config = read(
      `${kubelet('maxPods: 20')}\n---\n---\napiVersion: stevedore/v1alpha1\nkind: StevedoreConfiguration\nlog: {level: debug}\n---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n`,
    );
    expect(config.kubelet.maxPods).toBe(20);
    expect(config.stevedore.log).toEqual({ level: 'debug', format: 'json' });
    expect([...config.given]).toEqual(['KubeletConfiguration', 'StevedoreConfiguration', 'KubeProxyConfiguration']);
  });

  it.each([
    ['an unknown field', kubelet('maxPodz: 3'), ['a.yaml:3:1: maxPodz: KubeletConfiguration has no such field']],
    [
      'an unknown field further in',
      kubelet('authentication:\n  webhook:\n    enable: true'),
      ['a.yaml:5:5: authentication.webhook.enable: KubeletConfiguration has no such field'],
    ],
    ['a wrong type', kubelet('maxPods: many'), ['a.yaml:3:10: maxPods: must be a number']],
    ['not a duration', kubelet('syncFrequency: 10'), ['a.yaml:3:16: syncFrequency: must be a duration such as "10s"']],
    [
      'not a duration either',
      kubelet('syncFrequency: 1d'),
      ['a.yaml:3:16: syncFrequency: must be a duration such as "10s", is "1d"'],
    ],
    ['a list item', kubelet('clusterDNS: [1]'), ['a.yaml:3:14: clusterDNS[0]: must be text']],
    [
      'two problems at once',
      kubelet('port: 70000\ncgroupDriver: none'),
      ['a.yaml:3:7: port: must be at most 65535', 'a.yaml:4:15: cgroupDriver: must be one of cgroupfs, systemd'],
    ],
    [
      'a manager that is not supported',
      kubelet('cpuManagerPolicy: static'),
      ['a.yaml:3:19: cpuManagerPolicy: "static" is not supported: only "none" is (containers share all CPUs)'],
    ],
    ['a key given twice', kubelet('port: 1\nport: 2'), ['a.yaml:4:1: Map keys must be unique']],
    [
      'another API version',
      'apiVersion: kubelet.config.k8s.io/v1\nkind: KubeletConfiguration',
      [
        'a.yaml:2:7: apiVersion: "kubelet.config.k8s.io/v1" of KubeletConfiguration must be kubelet.config.k8s.io/v1beta1',
      ],
    ],
    [
      'no kind',
      'port: 3',
      [
        'a.yaml:1:1: kind: "" is not one of KubeletConfiguration (kubelet.config.k8s.io/v1beta1), KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), StevedoreConfiguration (stevedore/v1alpha1)',
      ],
    ],
    [
      'a kind twice',
      `${kubelet('')}---\n${kubelet('')}`,
      ['a.yaml:5:7: kind: a second KubeletConfiguration; the first stands at a.yaml:2:7'],
    ],
    ['no map', '- a', ['a.yaml:1:1: a configuration document is a map of fields']],
  ])('%s is pointed at', (_what, text, problems) => expect(problemsOf(() => read(text))).toEqual(problems));

  it('dynamic resource allocation is remarked upon and keeps nobody from running', () => {
    const asked = (value: boolean) => read(kubelet(`featureGates:\n  DynamicResourceAllocation: ${value}`)).warnings;
    expect(asked(true)).toEqual([
      'a.yaml:4:3: featureGates.DynamicResourceAllocation: is not honoured: dynamic resource allocation is not supported: pods with resource claims are refused on this node',
    ]);
    expect(asked(false)).toEqual([]);
  });

  it('what is known and not honoured is named once', () => {
    expect(
      read(kubelet('memoryThrottlingFactor: 0.5\nmaxOpenFiles: 1000000\nfeatureGates:\n  SomethingNew: true')).warnings,
    ).toEqual([
      'a.yaml:3:1: memoryThrottlingFactor: is not honoured: memory QoS is not applied',
      'a.yaml:6:3: featureGates.SomethingNew: is not honoured: this agent has no such switch',
    ]);
  });

  it('drop-ins are merged, flags win, and each is blamed for its own', () => {
    const base = kubelet('maxPods: 20\nclusterDNS: [10.0.0.1]\nsystemReserved: {cpu: 100m}');
    const over = kubelet('clusterDNS: [10.0.0.2]\nsystemReserved: {memory: 1Gi}\nmaxPods: null');
    const flags: FlagSetting[] = [{ flag: '--port', kind: 'KubeletConfiguration', path: ['port'], value: 1234 }];
    expect(read(base, over, flags).kubelet).toMatchObject({
      port: 1234,
      maxPods: 110,
      clusterDNS: ['10.0.0.2'],
      systemReserved: { cpu: '100m', memory: '1Gi' },
    });
    expect(problemsOf(() => read(base, kubelet('maxPods: -1')))).toEqual([
      '50-x.conf:3:10: maxPods: must be at least 0',
    ]);
    expect(
      problemsOf(() => read(base, '', [{ flag: '--port', kind: 'KubeletConfiguration', path: ['port'], value: 'x' }])),
    ).toEqual(['flag --port: port: must be a number']);
  });

  it("eviction thresholds: own ones replace the kubelet's, unless merging is asked for", () => {
    expect(read(kubelet('evictionHard: {memory.available: 1Gi}')).kubelet.evictionHard).toEqual({
      'memory.available': '1Gi',
    });
    expect(
      read(kubelet('mergeDefaultEvictionSettings: true\nevictionHard: {memory.available: 1Gi}')).kubelet.evictionHard,
    ).toMatchObject({ 'memory.available': '1Gi', 'nodefs.available': '10%' });
  });

  it('the report follows the update frequency where only that is set', () => {
    expect(read(kubelet('nodeStatusUpdateFrequency: 4s')).kubelet).toMatchObject({
      nodeStatusUpdateFrequency: 4000,
      nodeStatusReportFrequency: 4000,
    });
  });
});

describe('configuration files', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'stevedore-config-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it('drop-ins are taken in the order of their names, *.conf only', async () => {
    await writeFile(join(folder, 'main.yaml'), kubelet('maxPods: 1'));
    const dropInFolder = join(folder, 'd');
    await mkdir(dropInFolder);
    await writeFile(join(dropInFolder, '20-b.conf'), kubelet('maxPods: 3'));
    await writeFile(join(dropInFolder, '10-a.conf'), kubelet('maxPods: 2\nport: 5'));
    await writeFile(join(dropInFolder, '30-c.yaml'), kubelet('maxPods: 4'));
    const { kubelet: config } = await loadConfiguration({ files: [join(folder, 'main.yaml')], dropInFolder });
    expect(config).toMatchObject({ maxPods: 3, port: 5 });
  });

  it('a file that is not there is said', async () => {
    const file = join(folder, 'none.yaml');
    await expect(loadConfiguration({ files: [file] })).rejects.toThrow(`${file}: no such file`);
  });
});
