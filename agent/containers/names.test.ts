import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { podDns, parseResolvConf, type DnsFacts } from './dns.ts';
import { kernelHostname, podHostname } from './hostname.ts';
import { hostsFile, hostsFilePath, wantsHostsFile, writeHostsFile } from './hosts-file.ts';

const pod = (spec: Partial<Pod['spec']> = {}, name = 'web-0'): Pod => ({
  metadata: { name, namespace: 'shop', uid: 'u' },
  spec: { containers: [], ...spec },
});

describe('host name', () => {
  const long = 'a'.repeat(62);

  it.each<[string, Pod, { hostname: string; domain: string }]>([
    ['the name of the pod', pod(), { hostname: 'web-0', domain: '' }],
    ['its hostname', pod({ hostname: 'busy' }), { hostname: 'busy', domain: '' }],
    [
      'with a subdomain',
      pod({ hostname: 'busy', subdomain: 'default' }),
      { hostname: 'busy', domain: 'default.shop.svc.cluster.local' },
    ],
    ['cut to 63 characters, never ending in a dash', pod({}, `${long}-bcd`), { hostname: long, domain: '' }],
    [
      'overridden',
      pod({ hostnameOverride: 'other.example', hostname: 'h', subdomain: 's' }),
      { hostname: 'other.example', domain: '' },
    ],
  ])('%s', (_name, of, expected) => expect(podHostname(of, 'cluster.local')).toEqual(expected));

  it.each([
    [pod({ hostname: 'Not_A_Label' }), /^pod Hostname "Not_A_Label" is not a valid DNS label: /],
    [pod({ subdomain: 'a.b' }), /^pod Subdomain "a\.b" is not a valid DNS label: /],
    [pod({ hostnameOverride: 'A' }), /^pod HostnameOverride "A" is not a valid DNS subdomain: /],
  ])('refuses what is none', (of, words) => expect(() => podHostname(of, 'cluster.local')).toThrow(words));

  it('as FQDN, where it fits', () => {
    const fits = pod({ subdomain: 'sub', setHostnameAsFQDN: true });
    expect(kernelHostname(fits, podHostname(fits, 'cluster.local'))).toBe('web-0.sub.shop.svc.cluster.local');
    const tooLong = pod({ subdomain: 'sub', setHostnameAsFQDN: true }, 'x'.repeat(60));
    expect(() => kernelHostname(tooLong, podHostname(tooLong, 'cluster.local'))).toThrow(
      `failed to construct FQDN from pod hostname and cluster domain, FQDN ${'x'.repeat(60)}.sub.shop.svc.cluster.local is too long (64 characters is the max, 87 characters requested)`,
    );
    const alone = pod({ setHostnameAsFQDN: true });
    expect(kernelHostname(alone, podHostname(alone, 'cluster.local'))).toBe('web-0');
  });
});

describe('resolv.conf of the host', () => {
  it.each([
    ['nameserver 10.0.0.1\nnameserver  fd00::1 ', { servers: ['10.0.0.1', 'fd00::1'], searches: [], options: [] }],
    ['# nameserver 1.1.1.1\n\nsearch a. b .\nsearch c.', { servers: [], searches: ['c'], options: [] }],
    ['options ndots:2 rotate\noptions ndots:5', { servers: [], searches: [], options: ['ndots:5', 'rotate'] }],
    ['nameserver\ndomain x', { servers: [], searches: [], options: [] }],
  ])('%j', (text, expected) => expect(parseResolvConf(text)).toEqual(expected));
});

describe('resolv.conf of a pod', () => {
  const facts: DnsFacts = {
    clusterDns: ['10.96.0.10'],
    clusterDomain: 'cluster.local',
    hostResolvConf: 'nameserver 192.0.2.1\nsearch corp.example\noptions timeout:1',
    nodeIps: ['192.0.2.9'],
  };
  const cluster = {
    servers: ['10.96.0.10'],
    searches: ['shop.svc.cluster.local', 'svc.cluster.local', 'cluster.local', 'corp.example'],
    options: ['ndots:5'],
  };
  const host = { servers: ['192.0.2.1'], searches: ['corp.example'], options: ['timeout:1'] };

  it.each([
    ['ClusterFirst', pod({ dnsPolicy: 'ClusterFirst' }), cluster],
    ['ClusterFirst on the host network', pod({ dnsPolicy: 'ClusterFirst', hostNetwork: true }), host],
    ['ClusterFirstWithHostNet', pod({ dnsPolicy: 'ClusterFirstWithHostNet', hostNetwork: true }), cluster],
    ['Default', pod({ dnsPolicy: 'Default' }), host],
    [
      'None',
      pod({ dnsPolicy: 'None', dnsConfig: { nameservers: ['1.1.1.1'], searches: ['x'] } }),
      { servers: ['1.1.1.1'], searches: ['x'], options: [] },
    ],
    [
      'with its own on top',
      pod({
        dnsConfig: {
          nameservers: ['10.96.0.10', '1.1.1.1'],
          searches: ['x', 'cluster.local'],
          options: [{ name: 'ndots', value: '2' }, { name: 'edns0' }],
        },
      }),
      { servers: ['10.96.0.10', '1.1.1.1'], searches: [...cluster.searches, 'x'], options: ['ndots:2', 'edns0'] },
    ],
  ])('%s', (_name, of, expected) => expect(podDns(of, facts)).toEqual({ dns: expected, events: [] }));

  it('asks the local host where the host has no resolv.conf', () => {
    const none = { ...facts, hostResolvConf: undefined, nodeIps: ['192.0.2.9', 'fd00::9'] };
    expect(podDns(pod({ dnsPolicy: 'Default' }), none).dns).toEqual({
      servers: ['127.0.0.1', '::1'],
      searches: ['.'],
      options: [],
    });
  });

  it('falls back to the host, and says so, where the cluster has no DNS', () => {
    const { dns, events } = podDns(pod(), { ...facts, clusterDns: [] });
    expect(dns).toEqual(host);
    const message =
      'kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. Falling back to "Default" policy.';
    expect(events).toEqual([
      { about: 'node', reason: 'MissingClusterDNS', message },
      { about: 'pod', reason: 'MissingClusterDNS', message: `pod: "web-0_shop(u)". ${message}` },
    ]);
  });

  it('keeps three servers', () => {
    const { dns, events } = podDns(pod({ dnsConfig: { nameservers: ['1.1.1.1', '2.2.2.2', '3.3.3.3'] } }), facts);
    expect(dns.servers).toEqual(['10.96.0.10', '1.1.1.1', '2.2.2.2']);
    expect(events).toEqual([
      {
        about: 'pod',
        reason: 'DNSConfigForming',
        message:
          'Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 10.96.0.10 1.1.1.1 2.2.2.2',
      },
    ]);
  });

  it.each([
    ['more than 32', Array.from({ length: 40 }, (_, index) => `d${index}`), 32],
    ['too long a line', Array.from({ length: 30 }, (_, index) => `${'x'.repeat(100)}${index}`), 19],
    ['one too long', ['y'.repeat(254), 'z'], 1],
  ])('keeps the searches within limits: %s', (_name, searches, kept) => {
    const { dns, events } = podDns(
      pod({ dnsPolicy: 'None', dnsConfig: { nameservers: ['1.1.1.1'], searches } }),
      facts,
    );
    expect(dns.searches).toHaveLength(kept);
    expect(dns.searches.join(' ').length).toBeLessThanOrEqual(2048);
    expect(events[0]?.message).toBe(
      `Search Line limits were exceeded, some search paths have been omitted, the applied search line is: ${dns.searches.join(' ')}`,
    );
  });
});

describe('/etc/hosts', () => {
  const common =
    '# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n';
  const name = { hostname: 'web-0', domain: '' };
  const hostAliases = [{ ip: '1.2.3.4', hostnames: ['foo', 'bar'] }];

  it.each([
    ['the pod', pod(), name, `${common}10.0.0.5\tweb-0\nfd00::5\tweb-0\n`],
    ['with a domain', pod(), { ...name, domain: 'd' }, `${common}10.0.0.5\tweb-0.d\tweb-0\nfd00::5\tweb-0.d\tweb-0\n`],
    [
      'with aliases',
      pod({ hostAliases }),
      name,
      `${common}10.0.0.5\tweb-0\nfd00::5\tweb-0\n\n# Entries added by HostAliases.\n1.2.3.4\tfoo\tbar\n`,
    ],
    [
      'the host',
      pod({ hostNetwork: true, hostAliases }),
      name,
      '# Kubernetes-managed hosts file (host network).\nthe host\n\n# Entries added by HostAliases.\n1.2.3.4\tfoo\tbar\n',
    ],
  ])('%s', (_name, of, called, expected) => {
    expect(hostsFile(of, called, ['10.0.0.5', 'fd00::5'], 'the host\n')).toBe(expected);
  });

  it('is left alone where the container brings its own, or there is nothing to say yet', () => {
    const own = { name: 'c', volumeMounts: [{ name: 'v', mountPath: '/etc/hosts' }] };
    expect(wantsHostsFile(pod(), { name: 'c' }, ['10.0.0.5'])).toBe(true);
    expect(wantsHostsFile(pod(), own, ['10.0.0.5'])).toBe(false);
    expect(wantsHostsFile(pod(), { name: 'c' }, [])).toBe(false);
    expect(wantsHostsFile(pod({ hostNetwork: true }), { name: 'c' }, [])).toBe(true);
  });

  it('is written in place, for all to read, and only where it says something else', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hosts-'));
    try {
      const podDirectory = join(folder, 'pod');
      const file = hostsFilePath(podDirectory);
      await Promise.all([writeHostsFile(podDirectory, 'one\n'), writeHostsFile(podDirectory, 'one\n')]);
      const { ino, mode, ctimeMs } = statSync(file);
      expect(mode & 0o777).toBe(0o644);
      await writeHostsFile(podDirectory, 'one\n');
      expect(statSync(file)).toMatchObject({ ino, ctimeMs });
      // By a container, for example.
      writeFileSync(file, 'one\nand more\n');
      await writeHostsFile(podDirectory, 'one\n');
      expect(readFileSync(file, 'utf8')).toBe('one\n');
      expect(statSync(file).ino).toBe(ino);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
