// Services and EndpointSlices as they come, and what becomes dirty: also of slices that make no sense.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFakeClient } from '../kube/fake-client.ts';
import { resources } from '../kube/resources.ts';
import type { EndpointSlice, Service } from '../kube/types/core.ts';
import { createFakeClock } from '../lib/fake-clock.ts';
import { createHints } from './hints.ts';
import { joinHostPort, parseCidr, parseIp, cidrContains } from './addresses.ts';
import { mergeSlices } from './merge-slices.ts';
import { serviceSelection, servicePortsOf, sliceSelection } from './services.ts';
import { createProxyState, type ProxyState } from './state.ts';

const service = (spec: Partial<Service['spec']>, status?: Service['status']): Service => ({
  metadata: { namespace: 'ns', name: 'web' },
  spec: {
    type: 'ClusterIP',
    clusterIP: '10.96.0.1',
    clusterIPs: ['10.96.0.1', 'fd00::1'],
    ipFamilies: ['IPv4', 'IPv6'],
    ports: [{ name: 'http', port: 80, protocol: 'TCP' }],
    ...spec,
  },
  ...(status ? { status } : {}),
});

const slice = (name: string, fields: Partial<EndpointSlice> = {}): EndpointSlice => ({
  metadata: { namespace: 'ns', name, labels: { 'kubernetes.io/service-name': 'web' } },
  addressType: 'IPv4',
  endpoints: [{ addresses: ['10.1.0.1'] }],
  ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  ...fields,
});

const newState = (dirty: string[] = []): ProxyState =>
  createProxyState({ nodeName: 'n1', startedAtMs: 0, onDirty: (family) => dirty.push(family) });

const setService = (state: ProxyState, after: Service | undefined): void =>
  state.services.change({ key: 'ns/web', before: undefined, after });
const setSlice = (state: ProxyState, after: EndpointSlice, before?: EndpointSlice): void =>
  state.endpoints.change({ key: `ns/${after.metadata.name}`, before, after });
const removeSlice = (state: ProxyState, before: EndpointSlice): void =>
  state.endpoints.change({ key: `ns/${before.metadata.name}`, before, after: undefined });

describe('addresses', () => {
  it.each([
    ['10.0.0.1', '10.0.0.1'],
    ['010.0.0.01', '10.0.0.1'],
    ['10.0.0.256', undefined],
    ['10.0.0', undefined],
    ['FD00:0:0::1', 'fd00::1'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
    ['fe80::1%eth0', undefined],
    ['pod.example', undefined],
    ['', undefined],
  ])('parseIp(%j)', (text, wanted) => expect(parseIp(text)?.text).toBe(wanted));

  it.each([
    [' 10.1.2.3/8 ', '10.0.0.0/8'],
    ['fd00::5/64', 'fd00::/64'],
    ['10.0.0.0/33', undefined],
    ['10.0.0.0', undefined],
  ])('parseCidr(%j)', (text, wanted) => expect(parseCidr(text)?.text).toBe(wanted));

  it('knows what a network holds', () => {
    expect(cidrContains('10.0.0.0/8', '10.255.1.1')).toBe(true);
    expect(cidrContains('10.0.0.0/8', '11.0.0.1')).toBe(false);
    expect(cidrContains('fd00::/64', 'fd00::9')).toBe(true);
    expect(cidrContains('fd00::/64', '10.0.0.1')).toBe(false);
  });
});

describe('ports of a Service', () => {
  it('has one for each family that has a cluster IP', () => {
    expect(servicePortsOf(service({}), 'IPv6')[0]).toMatchObject({ clusterIP: 'fd00::1', key: 'ns/web:http/TCP' });
    const single = service({ ipFamilies: ['IPv4'], clusterIPs: ['10.96.0.1'] });
    expect(servicePortsOf(single, 'IPv6')).toEqual([]);
    expect(servicePortsOf({ ...single, spec: { ports: [{ port: 1 }], clusterIP: '10.96.0.1' } }, 'IPv4')).toHaveLength(
      1,
    );
  });

  it.each([
    ['headless', { clusterIP: 'None' }],
    ['without an address', { clusterIP: '' }],
    ['ExternalName', { type: 'ExternalName' as const }],
    ['with an address that is none', { clusterIP: 'x', clusterIPs: ['x'], ipFamilies: ['IPv4' as const] }],
  ])('has none: %s', (_name, spec) => expect(servicePortsOf(service(spec), 'IPv4')).toEqual([]));

  it('keeps addresses of its own family, VIPs only, and ranges trimmed', () => {
    const [port] = servicePortsOf(
      service(
        {
          type: 'LoadBalancer',
          externalIPs: ['192.0.2.1', 'fd01::1', 'junk', '192.0.2.1'],
          loadBalancerSourceRanges: [' 192.0.2.7/24 ', 'fd01::/64'],
          externalTrafficPolicy: 'Local',
          healthCheckNodePort: 32000,
          sessionAffinity: 'ClientIP',
        },
        {
          loadBalancer: { ingress: [{ ip: '203.0.113.1' }, { ip: '203.0.113.2', ipMode: 'Proxy' }, { hostname: 'h' }] },
        },
      ),
      'IPv4',
    );
    expect(port).toMatchObject({
      externalIPs: ['192.0.2.1'],
      loadBalancerVIPs: ['203.0.113.1'],
      sourceRanges: ['192.0.2.0/24'],
      externalPolicyLocal: true,
      healthCheckNodePort: 32000,
      affinitySeconds: 10_800,
    });
  });

  it('takes a range of all addresses for no ranges', () => {
    const spec = { type: 'LoadBalancer' as const, loadBalancerSourceRanges: ['192.0.2.0/24', '0.0.0.0/0'] };
    expect(servicePortsOf(service(spec), 'IPv4')[0]?.sourceRanges).toEqual([]);
  });
});

describe('slices', () => {
  const merged = (...slices: EndpointSlice[]) => {
    const ignored: string[] = [];
    const ports = mergeSlices('ns/web', slices, { nodeName: 'n1', ignored: (what) => ignored.push(what) });
    return {
      ignored,
      http: (ports.get('ns/web:http/TCP') ?? []).map((endpoint) => joinHostPort(endpoint.ip, endpoint.port)),
      ports,
    };
  };

  it('are merged, each address once, ordered', () => {
    const two = slice('b', { endpoints: [{ addresses: ['10.1.0.0'] }, { addresses: ['10.1.0.1'] }] });
    expect(merged(slice('a'), two).http).toEqual(['10.1.0.0:8080', '10.1.0.1:8080']);
  });

  it('take conditions that are absent for ready and serving', () => {
    expect(merged(slice('a')).ports.get('ns/web:http/TCP')?.[0]).toMatchObject({
      ready: true,
      serving: true,
      terminating: false,
    });
  });

  it('prefer the living one of two endpoints at one address', () => {
    const living = slice('a', { endpoints: [{ addresses: ['10.1.0.1'], nodeName: 'n1' }] });
    const going = slice('b', {
      endpoints: [{ addresses: ['10.1.0.1'], conditions: { ready: false, terminating: true } }],
    });
    for (const order of [
      [living, going],
      [going, living],
    ])
      expect(merged(...order).ports.get('ns/web:http/TCP')).toEqual([
        expect.objectContaining({ isLocal: true, terminating: false }),
      ]);
  });

  it.each<[string, Partial<EndpointSlice>]>([
    ['null port', { ports: [{ name: 'http', port: null }] }],
    ['port 0', { ports: [{ name: 'http', port: 0 }] }],
    ['no addresses', { endpoints: [{ addresses: [] }] }],
    ['an address of the other family', { endpoints: [{ addresses: ['fd00::1'] }] }],
    ['a name for an address', { endpoints: [{ addresses: ['pod.example'] }] }],
    ['the unspecified address', { endpoints: [{ addresses: ['0.0.0.0'] }] }],
  ])('ignore what makes no sense: %s', (_name, fields) => {
    const result = merged(slice('bad', fields), slice('good', { endpoints: [{ addresses: ['10.1.0.9'] }] }));
    expect(result.http).toEqual(['10.1.0.9:8080']);
    expect(result.ignored).toHaveLength(1);
  });

  it.each<[string, Partial<EndpointSlice>]>([
    ['FQDN', { addressType: 'FQDN', endpoints: [{ addresses: ['pod.example'] }] }],
    ['null ports', { ports: null }],
    ['null endpoints', { endpoints: null }],
    ['no service name', { metadata: { namespace: 'ns', name: 'bad' } }],
  ])('disturb nobody: %s', (_name, fields) => {
    const state = newState();
    setService(state, service({}));
    setSlice(state, slice('good'));
    state.takeDirty('IPv4');
    setSlice(state, slice('bad', fields));
    expect([...state.takeDirty('IPv4')]).toEqual([]);
    expect(state.desired('IPv4').get('ns/web:http/TCP')?.choice.cluster).toHaveLength(1);
  });

  it('may name the same port differently for different pods', () => {
    const other = slice('b', { endpoints: [{ addresses: ['10.1.0.2'] }], ports: [{ name: 'http', port: 9090 }] });
    expect(merged(slice('a'), other).http).toEqual(['10.1.0.1:8080', '10.1.0.2:9090']);
  });

  it('are merged right whatever order they come and go in', () => {
    const names = ['a', 'b', 'c'];
    const step = fc.record({
      name: fc.constantFrom(...names),
      gone: fc.boolean(),
      ips: fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 4 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const state = newState();
        setService(state, service({}));
        const there = new Map<string, EndpointSlice>();
        for (const { name, gone, ips } of steps) {
          const before = there.get(name);
          if (gone) {
            if (before) removeSlice(state, before);
            there.delete(name);
          } else {
            const next = slice(name, { endpoints: ips.map((ip) => ({ addresses: [`10.1.0.${ip}`] })) });
            setSlice(state, next, before);
            there.set(name, next);
          }
        }
        const wanted = new Set(
          [...there.values()].flatMap(({ endpoints }) => (endpoints ?? []).map(({ addresses }) => addresses[0]!)),
        );
        const got = state.endpoints.get('IPv4', 'ns/web:http/TCP').map(({ ip }) => ip);
        expect(got).toEqual([...wanted].sort());
        expect(state.endpoints.count('IPv4')).toBe(got.length);
      }),
    );
  });
});

describe('the dirty set', () => {
  it('holds what changed and nothing else', () => {
    const dirty: string[] = [];
    const state = newState(dirty);
    setSlice(state, slice('a'));
    expect(dirty).toEqual([]);
    setService(state, service({}));
    expect([...state.takeDirty('IPv4')]).toEqual(['ns/web:http/TCP']);
    setService(state, { ...service({}), metadata: { namespace: 'ns', name: 'web', labels: { a: 'b' } } });
    setSlice(state, slice('a', { metadata: { ...slice('a').metadata, resourceVersion: '7' } }), slice('a'));
    expect([...state.takeDirty('IPv4')]).toEqual([]);
    setSlice(state, slice('a', { endpoints: [] }), slice('a'));
    expect([...state.takeDirty('IPv4')]).toEqual(['ns/web:http/TCP']);
    expect([...state.takeDirty('IPv6')]).toEqual(['ns/web:http/TCP']);
    expect([...state.takeDirty('IPv6')]).toEqual([]);
  });

  it('holds the removal of a Service, and of a port of it', () => {
    const state = newState();
    const ports = [
      { name: 'http', port: 80 },
      { name: 'dns', port: 53, protocol: 'UDP' as const },
    ];
    setService(state, service({ ports }));
    state.takeDirty('IPv4');
    setService(state, service({}));
    expect([...state.takeDirty('IPv4')]).toEqual(['ns/web:dns/UDP']);
    setService(state, service({ type: 'ExternalName' }));
    expect([...state.takeDirty('IPv4')]).toEqual(['ns/web:http/TCP']);
    expect(state.desired('IPv4').size()).toBe(0);
  });

  it('holds everything when the node moves to another zone', () => {
    const state = newState();
    setService(state, service({}));
    const hinted = ['z1', 'z2'].map((name, at) => ({ addresses: [`10.1.0.${at}`], hints: { forZones: [{ name }] } }));
    setSlice(state, slice('a', { endpoints: hinted }));
    expect(state.desired('IPv4').get('ns/web:http/TCP')?.choice.cluster).toHaveLength(2);
    state.takeDirty('IPv4');
    state.setZone('z2');
    expect(state.dirtyCount('IPv4')).toBe(1);
    expect(
      state
        .desired('IPv4')
        .get('ns/web:http/TCP')
        ?.choice.cluster.map(({ ip }) => ip),
    ).toEqual(['10.1.0.1']);
  });

  it('moves endpoints with a slice that changes its Service', () => {
    const state = newState();
    setService(state, service({}));
    setSlice(state, slice('a'));
    setSlice(
      state,
      slice('a', { metadata: { namespace: 'ns', name: 'a', labels: { 'kubernetes.io/service-name': 'other' } } }),
      slice('a'),
    );
    expect(state.endpoints.get('IPv4', 'ns/web:http/TCP')).toEqual([]);
    expect(state.endpoints.get('IPv4', 'ns/other:http/TCP')).toHaveLength(1);
  });

  it('counts local ready addresses once, whatever their ports', () => {
    const state = newState();
    setSlice(
      state,
      slice('a', {
        endpoints: [{ addresses: ['10.1.0.1'], nodeName: 'n1' }],
        ports: [
          { name: 'a', port: 1 },
          { name: 'b', port: 2 },
        ],
      }),
    );
    expect(state.endpoints.localReady('IPv4', 'ns/web')).toBe(1);
  });

  it('hands trigger times over once', () => {
    const state = newState();
    const time = '2026-01-01T00:00:00.5Z';
    setSlice(
      state,
      slice('a', {
        metadata: { ...slice('a').metadata, annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': time } },
      }),
    );
    expect(state.endpoints.takeTriggerTimes('IPv4', 'ns/web')).toEqual([Date.parse(time)]);
    expect(state.endpoints.takeTriggerTimes('IPv4', 'ns/web')).toEqual([]);
  });

  it('leaves trigger times of what came while it was written for the next write', () => {
    const state = newState();
    const set = (name: string, time: string): void => {
      const annotations = { 'endpoints.kubernetes.io/last-change-trigger-time': time };
      setSlice(state, slice(name, { metadata: { ...slice(name).metadata, annotations }, endpoints: [at(name)] }));
    };
    const at = (name: string) => ({ addresses: [name === 'a' ? '10.1.0.7' : '10.1.0.8'], conditions: {} });
    const [first, second] = ['2026-01-01T00:00:01Z', '2026-01-01T00:00:02Z'];
    set('a', first);
    state.endpoints.beginWrite('IPv4');
    set('b', second);
    expect(state.endpoints.takeTriggerTimes('IPv4', 'ns/web')).toEqual([Date.parse(first)]);
    expect(state.endpoints.takeTriggerTimes('IPv4', 'ns/web')).toEqual([]);
    state.endpoints.beginWrite('IPv4');
    expect(state.endpoints.takeTriggerTimes('IPv4', 'ns/web')).toEqual([Date.parse(second)]);
  });

  it('serves no external IPs where AllowServiceExternalIPs is switched off', () => {
    const state = createProxyState({ nodeName: 'n1', startedAtMs: 0, externalIPs: false, onDirty: () => undefined });
    setService(state, service({ externalIPs: ['192.0.2.1'] }));
    expect(state.services.get('IPv4', 'ns/web:http/TCP')).toMatchObject({ clusterIP: '10.96.0.1', externalIPs: [] });
  });

  it('notes no trigger time, and asks for no write, where nothing is to be programmed', () => {
    const state = newState();
    setService(state, service({}));
    const before = slice('a');
    setSlice(state, before);
    state.takeDirty('IPv4');
    const asked = state.dirtied();
    const annotations = { 'endpoints.kubernetes.io/last-change-trigger-time': '2026-01-01T00:00:00Z' };
    const after = { ...before, metadata: { ...before.metadata, annotations } };
    setSlice(state, after, before);
    setService(state, { ...service({}), metadata: { namespace: 'ns', name: 'web', annotations: { a: 'b' } } });
    expect(state.dirtied()).toBe(asked);
    setSlice(state, { ...after, endpoints: [] }, after);
    expect(state.dirtied()).toBeGreaterThan(asked);
    expect(state.endpoints.takeTriggerTimes('IPv4', 'ns/web')).toHaveLength(1);
  });
});

describe('a hint of a pod that is no longer ready', () => {
  const managed = (name: string, manager = 'endpointslice-controller.k8s.io', nodeName = 'n1'): EndpointSlice =>
    slice(name, {
      metadata: {
        namespace: 'ns',
        name,
        labels: { 'kubernetes.io/service-name': 'web', 'endpointslice.kubernetes.io/managed-by': manager },
      },
      endpoints: [
        { addresses: ['10.1.0.1'], nodeName, targetRef: { kind: 'Pod', uid: 'u1' } },
        { addresses: ['10.1.0.2'], nodeName, targetRef: { kind: 'Pod', uid: 'u2' } },
      ],
    });
  const conditions = (state: ProxyState) =>
    state.endpoints
      .get('IPv4', 'ns/web:http/TCP')
      .map(({ ready, serving, terminating }) => [ready, serving, terminating].map(Number).join(''));
  const prepared = (fields: Partial<Service['spec']> = { selector: { app: 'web' } }, ...slices: EndpointSlice[]) => {
    const state = newState();
    setService(state, service(fields));
    for (const each of slices.length > 0 ? slices : [managed('a')]) setSlice(state, each);
    state.takeDirty('IPv4');
    return state;
  };

  it('takes its endpoint out before the slices tell, and lapses', () => {
    const state = prepared();
    state.endpoints.hint('u1', { ready: false, terminating: false });
    expect([...state.takeDirty('IPv4')]).toEqual(['ns/web:http/TCP']);
    expect(conditions(state)).toEqual(['000', '110']);
    // Another change of the slice, made before the controller saw the pod, does not bring it back.
    setSlice(state, managed('a'));
    expect(conditions(state)).toEqual(['000', '110']);
    state.endpoints.hint('u1', undefined);
    expect(conditions(state)).toEqual(['110', '110']);
  });

  it('of a pod that goes keeps it serving for when there is no other', () => {
    const state = prepared();
    for (const uid of ['u1', 'u2']) state.endpoints.hint(uid, { ready: true, terminating: true });
    expect(conditions(state)).toEqual(['011', '011']);
    expect(state.desired('IPv4').get('ns/web:http/TCP')?.choice.cluster).toHaveLength(2);
  });

  it.each<[string, Partial<Service['spec']>, EndpointSlice]>([
    ['of a Service that publishes them anyway', { selector: { a: 'b' }, publishNotReadyAddresses: true }, managed('a')],
    ['of a Service without a selector', {}, managed('a')],
    ['in a slice somebody else made', { selector: { a: 'b' } }, managed('a', 'me')],
    ['on another node', { selector: { a: 'b' } }, managed('a', undefined, 'n2')],
  ])('says nothing of endpoints %s', (_name, fields, made) => {
    const state = prepared(fields, made);
    state.endpoints.hint('u1', { ready: false, terminating: false });
    expect([...state.takeDirty('IPv4')]).toEqual([]);
    expect(conditions(state)).toEqual(['110', '110']);
  });

  it('lapses after five seconds, and at once where the pod is ready again', async () => {
    const state = prepared();
    const clock = createFakeClock();
    const hints = createHints({ clock, endpoints: state.endpoints });
    hints.note('u1', { ready: false, terminating: false });
    hints.note('u2', { ready: false, terminating: false });
    hints.note('u2', { ready: true, terminating: false });
    expect(conditions(state)).toEqual(['000', '110']);
    await clock.advance(5_100);
    expect(conditions(state)).toEqual(['110', '110']);
  });
});

describe('the selections of the watches', () => {
  const labels = (what: string) => ({ [`service.kubernetes.io/${what}`]: '' });

  it('leave out Services that are headless and those of other proxies, whatever a label says of being headless', async () => {
    const client = createFakeClient();
    const one = (name: string, fields: { labels?: Record<string, string>; clusterIP?: string }): Service => ({
      ...service(fields.clusterIP === undefined ? {} : { clusterIP: fields.clusterIP }),
      metadata: { namespace: 'ns', name, labels: fields.labels ?? {} },
    });
    client.seed(
      resources.services,
      one('ours', {}),
      one('labelled', { labels: labels('headless') }),
      one('headless', { clusterIP: 'None' }),
      one('other', { labels: labels('service-proxy-name') }),
    );
    const { items } = await client.list(resources.services, serviceSelection);
    expect(items.map(({ metadata }) => metadata.name)).toEqual(['labelled', 'ours']);
  });

  it('leave out slices that say they are of headless Services, and no others', async () => {
    const client = createFakeClient();
    const one = (name: string, more: Record<string, string>): EndpointSlice => ({
      ...slice(name),
      metadata: { namespace: 'ns', name, labels: { 'kubernetes.io/service-name': 'web', ...more } },
    });
    client.seed(
      resources.endpointSlices,
      one('ours', {}),
      one('headless', labels('headless')),
      one('other', labels('service-proxy-name')),
    );
    const { items } = await client.list(resources.endpointSlices, sliceSelection);
    expect(items.map(({ metadata }) => metadata.name)).toEqual(['other', 'ours']);
  });
});
