// The rules of a service port, as the kernel prints them, and the scripts that bring them there.
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import { createSlices } from '../../lib/slices.ts';
import { fakePort } from '../fake-ports.ts';
import { computeState, type Endpoint, type ServicePort, type ServicePortState } from '../model.ts';
import { diffService, diffShared, noRules } from './diff.ts';
import { planFull, renderWanted } from './full.ts';
import { endpointChain, serviceChains } from './names.ts';
import { fixedRules, nodePortTail } from './fixed.ts';
import type { RuleEnv } from './rule-text.ts';
import { serviceRules } from './rules.ts';
import { emptyTables, parseCounted, parseSaved } from './saved.ts';
import { createScript } from './script.ts';

const env = (fields: Partial<RuleEnv> = {}): RuleEnv => ({
  family: 'IPv4',
  comments: true,
  randomFully: true,
  localDetector: { kind: 'cidr', cidr: '10.244.0.0/16' },
  nodeIP: '172.20.0.1',
  nodePortAddresses: 'all',
  masqueradeAll: false,
  masqueradeBit: 14,
  localhostNodePorts: true,
  conntrackBeLiberal: false,
  serviceCidrs: [],
  ...fields,
});

const port = (fields: Partial<ServicePort> = {}): ServicePort => fakePort({ portName: 'http', ...fields });

const ready = (ip: string, isLocal = false): Endpoint => ({
  ip,
  port: 8080,
  isLocal,
  ready: true,
  serving: true,
  terminating: false,
});

const stateOf = (fields: Partial<ServicePort>, endpoints: readonly Endpoint[]): ServicePortState =>
  computeState(port(fields), endpoints, { nodeName: 'n1', zone: undefined });

// Chains by readable names, so that expectations can be read.
function readable(state: ServicePortState, given: RuleEnv = env()): string[] {
  const rules = serviceRules(state, given);
  const chains = serviceChains(state.port);
  const names = new Map<string, string>([
    [chains.cluster, 'SVC'],
    [chains.local, 'SVL'],
    [chains.external, 'EXT'],
    [chains.firewall, 'FW'],
    ...state.endpoints.map((endpoint) => [endpointChain(state.port, endpoint), `SEP-${endpoint.ip}`] as const),
  ]);
  const short = (text: string): string =>
    text.replace(/KUBE-(?:SVC|SVL|EXT|FW|SEP)-[A-Z2-7]{16}/g, (chain) => names.get(chain) ?? chain);
  const lines: string[] = [];
  for (const table of ['nat', 'filter'] as const)
    for (const [chain, list] of rules.shared[table])
      for (const rule of list) lines.push(`${table} ${chain} ${short(rule)}`);
  for (const [chain, list] of rules.chains) for (const rule of list) lines.push(`${short(chain)} ${short(rule)}`);
  return lines;
}

describe('names', () => {
  it("are kube-proxy's: a base32 SHA-256 of the name and protocol", () => {
    const kubernetes = port({ namespace: 'default', name: 'kubernetes', portName: 'https' });
    // Every iptables cluster has this chain.
    expect(serviceChains(kubernetes).cluster).toBe('KUBE-SVC-NPX46M4PTMTKRN6Y');
    const dns = port({ namespace: 'kube-system', name: 'kube-dns', portName: 'dns', protocol: 'UDP' });
    expect(serviceChains(dns).cluster).toBe('KUBE-SVC-TCOU7JCQXEZGVUNU');
  });
});

describe('rules of a service port', () => {
  it('cluster IP with two endpoints', () => {
    expect(readable(stateOf({}, [ready('10.1.0.1'), ready('10.1.0.2')]))).toEqual([
      'nat KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "ns/web:http cluster IP" -m tcp --dport 80 -j SVC',
      'SVC ! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m comment --comment "ns/web:http cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ',
      'SVC -m comment --comment "ns/web:http -> 10.1.0.1:8080" -m statistic --mode random --probability 0.50000000000 -j SEP-10.1.0.1',
      'SVC -m comment --comment "ns/web:http -> 10.1.0.2:8080" -j SEP-10.1.0.2',
      'SEP-10.1.0.1 -s 10.1.0.1/32 -m comment --comment "ns/web:http" -j KUBE-MARK-MASQ',
      'SEP-10.1.0.1 -p tcp -m comment --comment "ns/web:http" -m tcp -j DNAT --to-destination 10.1.0.1:8080',
      'SEP-10.1.0.2 -s 10.1.0.2/32 -m comment --comment "ns/web:http" -j KUBE-MARK-MASQ',
      'SEP-10.1.0.2 -p tcp -m comment --comment "ns/web:http" -m tcp -j DNAT --to-destination 10.1.0.2:8080',
    ]);
  });

  it('no endpoints: rejected on every way in, and the health check port stays open', () => {
    const fields = { nodePort: 30080, externalIPs: ['192.0.2.1'], healthCheckNodePort: 32000 };
    expect(readable(stateOf(fields, []))).toEqual([
      'filter KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "ns/web:http has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable',
      'filter KUBE-EXTERNAL-SERVICES -d 192.0.2.1/32 -p tcp -m comment --comment "ns/web:http has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable',
      'filter KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "ns/web:http has no endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j REJECT --reject-with icmp-port-unreachable',
      'filter KUBE-NODEPORTS -p tcp -m comment --comment "ns/web:http health check node port" -m tcp --dport 32000 -j ACCEPT',
    ]);
  });

  it('node ports on 127.0.0.0/8 are counted, where they are served there and in IPv4', () => {
    const counting = 'EXT -d 127.0.0.0/8 -j KUBE-LOCALHOST-NODEPORTS';
    const linesOf = (fields: Partial<ServicePort>, given: RuleEnv): string[] =>
      readable(stateOf(fields, [ready('10.1.0.1')]), given).filter((line) => line.startsWith('EXT '));
    expect(linesOf({ nodePort: 30080 }, env())[0]).toBe(counting);
    expect(linesOf({ externalIPs: ['192.0.2.1'] }, env())).not.toContain(counting);
    expect(linesOf({ nodePort: 30080 }, env({ localhostNodePorts: false }))).not.toContain(counting);
    expect(linesOf({ nodePort: 30080 }, env({ family: 'IPv6' }))).not.toContain(counting);
    expect(fixedRules(env()).nat.get('KUBE-LOCALHOST-NODEPORTS')).toEqual(['-j RETURN']);
    expect(fixedRules(env({ localhostNodePorts: false })).nat.has('KUBE-LOCALHOST-NODEPORTS')).toBe(false);
  });

  it('external policy Local without local endpoints: pods and the node are served, others dropped', () => {
    const lines = readable(stateOf({ nodePort: 30080, externalPolicyLocal: true }, [ready('10.1.0.1')]));
    expect(lines.filter((line) => /^EXT|EXTERNAL|NODEPORTS/.test(line))).toEqual([
      'nat KUBE-NODEPORTS -p tcp -m comment --comment "ns/web:http" -m tcp --dport 30080 -j EXT',
      'filter KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "ns/web:http has no local endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j DROP',
      'EXT -d 127.0.0.0/8 -j KUBE-LOCALHOST-NODEPORTS',
      'EXT -s 10.244.0.0/16 -m comment --comment "pod traffic for ns/web:http external destinations" -j SVC',
      'EXT -m comment --comment "masquerade LOCAL traffic for ns/web:http external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ',
      'EXT -m comment --comment "route LOCAL traffic for ns/web:http external destinations" -m addrtype --src-type LOCAL -j SVC',
    ]);
  });

  it('external policy Local with a local endpoint: its chain comes last', () => {
    const lines = readable(
      stateOf({ nodePort: 30080, externalPolicyLocal: true }, [ready('10.1.0.1'), ready('10.1.0.2', true)]),
    );
    expect(lines.filter((line) => line.startsWith('EXT')).at(-1)).toBe('EXT -j SVL');
    expect(lines.filter((line) => line.startsWith('SVL'))).toEqual([
      'SVL -m comment --comment "ns/web:http -> 10.1.0.2:8080" -j SEP-10.1.0.2',
    ]);
  });

  it('external policy Cluster: masqueraded', () => {
    const lines = readable(stateOf({ nodePort: 30080 }, [ready('10.1.0.1')]));
    expect(lines.filter((line) => line.startsWith('EXT'))).toEqual([
      'EXT -d 127.0.0.0/8 -j KUBE-LOCALHOST-NODEPORTS',
      'EXT -m comment --comment "masquerade traffic for ns/web:http external destinations" -j KUBE-MARK-MASQ',
      'EXT -j SVC',
    ]);
  });

  it('internal policy Local: its own chain, masqueraded like a cluster chain', () => {
    const lines = readable(stateOf({ internalPolicyLocal: true }, [ready('10.1.0.1'), ready('10.1.0.2', true)]));
    expect(lines[0]).toMatch(/KUBE-SERVICES .* -j SVL$/);
    expect(lines[1]).toMatch(/^SVL ! -s 10\.244\.0\.0\/16 .* -j KUBE-MARK-MASQ$/);
    expect(lines.some((line) => line.startsWith('SVC'))).toBe(false);
    expect(readable(stateOf({ internalPolicyLocal: true }, [ready('10.1.0.1')]))).toEqual([
      'filter KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "ns/web:http has no local endpoints" -m tcp --dport 80 -j DROP',
    ]);
  });

  it('source ranges hold for load balancer VIPs, and let the node in where they hold its address', () => {
    const fields = { loadBalancerVIPs: ['203.0.113.1'], sourceRanges: ['172.20.0.0/16', '192.0.2.0/24'] };
    const lines = readable(stateOf(fields, [ready('10.1.0.1')]));
    expect(lines.filter((line) => /^FW|loadbalancer IP.*FW$|FIREWALL -d/.test(line))).toEqual([
      'nat KUBE-SERVICES -d 203.0.113.1/32 -p tcp -m comment --comment "ns/web:http loadbalancer IP" -m tcp --dport 80 -j FW',
      'filter KUBE-PROXY-FIREWALL -d 203.0.113.1/32 -p tcp -m comment --comment "ns/web:http traffic not accepted by FW" -m tcp --dport 80 -j DROP',
      'FW -s 172.20.0.0/16 -m comment --comment "ns/web:http loadbalancer IP" -j EXT',
      'FW -s 192.0.2.0/24 -m comment --comment "ns/web:http loadbalancer IP" -j EXT',
      'FW -s 203.0.113.1/32 -m comment --comment "ns/web:http loadbalancer IP" -j EXT',
      'FW -m comment --comment "other traffic to ns/web:http will be dropped by KUBE-PROXY-FIREWALL"',
    ]);
  });

  it('affinity: looked up first, set where it lands', () => {
    const state = stateOf({ affinitySeconds: 60 }, [ready('10.1.0.1'), ready('10.1.0.2')]);
    const chain = endpointChain(state.port, state.endpoints[0]!);
    const lines = readable(state);
    const recent = `--name SEP-10.1.0.1 --mask 255.255.255.255 --rsource`;
    expect(chain).toMatch(/^KUBE-SEP-/);
    expect(lines[2]).toBe(
      `SVC -m comment --comment "ns/web:http -> 10.1.0.1:8080" -m recent --rcheck --seconds 60 --reap ${recent} -j SEP-10.1.0.1`,
    );
    expect(lines.at(-3)).toBe(
      `SEP-10.1.0.1 -p tcp -m comment --comment "ns/web:http" -m recent --set ${recent} -m tcp -j DNAT --to-destination 10.1.0.1:8080`,
    );
  });

  it.each<[string, Partial<RuleEnv>, string | undefined]>([
    ['masqueradeAll', { masqueradeAll: true }, 'SVC -d 10.96.0.1/32 -p tcp'],
    ['no detector', { localDetector: { kind: 'none' } }, undefined],
    ['a bridge', { localDetector: { kind: 'bridge-interface', name: 'cni0' } }, 'SVC -d 10.96.0.1/32 ! -i cni0 -p tcp'],
    [
      'a prefix',
      { localDetector: { kind: 'interface-prefix', prefix: 'veth' } },
      'SVC -d 10.96.0.1/32 ! -i veth+ -p tcp',
    ],
  ])('masquerading with %s', (_name, fields, wanted) => {
    const line = readable(stateOf({}, [ready('10.1.0.1')]), env(fields)).find(
      (text) => text.endsWith('KUBE-MARK-MASQ') && text.startsWith('SVC'),
    );
    if (wanted === undefined) expect(line).toBeUndefined();
    else expect(line?.startsWith(wanted)).toBe(true);
  });

  it('large clusters go without comments about endpoints', () => {
    const lines = readable(stateOf({}, [ready('10.1.0.1')]), env({ comments: false }));
    expect(lines.filter((line) => line.startsWith('SEP') && line.includes('comment'))).toEqual([]);
  });

  it('spreads evenly: each endpoint gets its share within a millionth', () => {
    const endpoints = Array.from({ length: 7 }, (_, at) => ready(`10.1.0.${at + 1}`));
    const chances = readable(stateOf({}, endpoints)).flatMap((line) => /--probability (\S+)/.exec(line)?.[1] ?? []);
    let left = 1;
    for (const chance of [...chances.map(Number), 1]) {
      expect(left * chance).toBeCloseTo(1 / 7, 6);
      left -= left * chance;
    }
  });
});

describe('fixed rules', () => {
  it('node ports come last in KUBE-SERVICES, without loopback where it is not wanted', () => {
    expect(nodePortTail(env())[0]).toContain('-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS');
    expect(nodePortTail(env({ localhostNodePorts: false }))[0]).toMatch(/^! -d 127\.0\.0\.0\/8 /);
    expect(nodePortTail(env({ family: 'IPv6' }))[0]).toMatch(/^! -d ::1\/128 /);
    const chosen = { nodePortAddresses: ['127.0.0.1', '172.20.0.1'], localhostNodePorts: false };
    expect(nodePortTail(env(chosen))).toHaveLength(1);
  });

  it('INVALID packets are dropped unless conntrack is liberal; the mark bit is as configured', () => {
    expect(fixedRules(env()).filter.get('KUBE-FORWARD')![0]).toBe('-m conntrack --ctstate INVALID -j DROP');
    expect(fixedRules(env({ conntrackBeLiberal: true })).filter.get('KUBE-FORWARD')).toHaveLength(2);
    expect(fixedRules(env({ masqueradeBit: 3 })).nat.get('KUBE-MARK-MASQ')).toEqual(['-j MARK --set-xmark 0x8/0x8']);
    expect(
      fixedRules(env({ randomFully: false }))
        .nat.get('KUBE-POSTROUTING')!
        .at(-1),
    ).toMatch(/-j MASQUERADE$/);
    expect(fixedRules(env({ family: 'IPv6' })).filter.has('KUBE-FIREWALL')).toBe(false);
  });
});

const textOf = (fill: (script: ReturnType<typeof createScript>) => void): string => {
  const script = createScript();
  fill(script);
  return script.text();
};

describe('differences', () => {
  const two = stateOf({}, [ready('10.1.0.1'), ready('10.1.0.2')]);
  const one = stateOf({}, [ready('10.1.0.1')]);
  const none = stateOf({}, []);
  const rules = (state: ServicePortState) => serviceRules(state, env());

  it('write only chains that changed, and delete those that went', () => {
    const text = textOf((script) => diffService(script, rules(two), rules(one)));
    expect(text.match(/^:/gm)).toHaveLength(2);
    expect(text).toContain(`-X ${endpointChain(two.port, two.endpoints[1]!)}`);
    expect(text).not.toContain('KUBE-SERVICES');
    expect(textOf((script) => diffService(script, rules(two), rules(two)))).toBe('');
  });

  it('put a rejection up before the way goes, and down after it came', () => {
    const down = textOf((script) => diffService(script, rules(one), rules(none)));
    expect(
      down.indexOf('-I KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "ns/web:http has no endpoints"'),
    ).toBeLessThan(down.indexOf('-D KUBE-SERVICES -d 10.96.0.1/32'));
    const up = textOf((script) => diffService(script, rules(none), rules(one)));
    expect(up.indexOf('*nat')).toBeLessThan(up.indexOf('*filter'));
  });

  it('in shared chains put in and take out single rules, and leave the tail last', () => {
    const shared = (kernel: string[], wanted: string[]) =>
      textOf((script) => diffShared(script, 'nat', 'KUBE-SERVICES', kernel, wanted, ['tail']));
    expect(shared(['a', 'b', 'tail'], ['b', 'a'])).toBe('');
    expect(shared(['a', 'b', 'tail'], ['b', 'c'])).toBe('*nat\n-I KUBE-SERVICES c\n-D KUBE-SERVICES a\nCOMMIT\n');
    expect(shared(['a', 'a', 'tail'], ['a'])).toBe('*nat\n-D KUBE-SERVICES a\nCOMMIT\n');
    expect(shared(['tail', 'a'], ['a'])).toContain(':KUBE-SERVICES');
    expect(shared([], [])).toContain(':KUBE-SERVICES');
  });

  it('as input are text where they are short, else the same in bytes', async () => {
    const slices = createSlices(systemClock);
    const [short, long] = [createScript(), createScript()];
    for (let at = 0; at < 3; at++) short.setChain('nat', `KUBE-SEP-${at}`, ['-j RETURN']);
    for (let at = 0; at < 3_000; at++) long.setChain('nat', `KUBE-SEP-${at}`, ['-j RETURN']);
    short.insert('filter', 'KUBE-SERVICES', '-j RETURN');
    expect(await short.input(slices)).toBe(short.text());
    const bytes = await long.input(slices);
    expect(bytes).toBeInstanceOf(Uint8Array);
    expect(Buffer.from(bytes).toString()).toBe(long.text());
  });

  it('adopt what is there by content: nothing to write, and foreign or stale chains told apart', async () => {
    const slices = createSlices(systemClock);
    const wanted = await renderWanted([two], env(), slices);
    const first = await planFull(emptyTables(), wanted, slices);
    const kernel = await parseSaved(first.script.text().replace(/^-I /gm, '-A '), slices);
    const again = await planFull(kernel, wanted, slices);
    expect(again.script.text()).toBe('');
    expect(again.totals).toEqual(first.totals);
    const stale = await planFull(kernel, await renderWanted([], env(), slices), slices);
    expect(stale.script.text().match(/^-X /gm)).toHaveLength(3);
    expect(stale.script.text()).not.toContain('-X KUBE-SERVICES');
  });
});

describe('what the tools print', () => {
  it('counters are taken out of rules', () => {
    expect(parseCounted('-d 10.0.0.1/32 -c 5 300 -j KUBE-X')).toEqual({
      rule: '-d 10.0.0.1/32 -j KUBE-X',
      packets: 5,
      bytes: 300,
    });
    expect(parseCounted('-c 1 2 -j KUBE-X')).toEqual({ rule: '-j KUBE-X', packets: 1, bytes: 2 });
  });

  it('foreign chains are passed over, jumps to ours kept', async () => {
    const { nat: saved, mangle } = await parseSaved(
      '# x\n*raw\n:KUBE-RAW - [0:0]\nCOMMIT\n*mangle\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j DOCKER\n-A PREROUTING -j KUBE-SERVICES\n-A DOCKER -j RETURN\n-A KUBE-SERVICES -j RETURN\nCOMMIT\n',
      createSlices(systemClock),
    );
    expect([...mangle.chains.keys()]).toEqual(['KUBE-PROXY-CANARY']);
    expect([...saved.chains]).toEqual([['KUBE-SERVICES', ['-j RETURN']]]);
    expect([...saved.jumps]).toEqual([['PREROUTING', ['-j KUBE-SERVICES']]]);
    expect(diffService(createScript(), noRules, noRules)).toBeUndefined();
  });
});
