import { describe, expect, it } from 'vitest';
import type { NodeAddress } from '../../kube/types/core.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createAddressFinder } from './address-finder.ts';
import {
  type AddressFacts,
  computeAddresses,
  parseNodeIps,
  parseLocalV4,
  parseLocalV6,
  parseRoutesV4,
  parseRoutesV6,
} from './addresses.ts';
import { countCpus, formatBytes, formatMillis } from './capacity.ts';
import { readInstanceMetadata } from './instance-metadata.ts';

const facts: AddressFacts = {
  interfaces: [
    { device: 'eth1', address: '198.51.100.4' },
    { device: 'eth0', address: '192.0.2.5' },
    { device: 'eth0', address: '2001:db8::5' },
  ],
  defaultDevices: { ipv4: ['eth0'], ipv6: ['eth0'] },
  resolved: [],
};
const of = (nodeIps: string[], more: Partial<AddressFacts> = {}, hostname = 'n1', externalCloudProvider = false) =>
  computeAddresses({ hostname, nodeIps, externalCloudProvider }, { ...facts, ...more }).map(({ address }) => address);

describe('addresses', () => {
  it.each<[string, string[], Partial<AddressFacts>, string[]]>([
    ['the default route’s', [], {}, ['192.0.2.5', 'n1']],
    ['the other family’s by ::', ['::'], {}, ['2001:db8::5', 'n1']],
    ['the flag’s', ['198.51.100.4'], {}, ['198.51.100.4', 'n1']],
    ['both families of the flag', ['192.0.2.5', '2001:db8::5'], {}, ['192.0.2.5', '2001:db8::5', 'n1']],
    ['the name’s, where it is this host’s', [], { resolved: ['203.0.113.1', '198.51.100.4'] }, ['198.51.100.4', 'n1']],
    [
      'the only one without a default route',
      [],
      { interfaces: [{ device: 'x', address: '192.0.2.9' }], defaultDevices: { ipv4: [], ipv6: [] } },
      ['192.0.2.9', 'n1'],
    ],
  ])('%s', (_what, nodeIps, more, addresses) => expect(of(nodeIps, more)).toEqual(addresses));

  it('a host name that is an address is the address; a cloud’s addresses stay', () => {
    expect(of([], {}, '192.0.2.77')).toEqual(['192.0.2.77', '192.0.2.77']);
    expect(of([], {}, 'n1', true)).toEqual(['n1']);
    const present = [{ type: 'ExternalIP', address: '203.0.113.9' }] as const;
    expect(computeAddresses({ hostname: 'n1', nodeIps: [], externalCloudProvider: true }, facts, present)).toBe(
      present,
    );
  });

  it.each([
    ['127.0.0.1', 'loopback'],
    ['224.0.0.1', 'multicast'],
    ['fe80::1', 'link-local'],
    ['203.0.113.200', "not found in the host's network interfaces"],
  ])('%s is refused', (address, why) => expect(() => of([address])).toThrow(why));

  it('no address at all is said', () =>
    expect(() => of([], { interfaces: [], defaultDevices: { ipv4: [], ipv6: [] } })).toThrow(
      "can't get ip address of node n1",
    ));

  it.each(['1.2.3', '192.0.2.1,192.0.2.2', '0.0.0.0,::1', '192.0.2.1,::1,::2'])('--node-ip %s is refused', (text) =>
    expect(() => parseNodeIps(text)).toThrow('node IP'),
  );

  it('what was known stays while it cannot be found out, and is no trouble', async () => {
    let away = true;
    const finder = (present: readonly NodeAddress[]) => {
      const made = createAddressFinder(
        {
          clock: createFakeClock(),
          log: silentLog,
          addresses: async () => {
            if (away) throw new Error('not found');
            return [{ type: 'InternalIP', address: '192.0.2.5' }];
          },
        },
        { hostname: 'n1', nodeIps: [], externalCloudProvider: false },
      );
      return { ...made, find: () => made.find(present) };
    };
    const [fresh, known] = [finder([]), finder([{ type: 'InternalIP', address: '192.0.2.5' }])];
    await Promise.all([fresh.find(), known.find()]);
    expect([fresh.error(), known.error()]).toEqual(['not found', undefined]);
    away = false;
    await fresh.find();
    away = true;
    await fresh.find();
    expect(fresh.error()).toBeUndefined();
    expect(fresh.found()).toHaveLength(1);
  });

  it('reads the kernel’s tables', () => {
    const v4 =
      'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n' +
      'eth1\t00000000\t0102000A\t0003\t0\t0\t200\t00000000\n' +
      'eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\n' +
      'eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n';
    expect(parseRoutesV4(v4)).toEqual(['eth0', 'eth1']);
    const zero = '0'.repeat(32);
    const v6 =
      `${zero} 00 ${zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n` +
      `${zero} 00 ${zero} 00 ${zero} ffffffff 00000001 00000000 00200200 lo\n`;
    expect(parseRoutesV6(v6)).toEqual(['eth0']);
    const trie =
      'Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n        +-- 192.0.2.0/30 2 0 2\n           |-- 192.0.2.0\n              /24 link UNICAST\n' +
      '           |-- 192.0.2.2\n              /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\n';
    expect(parseLocalV4(`${trie}${trie.replace('Main', 'Local')}`)).toEqual(['192.0.2.2']);
    const inet6 =
      '00000000000000000000000000000001 01 80 10 80       lo\n20010db8000000000000000000000005 02 40 00 80     eth0\n';
    expect(parseLocalV6(inet6)).toEqual([
      { device: 'lo', address: '::1' },
      { device: 'eth0', address: '2001:db8::5' },
    ]);
  });
});

describe('quantities', () => {
  it.each([
    [0, '0'],
    [1000, '1000'],
    [1024, '1Ki'],
    [8 * 2 ** 30, '8Gi'],
    [8_131_736 * 1024, '8131736Ki'],
  ])('%d bytes are %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));
  it('CPUs', () => {
    expect([formatMillis(4000), formatMillis(3920)]).toEqual(['4', '3920m']);
    expect([countCpus(''), countCpus('0-3,7'), countCpus('5')]).toEqual([0, 5, 1]);
  });
});

describe('instance metadata', () => {
  const clock = createFakeClock();
  const { signal } = new AbortController();
  it('is not asked for where this is no EC2 instance', async () => {
    const request = () => Promise.reject(new Error('asked'));
    expect(
      await readInstanceMetadata({ clock, log: silentLog, request, isEc2: () => Promise.resolve(false) }, signal),
    ).toBe(undefined);
  });

  it('gives provider id and labels, by a token', async () => {
    const asked: string[] = [];
    const answers: Record<string, string> = {
      '/latest/api/token': 'T',
      '/latest/meta-data/instance-id': 'i-1',
      '/latest/meta-data/placement/availability-zone': 'eu-west-1b',
      '/latest/meta-data/placement/region': 'eu-west-1',
      '/latest/meta-data/instance-type': 'm5.large',
    };
    const found = await readInstanceMetadata(
      {
        clock,
        log: silentLog,
        isEc2: () => Promise.resolve(true),
        request: (url, { method, headers }) => {
          const { pathname } = new URL(url);
          asked.push(`${method} ${headers['X-aws-ec2-metadata-token'] ?? ''}`.trim());
          return Promise.resolve({ ok: true, status: 200, text: () => Promise.resolve(answers[pathname] ?? '') });
        },
      },
      signal,
    );
    expect(found?.providerId).toBe('aws:///eu-west-1b/i-1');
    expect(found?.labels).toMatchObject({
      'topology.kubernetes.io/zone': 'eu-west-1b',
      'topology.kubernetes.io/region': 'eu-west-1',
      'node.kubernetes.io/instance-type': 'm5.large',
    });
    expect(asked).toEqual(['PUT', 'GET T', 'GET T', 'GET T', 'GET T']);
  });
});
