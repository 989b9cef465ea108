// The Docker adapter's pure parts: labels, specifications, refusals, CNI inputs and results, log entries and positions, errors.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type * as t from '../types.ts';
import { addressesOf, canCheck, capabilityArgs, parseNetwork, pluginInput } from './cni-config.ts';
import { codeOf } from './connection.ts';
import { inspectionOf, stateOf } from './containers.ts';
import { eventOf } from './events.ts';
import { missingFrom } from './host-limits.ts';
import { authConfig, pullName } from './images.ts';
import { type ContainerRecord, containerLabels, containerRecord, sandboxLabels, sandboxRecord } from './labels.ts';
import { createEntryParser, criLines } from './log-entries.ts';
import { createLogPosition, sinceOf } from './log-position.ts';
import { resolvConf } from './resolv-conf.ts';
import { limitsOf, oomScoreOf, privilegedOptions, securityOptions } from './resources.ts';
import { cgroupParentOf } from './specs.ts';
import { memoryOf } from './stats.ts';
import { createFrameParser } from './streams.ts';
import { unifiedFolder } from './unified.ts';

const texts = fc.dictionary(fc.string({ minLength: 1, maxLength: 12 }), fc.string({ maxLength: 12 }), {
  maxKeys: 4,
  noNullPrototype: true,
});

describe('labels', () => {
  const record: ContainerRecord = {
    metadata: { name: 'main', attempt: 3 },
    labels: {},
    annotations: {},
    createdAtMs: 1,
    image: 'x',
    imageRef: 'y',
    mounts: [],
    logPath: '/l',
    tty: false,
  };

  it('give labels and annotations back as they were, whatever their keys', () => {
    fc.assert(
      fc.property(texts, texts, (labels, annotations) => {
        const written = containerLabels({ ...record, labels, annotations }, 'sandbox', 'uid');
        expect(containerRecord(written)).toEqual({ ...record, labels, annotations });
        expect(sandboxRecord(written)).toBeUndefined();
      }),
    );
  });

  it('cannot be forged by a pod’s own', () => {
    const labels = { 'io.stevedore.kind': 'sandbox', 'io.stevedore.record': '{}', 'annotation.a': 'label' };
    const written = containerLabels({ ...record, labels, annotations: { a: 'annotation' } }, 'sandbox', 'uid');
    expect(written['annotation.a']).toBe('label');
    expect(containerRecord(written)?.labels).toEqual(labels);
  });

  it('of others, and garbage, are none', () => {
    expect(sandboxRecord(null)).toBeUndefined();
    expect(sandboxRecord({ 'io.stevedore.kind': 'sandbox', 'io.stevedore.record': '{' })).toBeUndefined();
    expect(sandboxRecord({ 'io.stevedore.kind': 'sandbox', 'io.stevedore.record': '[1]' })).toBeUndefined();
    const sandbox = { ...record, metadata: { name: 'a', uid: 'u', namespace: 'n', attempt: 0 } };
    expect(sandboxLabels(sandbox as never)['io.stevedore.pod.uid']).toBe('u');
  });
});

describe('limits and security', () => {
  const whole = { oomScoreFloor: -1000, capabilities: undefined, ipv6: true };
  it('swap is what the memory is unless said', () => {
    expect(limitsOf({ memoryLimitInBytes: 5 })).toEqual({ Memory: 5, MemorySwap: 5 });
    expect(limitsOf({ memoryLimitInBytes: 5, memorySwapLimitInBytes: -1 })).toEqual({ Memory: 5, MemorySwap: -1 });
    expect(limitsOf({})).toEqual({});
  });
  it.each([
    [-998, -1000, -998],
    [-998, 0, 0],
    [1000, 0, 1000],
    [-997, -500, -500],
  ])('an OOM score of %i where no less than %i may be given is %i', (asked, oomScoreFloor, expected) => {
    expect(oomScoreOf({ oomScoreAdj: asked }, 0, { ...whole, oomScoreFloor })).toBe(expected);
  });
  it.each([
    [{}, ['seccomp=unconfined']],
    [{ seccomp: { type: 'RuntimeDefault' } }, []],
    [{ seccomp: { type: 'RuntimeDefault' }, apparmor: { type: 'Unconfined' } }, ['apparmor=unconfined']],
    [{ seccomp: { type: 'RuntimeDefault' }, apparmor: { type: 'Localhost', localhostRef: 'p' } }, ['apparmor=p']],
    [{ seccomp: { type: 'RuntimeDefault' }, noNewPrivs: true }, ['no-new-privileges']],
    [{ privileged: true }, []],
    [
      { privileged: true, selinux: { user: '', role: '', type: 'spc_t', level: 's0' } },
      ['label=type:spc_t', 'label=level:s0'],
    ],
  ] as const)('%j is %j', (over, expected) => {
    expect(securityOptions({ privileged: false, noNewPrivs: false, ...over }, undefined)).toEqual(expected);
  });
  it('a host without every capability takes the privileged switch apart', () => {
    expect(privilegedOptions(whole)).toEqual({ Privileged: true });
    const some = missingFrom('1fffeffffff', 40);
    expect(some).not.toContain('SYS_RESOURCE');
    expect(some).toHaveLength(40);
    expect(missingFrom('1ffffffffff', 40)).toBeUndefined();
    expect(privilegedOptions({ ...whole, capabilities: some })).toMatchObject({ CapAdd: some, MaskedPaths: [] });
  });
  it('the systemd driver is given the slice’s name', () => {
    const path = '/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice';
    expect(cgroupParentOf(path, 'systemd')).toBe('kubepods-burstable-podx.slice');
    expect(cgroupParentOf(path, 'cgroupfs')).toBe(path);
  });
  it('finds cgroup v2 only where it is the one hierarchy', () => {
    expect(unifiedFolder('0::/kubepods/x\n')).toBe('/sys/fs/cgroup/kubepods/x');
    expect(unifiedFolder('4:memory:/x\n0::/x\n')).toBeUndefined();
    expect(unifiedFolder('')).toBeUndefined();
  });
});

describe('CNI', () => {
  const network = parseNetwork(
    '{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":true,"bandwidth":false}}]}',
  );
  it('takes lists and single plugins, and says what is wrong with the rest', () => {
    expect(network.plugins.map(({ type }) => type)).toEqual(['bridge', 'portmap']);
    expect(parseNetwork('{"name":"x","type":"ptp"}').plugins).toHaveLength(1);
    for (const bad of [
      '[]',
      '{"plugins":[]}',
      '{"name":"x"}',
      '{"name":"x","plugins":[]}',
      '{"name":"x","type":"../sh"}',
    ])
      expect(() => parseNetwork(bad)).toThrow();
  });
  it('tells plugins what they can do and no more', () => {
    const args = capabilityArgs({
      portMappings: [
        { protocol: 'UDP', containerPort: 53, hostPort: 5353, hostIp: '' },
        { protocol: 'TCP', containerPort: 80, hostPort: 0, hostIp: '' },
      ],
      annotations: { 'kubernetes.io/ingress-bandwidth': '10M' },
      podCidr: '10.0.0.0/24,fd00::/64',
    });
    expect(args).toMatchObject({
      bandwidth: { ingressRate: 10_000_000 },
      ipRanges: [[{ subnet: '10.0.0.0/24' }], [{ subnet: 'fd00::/64' }]],
    });
    const [bridge, portmap] = network.plugins;
    expect(pluginInput(network, bridge!, args, undefined)).toEqual({ type: 'bridge', name: 'n', cniVersion: '1.0.0' });
    expect(pluginInput(network, portmap!, args, { ips: [] })).toEqual({
      type: 'portmap',
      name: 'n',
      cniVersion: '1.0.0',
      prevResult: { ips: [] },
      runtimeConfig: { portMappings: [{ hostPort: 5353, containerPort: 53, protocol: 'udp', hostIP: '' }] },
    });
  });
  it.each([
    [
      {
        ips: [
          { address: '10.0.0.2/24', interface: 1 },
          { address: '10.0.0.1/24', interface: 0 },
        ],
        interfaces: [{ name: 'b' }, { name: 'eth0', sandbox: '/n' }],
      },
      ['10.0.0.2'],
    ],
    [{ ips: [{ address: '10.0.0.2/24' }, { address: 'fd00::2/64' }] }, ['10.0.0.2', 'fd00::2']],
    [{ ip4: { ip: '10.0.0.2/24' } }, ['10.0.0.2']],
    [undefined, []],
    ['x', []],
  ])('finds the addresses in %j', (result, expected) => {
    expect(addressesOf(result)).toEqual(expected);
  });
  it('checks from 0.4.0 on, unless told not to', () => {
    expect(canCheck(network)).toBe(true);
    expect(canCheck({ ...network, cniVersion: '0.3.1' })).toBe(false);
    expect(canCheck({ ...network, disableCheck: true })).toBe(false);
  });
  it('writes resolv.conf as the other runtimes do', () => {
    expect(resolvConf({ servers: ['1.1.1.1', '::1'], searches: ['a', 'b'], options: ['ndots:5'] })).toBe(
      'search a b\nnameserver 1.1.1.1\nnameserver ::1\noptions ndots:5\n',
    );
  });
});

describe('output', () => {
  const frame = (stream: number, data: string): Buffer => {
    const bytes = Buffer.from(data);
    const header = Buffer.alloc(8);
    header[0] = stream;
    header.writeUInt32BE(bytes.length, 4);
    return Buffer.concat([header, bytes]);
  };
  const cut = (bytes: Buffer, places: readonly number[]): Buffer[] => {
    const at = [0, ...places.map((place) => place % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length];
    return at.slice(1).map((end, index) => bytes.subarray(at[index], end));
  };
  const messages = fc.array(fc.record({ stream: fc.constantFrom(1, 2), data: fc.string({ maxLength: 40 }) }), {
    maxLength: 8,
  });

  it('frames come out whole however the bytes were cut', () => {
    fc.assert(
      fc.property(messages, fc.array(fc.nat(), { maxLength: 6 }), (sent, places) => {
        const parser = createFrameParser();
        const bytes = Buffer.concat(sent.map(({ stream, data }) => frame(stream, data)));
        const got = cut(bytes, places).flatMap((chunk) => parser.push(chunk));
        const expected = sent.filter(({ data }) => data !== '');
        expect(got.map(({ stream, data }) => [stream, data.toString()])).toEqual(
          expected.map(({ stream, data }) => [stream === 2 ? 'stderr' : 'stdout', data]),
        );
        expect(parser.complete()).toBe(true);
      }),
    );
  });

  const time = (n: number): string => `2026-01-02T03:04:05.${String(n).padStart(9, '0')}Z`;

  it('a terminal’s entries come out whole however the bytes were cut, long lines in pieces', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('a b', '', 'x'.repeat(16_384), 'y'.repeat(20_000), 'z'.repeat(32_768)), {
          maxLength: 5,
        }),
        fc.array(fc.nat(), { maxLength: 8 }),
        (lines, places) => {
          // As Docker writes it: pieces without a newline, then the rest with one.
          let n = 0;
          const pieces = lines.flatMap((line) => {
            const full: { text: string; partial: boolean }[] = [];
            let rest = line;
            for (; rest.length > 16_384; rest = rest.slice(16_384))
              full.push({ text: rest.slice(0, 16_384), partial: true });
            return [...full, { text: rest, partial: false }];
          });
          const bytes = Buffer.from(
            pieces.map(({ text, partial }) => `${time(n++)} ${text}${partial ? '' : '\n'}`).join(''),
          );
          const parser = createEntryParser(true);
          const got = cut(bytes, places).flatMap((chunk) => parser.push(chunk));
          expect(got.map(({ text, partial }) => ({ text: Buffer.from(text).toString(), partial }))).toEqual(pieces);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('becomes lines of CRI’s format', () => {
    const parser = createEntryParser(false);
    const entries = [
      ...parser.push(frame(1, `${time(1)} a b\n`)),
      ...parser.push(frame(2, `${time(2)} part`)),
      ...parser.push(frame(2, `${time(3)} \n`)),
    ];
    expect(criLines(entries).toString()).toBe(
      `${time(1)} stdout F a b\n${time(2)} stderr P part\n${time(3)} stderr F \n`,
    );
  });

  it('is copied once, wherever it was interrupted, with times that repeat and go back a little', () => {
    // Nanoseconds in steps of half a second, so that the anchor moves along.
    const stamp = (ms: number): string => new Date(1_700_000_000_000 + ms).toISOString().replace('Z', '000000Z');
    fc.assert(
      fc.property(
        fc.array(fc.record({ step: fc.constantFrom(0, 0, 1, 500, 3_000), back: fc.constantFrom(0, 0, 0, 1) }), {
          maxLength: 60,
        }),
        fc.array(fc.nat({ max: 60 }), { maxLength: 5 }),
        (steps, stops) => {
          let now = 0;
          const all = steps.map(({ step, back }) => {
            now += step;
            return stamp(now - Math.min(back, now));
          });
          const copied: number[] = [];
          let cursor = createLogPosition().cursor();
          for (const stop of [...stops.toSorted((a, b) => a - b), all.length]) {
            const position = createLogPosition(cursor);
            const isNew = position.resume();
            for (const [index, each] of all.entries()) {
              if (index >= Math.max(stop, copied.length)) break;
              if (each < cursor.anchor) {
                // Docker does not give it any more; an entry this old was taken long ago.
                expect(copied).toContain(index);
                continue;
              }
              if (!isNew(each)) continue;
              copied.push(index);
              position.advance(each);
            }
            cursor = position.cursor();
          }
          expect(copied).toEqual(all.map((_, index) => index));
        },
      ),
      { numRuns: 300 },
    );
  });

  it('is asked for since the anchor, to the nanosecond', () => {
    expect(sinceOf({ anchor: '', count: 0, newest: '' })).toBe('0');
    expect(sinceOf({ anchor: '2026-01-02T03:04:05.000000007Z', count: 1, newest: '' })).toBe('1767323045.000000007');
  });
});

describe('answers', () => {
  it.each([
    [404, undefined, 'No such container: x', 'not-found'],
    [409, undefined, 'Conflict. The container name "/x" is already in use by container "abc".', 'already-exists'],
    [409, undefined, 'Container x is not running', 'invalid'],
    [400, undefined, 'bad', 'invalid'],
    [500, undefined, 'Get "https://r/v2/": unauthorized: authentication required', 'unauthorized'],
    [404, undefined, 'pull access denied for x, repository does not exist', 'not-found'],
    [undefined, undefined, 'manifest for x:1 not found: manifest unknown', 'not-found'],
    [undefined, undefined, 'pull access denied for x', 'unauthorized'],
    [undefined, 'ENOENT', 'connect ENOENT /x.sock', 'unavailable'],
    [undefined, undefined, 'socket hang up', 'unavailable'],
    [500, undefined, 'write /x: no space left on device', 'resource-exhausted'],
    [500, undefined, 'who knows', 'unknown'],
  ] as const)('%s %s %j is %s', (status, code, said, expected) => {
    expect(codeOf(status, code, said)).toBe(expected);
  });

  it('names are pulled whole: one tag, and by the digest where there is one', () => {
    const digest = `sha256:${'a'.repeat(64)}`;
    expect(pullName('busybox')).toBe('docker.io/library/busybox:latest');
    expect(pullName(`r.example:5000/a/b:1@${digest}`)).toBe(`r.example:5000/a/b@${digest}`);
    expect(authConfig({ auth: Buffer.from('u:p:q').toString('base64') })).toMatchObject({
      username: 'u',
      password: 'p:q',
    });
    expect(authConfig({ username: 'u', password: 'p', identityToken: 't' })).toMatchObject({ identitytoken: 't' });
  });

  const state = (over: object) => ({
    Status: 'exited',
    Error: '',
    ExitCode: 0,
    OOMKilled: false,
    Pid: 0,
    StartedAt: '2026-01-01T00:00:01Z',
    FinishedAt: '2026-01-01T00:00:02Z',
    ...over,
  });
  const record = {
    metadata: { name: 'm', attempt: 0 },
    createdAtMs: 5,
    labels: {},
    annotations: {},
    mounts: [],
  } as unknown as ContainerRecord;
  it.each([
    [{}, { state: 'exited', exitCode: 0, reason: 'Completed' }],
    [{ ExitCode: 3 }, { exitCode: 3, reason: 'Error' }],
    [
      { ExitCode: 137, OOMKilled: true },
      { exitCode: 137, reason: 'OOMKilled' },
    ],
    [
      {
        Status: 'created',
        Error: 'no',
        ExitCode: 127,
        StartedAt: '0001-01-01T00:00:00Z',
        FinishedAt: '0001-01-01T00:00:00Z',
      },
      { state: 'exited', exitCode: 128, reason: 'StartError', message: 'no', startedAtMs: 0, finishedAtMs: 5 },
    ],
    [{ Status: 'created' }, { state: 'created', exitCode: 0, reason: '', finishedAtMs: 0 }],
    [{ Status: 'paused' }, { state: 'running', finishedAtMs: 0 }],
    [{ Status: 'dead' }, { state: 'exited' }],
  ])('%j is %j', (over, expected) => {
    const seen = { Id: 'x', State: state(over), Config: {}, Image: 'i' };
    expect(stateOf(seen.State as never)).toBe((expected as { state?: t.ContainerRuntimeState }).state ?? 'exited');
    expect(inspectionOf(seen as never, record, false)).toMatchObject(expected);
  });

  it('events of others, and of execs, say nothing', () => {
    const event = (Action: string, Attributes: object) => ({
      Type: 'container',
      Action,
      Actor: { ID: 'c', Attributes },
    });
    const ours = { 'io.stevedore.kind': 'container', 'io.stevedore.sandbox.id': 's', 'io.stevedore.pod.uid': 'u' };
    expect(eventOf(event('die', ours))).toEqual({ kind: 'stopped', containerId: 'c', sandboxId: 's', podUid: 'u' });
    expect(eventOf(event('exec_die', ours))).toBeUndefined();
    expect(eventOf(event('die', {}))).toBeUndefined();
    expect(eventOf(event('start', { ...ours, 'io.stevedore.kind': 'sandbox' }))).toMatchObject({
      kind: 'started',
      sandboxId: 'c',
    });
  });

  it.each([
    [
      { usage: 100, stats: { total_inactive_file: 30, total_rss: 9 } },
      0,
      { workingSetBytes: 70, rssBytes: 9, availableBytes: undefined },
    ],
    [
      { usage: 100, stats: { inactive_file: 30, anon: 8 } },
      200,
      { workingSetBytes: 70, rssBytes: 8, availableBytes: 130 },
    ],
    [{ usage: 10, stats: { inactive_file: 30 } }, 0, { workingSetBytes: 0 }],
  ])('memory of %j under %i is %j', (memory, limit, expected) => {
    expect(memoryOf(memory, 1, limit)).toMatchObject(expected);
  });
});
