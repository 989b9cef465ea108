// The configuration, its rules, and what backends are told of the node.
import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { ApiError } from '../kube/errors.ts';
import type { Node } from '../kube/types/core.ts';
import {
  completeKubeProxyConfiguration,
  defaultKubeProxyConfiguration,
  kubeProxyConfigurationFields,
  kubeProxyConfigurationOnWire,
  syncPeriodsOf,
} from './config.ts';
import { refuseKubeProxyConfiguration, remarkKubeProxyConfiguration } from './config-rules.ts';
import { nodeFactsOf, servesLocalhostNodePorts } from './facts.ts';
import { missingAccess } from './missing-access.ts';
import { conntrackMax, planSysctls } from './sysctls.ts';

const configOf = (fields: Record<string, unknown>) =>
  completeKubeProxyConfiguration(v.parse(kubeProxyConfigurationFields, fields));

const node: Node = {
  metadata: { name: 'n1' },
  spec: { podCIDRs: ['10.244.3.0/24', 'fd00:244:3::/64'] },
  status: {
    addresses: [
      { type: 'ExternalIP', address: '198.51.100.1' },
      { type: 'InternalIP', address: '172.20.0.1' },
      { type: 'InternalIP', address: 'fd5e::1' },
    ],
  },
};
const host = { addresses: ['127.0.0.1', '172.20.0.1', '192.168.7.7', 'fd5e::1'], conntrackBeLiberal: false };
const iptables4 = { kind: 'iptables', family: 'IPv4' } as const;

describe('KubeProxyConfiguration', () => {
  it("has kube-proxy's defaults", () => {
    expect(defaultKubeProxyConfiguration()).toMatchObject({
      bindAddress: '0.0.0.0',
      healthzBindAddress: '0.0.0.0:10256',
      metricsBindAddress: '127.0.0.1:10249',
      iptables: { masqueradeBit: 14, localhostNodePorts: true, syncPeriod: 30_000 },
      conntrack: {
        maxPerCore: 32_768,
        min: 131_072,
        tcpEstablishedTimeout: 86_400_000,
        tcpCloseWaitTimeout: 3_600_000,
      },
      oomScoreAdj: -999,
    });
    expect(configOf({ bindAddress: '::' })).toMatchObject({
      healthzBindAddress: '[::]:10256',
      metricsBindAddress: '[::1]:10249',
    });
    expect(configOf({ metricsBindAddress: '0.0.0.0' }).metricsBindAddress).toBe('0.0.0.0:10249');
  });

  it('takes what kubeadm writes: nulls and empty durations', () => {
    const config = configOf({
      bindAddressHardFail: false,
      conntrack: {
        maxPerCore: null,
        min: null,
        tcpBeLiberal: false,
        tcpCloseWaitTimeout: null,
        tcpEstablishedTimeout: null,
        udpStreamTimeout: '0s',
        udpTimeout: '0s',
      },
      detectLocal: { bridgeInterface: '', interfaceNamePrefix: '' },
      iptables: {
        localhostNodePorts: null,
        masqueradeAll: false,
        masqueradeBit: null,
        minSyncPeriod: '0s',
        syncPeriod: '0s',
      },
      ipvs: {
        excludeCIDRs: null,
        scheduler: '',
        strictARP: false,
        tcpTimeout: '0s',
        minSyncPeriod: '0s',
        syncPeriod: '0s',
      },
      logging: { flushFrequency: 0, options: { json: { infoBufferSize: '0' } }, verbosity: 0 },
      nodePortAddresses: null,
      oomScoreAdj: null,
      winkernel: { enableDSR: false, networkName: '', sourceVip: '' },
    });
    expect(config.conntrack.maxPerCore).toBe(32_768);
    expect(refuseKubeProxyConfiguration(config)).toEqual([]);
    expect(remarkKubeProxyConfiguration(config)).toEqual([]);
  });

  it.each<[string, Record<string, unknown>]>([
    ['an unknown field', { clusterCidr: '10.0.0.0/8' }],
    ['a bit too high', { iptables: { masqueradeBit: 32 } }],
    ['a mode that is none', { mode: 'userspace' }],
    ['a duration that is none', { configSyncPeriod: '15' }],
  ])('refuses %s', (_name, fields) => expect(v.safeParse(kubeProxyConfigurationFields, fields).success).toBe(false));

  it.each<[string, Record<string, unknown>]>([
    ['clusterCIDR', { clusterCIDR: '10.0.0.0/8,11.0.0.0/8' }],
    ['clusterCIDR', { clusterCIDR: 'all' }],
    ['detectLocal', { detectLocalMode: 'BridgeInterface' }],
    ['nodePortAddresses', { nodePortAddresses: ['primary', '10.0.0.0/8'] }],
    ['healthzBindAddress', { healthzBindAddress: 'localhost:1' }],
    ['iptables', { iptables: { syncPeriod: '1s', minSyncPeriod: '2s' } }],
    ['nftables', { mode: 'nftables', nftables: { syncPeriod: '1s', minSyncPeriod: '2s' } }],
    ['ipvs', { mode: 'ipvs', ipvs: { syncPeriod: '1s', minSyncPeriod: '2s' } }],
  ])('refuses a wrong %s', (field, fields) => {
    expect(refuseKubeProxyConfiguration(configOf(fields)).map(({ path }) => path[0])).toEqual([field]);
  });

  it('looks at nothing that the mode does not use', () => {
    const periods = { syncPeriod: '1s', minSyncPeriod: '2s' };
    const config = configOf({ detectLocalMode: 'NodeCIDR', clusterCIDR: 'all', nftables: periods, ipvs: periods });
    expect(refuseKubeProxyConfiguration(config)).toEqual([]);
  });

  it('names what is known to Kubernetes and not honoured', () => {
    const config = configOf({
      hostnameOverride: 'n2',
      clientConnection: {
        qps: 50,
        contentType: 'application/vnd.kubernetes.protobuf',
        acceptContentTypes: 'application/vnd.kubernetes.protobuf,application/json',
      },
      configSyncPeriod: '1m',
      logging: { format: 'json' },
      featureGates: { AllowServiceExternalIPs: false, PreferSameTrafficDistribution: true, ContextualLogging: true },
    });
    expect(remarkKubeProxyConfiguration(config).map(({ path }) => path.join('.'))).toEqual([
      'hostnameOverride',
      'clientConnection.qps',
      'clientConnection.contentType',
      'configSyncPeriod',
      'logging',
      'featureGates.ContextualLogging',
    ]);
    expect(refuseKubeProxyConfiguration(config)).toEqual([]);
  });

  it('is written as the API writes it, with the mode in force', () => {
    expect(
      kubeProxyConfigurationOnWire(configOf({ mode: 'auto', iptables: { syncPeriod: '1m30s' } }), 'nftables'),
    ).toMatchObject({
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode: 'nftables',
      detectLocalMode: 'ClusterCIDR',
      iptables: { syncPeriod: '1m30s', masqueradeBit: 14 },
      conntrack: { tcpEstablishedTimeout: '24h0m0s', udpTimeout: '0s', maxPerCore: 32_768 },
      configSyncPeriod: '15m0s',
      clientConnection: { qps: 0 },
    });
  });

  it('says that ipvs becomes nftables', () => {
    expect(remarkKubeProxyConfiguration(configOf({ mode: 'ipvs' }))[0]?.message).toContain('nftables is used');
  });
});

describe('facts of the node', () => {
  it.each<[string, Record<string, unknown>, object]>([
    [
      'cluster CIDR of the family',
      { clusterCIDR: 'fd00::/48,10.244.0.0/16' },
      { localDetector: { kind: 'cidr', cidr: '10.244.0.0/16' } },
    ],
    ['no CIDR of the family', { clusterCIDR: 'fd00::/48' }, { localDetector: { kind: 'none' } }],
    ['node CIDR', { detectLocalMode: 'NodeCIDR' }, { localDetector: { kind: 'cidr', cidr: '10.244.3.0/24' } }],
    [
      'prefix',
      { detectLocalMode: 'InterfaceNamePrefix', detectLocal: { interfaceNamePrefix: 'veth' } },
      { localDetector: { kind: 'interface-prefix', prefix: 'veth' } },
    ],
    ['the internal address', {}, { nodeIP: '172.20.0.1', nodePortAddresses: 'all', localhostNodePorts: true }],
    ['an explicit bindAddress', { bindAddress: '192.168.7.7' }, { nodeIP: '192.168.7.7' }],
    ['primary', { nodePortAddresses: ['primary'] }, { nodePortAddresses: ['172.20.0.1'], localhostNodePorts: false }],
    [
      'chosen networks',
      { nodePortAddresses: ['192.168.0.0/16', 'fd00::/8'] },
      { nodePortAddresses: ['192.168.7.7'], localhostNodePorts: false },
    ],
    [
      'loopback among them',
      { nodePortAddresses: ['127.0.0.0/8'] },
      { nodePortAddresses: ['127.0.0.1'], localhostNodePorts: true },
    ],
    ['networks of the other family only', { nodePortAddresses: ['fd00::/8'] }, { nodePortAddresses: 'all' }],
    ['everything', { nodePortAddresses: ['0.0.0.0/0', '10.0.0.0/8'] }, { nodePortAddresses: 'all' }],
  ])('%s', (_name, fields, wanted) =>
    expect(nodeFactsOf(configOf(fields), node, host, iptables4)).toMatchObject(wanted),
  );

  it('nftables opens node ports on the primary address unless told otherwise', () => {
    const nftables = { kind: 'nftables', family: 'IPv6' } as const;
    expect(nodeFactsOf(configOf({}), node, host, nftables)).toMatchObject({
      nodePortAddresses: ['fd5e::1'],
      localhostNodePorts: false,
    });
  });

  it('ipvs, which becomes nftables, keeps what kube-proxy does in that mode', () => {
    const nftables = { kind: 'nftables', family: 'IPv4' } as const;
    const iptables = { masqueradeAll: true, masqueradeBit: 20 };
    expect(nodeFactsOf(configOf({ mode: 'ipvs', iptables }), node, host, nftables)).toMatchObject({
      nodePortAddresses: 'all',
      localhostNodePorts: false,
      ...iptables,
    });
    expect(nodeFactsOf(configOf({ mode: 'nftables', iptables }), node, host, nftables)).toMatchObject({
      nodePortAddresses: ['172.20.0.1'],
      masqueradeAll: false,
      masqueradeBit: 14,
    });
  });

  it.each([
    ['iptables', {}, true],
    ['iptables', { iptables: { localhostNodePorts: false } }, false],
    ['iptables', { nodePortAddresses: ['192.168.0.0/16'] }, false],
    ['iptables', { nodePortAddresses: ['primary'] }, false],
    ['iptables', { nodePortAddresses: ['127.0.0.0/8', '192.168.0.0/16'] }, true],
    ['nftables', {}, false],
  ] as const)('route_localnet is needed on %s with %j: %s', (kind, fields, wanted) =>
    expect(servesLocalhostNodePorts(configOf(fields), kind)).toBe(wanted),
  );

  it('periods are those of the mode', () => {
    const config = {
      iptables: { syncPeriod: '10s' },
      nftables: { syncPeriod: '20s', minSyncPeriod: '2s' },
      ipvs: { syncPeriod: '40s', minSyncPeriod: '4s' },
    };
    const of = (mode: string, kind: 'iptables' | 'nftables') => {
      const { syncPeriod, minSyncPeriod } = syncPeriodsOf(configOf({ ...config, mode }), kind);
      return [syncPeriod, minSyncPeriod];
    };
    expect(of('', 'iptables')).toEqual([10_000, 0]);
    expect(of('auto', 'nftables')).toEqual([20_000, 2_000]);
    expect(of('ipvs', 'nftables')).toEqual([40_000, 4_000]);
  });

  it('service CIDRs are for nftables, those of the family, each once and in their usual form', () => {
    const cidrs = ['10.97.0.0/24', '010.96.0.9/16', 'FD00::1/112', '10.96.0.0/16', 'nonsense'];
    const of = (kind: 'iptables' | 'nftables', family: 'IPv4' | 'IPv6') =>
      nodeFactsOf(configOf({}), node, host, { kind, family }, cidrs).serviceCidrs;
    expect(of('nftables', 'IPv4')).toEqual(['10.96.0.0/16', '10.97.0.0/24']);
    expect(of('nftables', 'IPv6')).toEqual(['fd00::/112']);
    expect(of('iptables', 'IPv4')).toEqual([]);
  });
});

describe('kernel settings', () => {
  it.each([
    [1, 131_072],
    [8, 262_144],
    [64, 1_048_576],
  ])('nf_conntrack_max on %i cores is %i', (cores, wanted) =>
    expect(conntrackMax(configOf({}).conntrack, cores)).toBe(wanted),
  );

  it('are those of kube-proxy, and 0 leaves one as it is', () => {
    const names = (fields: Record<string, unknown>, localhost = false) =>
      planSysctls(configOf(fields), 2, localhost).map(({ path, value }) => `${path.split('/').at(-1)}=${value}`);
    expect(names({}, true)).toEqual([
      'nf_conntrack_max=131072',
      'hashsize=32768',
      'nf_conntrack_tcp_timeout_established=86400',
      'nf_conntrack_tcp_timeout_close_wait=3600',
      'route_localnet=1',
    ]);
    expect(
      names({
        conntrack: {
          maxPerCore: 0,
          tcpEstablishedTimeout: '0s',
          tcpCloseWaitTimeout: '0s',
          tcpBeLiberal: true,
          udpTimeout: '10s',
        },
      }),
    ).toEqual(['nf_conntrack_tcp_be_liberal=1', 'nf_conntrack_udp_timeout=10']);
  });
});

describe('missing access', () => {
  it('names the user and the object that mends it', () => {
    const text =
      'endpointslices.discovery.k8s.io is forbidden: User "system:node:n1" cannot list resource "endpointslices" in API group "discovery.k8s.io" at the cluster scope';
    const found = missingAccess(new ApiError('forbidden', text, { status: 403 }), 'n1');
    expect(found?.message).toContain('name: stevedore-proxy-system-node-n1');
    expect(found?.message).toContain('name: system:node-proxier');
    expect(found?.message).toContain('  name: system:node:n1\n');
    expect(missingAccess(new ApiError('unreachable', 'x'), 'n1')).toBeUndefined();
  });
});
