// Which flows have gone stale.
import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { ExecError, type exec } from '../lib/exec.ts';
import { silentLog } from '../lib/log.ts';
import { changedFrontends, createConntrackCleaner, type Flow, isStale, parseFlow } from './conntrack.ts';
import { fakePort } from './fake-ports.ts';
import { computeState, type Endpoint, type ServicePort, type ServicePortState } from './model.ts';

const endpoint = (ip: string, fields: Partial<Endpoint> = {}): Endpoint => ({
  ip,
  port: 5353,
  isLocal: false,
  ready: true,
  serving: true,
  terminating: false,
  ...fields,
});

function stateOf(ips: readonly (string | Endpoint)[], fields: Partial<ServicePort> = {}): ServicePortState {
  const port = fakePort({
    name: 'dns',
    protocol: 'UDP',
    clusterIP: '10.96.0.10',
    port: 53,
    nodePort: 30053,
    externalIPs: ['192.0.2.1'],
    ...fields,
  });
  const endpoints = ips.map((ip) => (typeof ip === 'string' ? endpoint(ip) : ip));
  return computeState(port, endpoints, { nodeName: 'n1', zone: undefined });
}

const flow = (to: string, port: number, answeredBy: string, answerPort = 5353): Flow => ({
  protocol: 'UDP',
  originalDestination: to,
  originalPort: port,
  replySource: answeredBy,
  replyPort: answerPort,
});
const host = new Set(['172.20.0.1']);
const stale = (one: Flow, before: ServicePortState | undefined, after: ServicePortState | undefined): boolean =>
  isStale(one, changedFrontends([{ key: 'ns/dns:/UDP', before, after }]), host);

describe('stale flows', () => {
  const [both, one, none] = [stateOf(['10.1.0.1', '10.1.0.2']), stateOf(['10.1.0.1']), stateOf([])];

  it.each<[string, Flow, ServicePortState | undefined, ServicePortState | undefined, boolean]>([
    ['to an endpoint that went', flow('10.96.0.10', 53, '10.1.0.2'), both, one, true],
    ['to an endpoint that stays', flow('10.96.0.10', 53, '10.1.0.1'), both, one, false],
    ['through an external IP', flow('192.0.2.1', 53, '10.1.0.2'), both, one, true],
    ['to the last endpoint that went', flow('10.96.0.10', 53, '10.1.0.1'), one, none, true],
    ['that met the VIP before it had endpoints', flow('10.96.0.10', 53, '10.96.0.10', 53), none, one, true],
    ['of a Service that went', flow('10.96.0.10', 53, '10.1.0.1'), one, undefined, true],
    ['of a new Service, un-NATed', flow('10.96.0.10', 53, '10.96.0.10', 53), undefined, one, true],
    ['through a node port of ours', flow('172.20.0.1', 30053, '10.1.0.2'), both, one, true],
    ["to a node port's number elsewhere", flow('198.51.100.7', 30053, '198.51.100.7', 30053), both, one, false],
    ['to another port of the VIP', flow('10.96.0.10', 54, '10.1.0.2'), both, one, false],
    [
      'to an endpoint that still serves while it terminates',
      flow('10.96.0.10', 53, '10.1.0.2'),
      both,
      stateOf(['10.1.0.1', endpoint('10.1.0.2', { ready: false, terminating: true })]),
      false,
    ],
    [
      'of a cluster IP that changed',
      flow('10.96.0.10', 53, '10.1.0.1'),
      one,
      stateOf(['10.1.0.1'], { clusterIP: '10.96.0.11' }),
      true,
    ],
  ])('%s', (_name, given, before, after, wanted) => expect(stale(given, before, after)).toBe(wanted));

  const unready = (ip: string): Endpoint => endpoint(ip, { ready: false, serving: false });

  it.each<[string, Flow, ServicePortState, boolean]>([
    [
      'to one that serves no more goes to one that does',
      flow('10.96.0.10', 53, '10.1.0.2'),
      stateOf(['10.1.0.1', unready('10.1.0.2')]),
      true,
    ],
    [
      'to one that serves no more stays where none does',
      flow('10.96.0.10', 53, '10.1.0.2'),
      stateOf([unready('10.1.0.2')]),
      false,
    ],
    [
      'to one that went ends where none serves',
      flow('10.96.0.10', 53, '10.1.0.1'),
      stateOf([unready('10.1.0.2')]),
      true,
    ],
    ['un-NATed ends where none serves', flow('10.96.0.10', 53, '10.96.0.10', 53), stateOf([unready('10.1.0.2')]), true],
  ])('of UDP %s', (_name, given, after, wanted) => expect(stale(given, both, after)).toBe(wanted));

  it('of SCTP are those to endpoints that went: associations are connections', () => {
    const sctp = (ips: readonly (string | Endpoint)[]): ServicePortState => stateOf(ips, { protocol: 'SCTP' });
    const ends = (answeredBy: string, after: ServicePortState): boolean =>
      stale({ ...flow('10.96.0.10', 53, answeredBy), protocol: 'SCTP' }, sctp(['10.1.0.1', '10.1.0.2']), after);
    expect(ends('10.1.0.2', sctp(['10.1.0.1', unready('10.1.0.2')]))).toBe(false);
    expect(ends('10.1.0.2', sctp(['10.1.0.1']))).toBe(true);
  });

  it('are none where nothing changed, and none of TCP', () => {
    expect(changedFrontends([{ key: 'k', before: one, after: one }]).size).toBe(0);
    const tcp = stateOf(['10.1.0.1'], { protocol: 'TCP' });
    expect(changedFrontends([{ key: 'k', before: tcp, after: undefined }]).size).toBe(0);
  });

  it('belong to the Service that has the address now', () => {
    const frontends = changedFrontends([
      { key: 'new', before: undefined, after: stateOf(['10.1.0.9']) },
      { key: 'old', before: one, after: undefined },
    ]);
    expect(isStale(flow('10.96.0.10', 53, '10.1.0.9'), frontends, host)).toBe(false);
    expect(isStale(flow('10.96.0.10', 53, '10.1.0.1'), frontends, host)).toBe(true);
  });
});

const line =
  'udp      17 29 src=172.20.0.2 dst=10.96.0.10 sport=4000 dport=53 [UNREPLIED] src=10.1.0.2 dst=172.20.0.2 sport=5353 dport=4000 mark=0 use=1';

describe('the cleaner', () => {
  it('reads what conntrack prints', () => {
    expect(parseFlow(line, 'UDP')).toEqual(flow('10.96.0.10', 53, '10.1.0.2'));
    expect(
      parseFlow(
        'icmp 1 29 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=1 src=2.2.2.2 dst=1.1.1.1 type=0 code=0 id=1',
        'UDP',
      ),
    ).toBeUndefined();
  });

  it('deletes each group of flows, and tries again what fails', async () => {
    const clock = createFakeClock();
    const calls: string[] = [];
    let failures = 1;
    const run: typeof exec = (_command, args) => {
      calls.push(args.join(' '));
      if (args[0] === '-L') return Promise.resolve({ stdout: `${line}\n`, stderr: '' });
      if (failures-- > 0) return Promise.reject(new ExecError('conntrack', 'failed', 'exit 1', { exitCode: 1 }));
      return Promise.resolve({ stdout: '', stderr: '' });
    };
    const cleaned: number[] = [];
    const cleaner = createConntrackCleaner({
      exec: run,
      clock,
      log: silentLog,
      family: 'IPv4',
      hostAddresses: () => ['172.20.0.1'],
      onCleaned: (count) => cleaned.push(count),
    });
    const stop = new AbortController();
    const done = cleaner.run(stop.signal);
    cleaner.note([{ key: 'k', before: stateOf(['10.1.0.1', '10.1.0.2']), after: stateOf(['10.1.0.1']) }]);
    await clock.advance(0);
    expect(cleaned).toEqual([]);
    await clock.advance(200);
    expect(cleaned).toEqual([1]);
    expect(calls.at(-1)).toBe(
      '-D -f ipv4 -p udp --orig-dst 10.96.0.10 --orig-port-dst 53 --reply-src 10.1.0.2 --reply-port-src 5353',
    );
    stop.abort();
    await done;
  });
});
