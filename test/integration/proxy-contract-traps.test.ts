// What is easily got wrong with Services in nftables: each trap with real packets, and where it can be had, beside it what happens
// without its remedy.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../lib/log.ts';
import { systemClock } from '../../lib/clock.ts';
import type { IpFamily } from '../../proxy/addresses.ts';
import type { NodeFacts, RulesBackend } from '../../proxy/backend.ts';
import { createBackendContext, openBackend } from '../../proxy/backends.ts';
import type { World } from '../../proxy/contract.ts';
import { fakePort } from '../../proxy/fake-ports.ts';
import { computeState, type ServicePort, type ServicePortState, servicePortKey } from '../../proxy/model.ts';
import { affinityId, affinityMap, affinityPortMap } from '../../proxy/nftables/names.ts';
import { createFlowsLab, type FlowsLab } from '../lab/flows-lab.ts';

const { signal } = new AbortController();

describe.each<IpFamily>(['IPv4', 'IPv6'])('nftables, %s', (family) => {
  let lab: FlowsLab;
  let world: World;
  let backend: RulesBackend;
  const ip = family === 'IPv4' ? 'ip' : 'ip6';
  const vip = family === 'IPv4' ? '10.96.0.10' : 'fd00:10:96::10';
  const table = [ip, 'stevedore'];

  const nft = async (...words: string[]): Promise<string> =>
    (await lab.hosts.node.exec('nft', ['-f', '-'], { input: words.join(' ') })).stdout;
  const elements = async (map: string): Promise<string> =>
    (await lab.hosts.node.exec('nft', ['list', 'map', ...table, map])).stdout.split('elements')[1] ?? '';

  const stateOf = (endpoints: readonly ('ep0' | 'ep1')[], fields: Partial<ServicePort> = {}): ServicePortState => {
    const port = fakePort({ family, namespace: 'traps', clusterIP: vip, ...fields });
    const serving = { isLocal: true, ready: true, serving: true, terminating: false };
    return computeState(
      port,
      endpoints.map((name) => ({ ip: world.address[name], port: world.echoPort, ...serving })),
      { nodeName: 'n1', zone: undefined },
    );
  };
  const write = async (states: readonly ServicePortState[], full = false, removals: readonly string[] = []) => {
    if (full) await backend.adopt(signal);
    const byKey = new Map(states.map((state) => [state.port.key, state]));
    const desired = {
      get: (key: string) => byKey.get(key),
      keys: () => byKey.keys(),
      size: () => byKey.size,
      endpointCount: () => 2,
    };
    return backend.apply({ upserts: states, removals }, desired, { signal, full });
  };
  // Long enough for a second SYN on a machine that has much else to do: a third comes after 3 s.
  const ask = (): Promise<string> => lab.ask('pod', 'TCP', vip, 80, 5_000);
  const nameOf = (answer: string): string => answer.split(' ')[0]!;

  beforeAll(async () => {
    lab = await createFlowsLab();
    world = lab.world(family);
    const context = createBackendContext(systemClock, silentLog, { enter: lab.hosts.node.enter });
    backend = await openBackend('nftables', family, context);
    const facts: NodeFacts = {
      localDetector: { kind: 'cidr', cidr: world.clusterCIDR },
      nodeIP: world.address.node,
      nodePortAddresses: 'all',
      masqueradeAll: false,
      masqueradeBit: 14,
      localhostNodePorts: false,
      conntrackBeLiberal: false,
      serviceCidrs: [],
    };
    backend.configure(facts);
  });
  afterAll(() => lab?.stop());
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') console.error((await lab.hosts.node.exec('nft', ['list', 'ruleset'])).stdout);
  });

  describe('a lookup that misses', () => {
    // One socket, so that all its packets are one flow to conntrack.
    const flow = (sourcePort: number) => lab.udpFlow('pod', vip, 53, sourcePort);
    const udp = (): ServicePortState => stateOf(['ep0'], { protocol: 'UDP', port: 53 });
    const index = `${vip} . 53 . 0`;
    const takeAway = (): Promise<string> => nft('delete element', ...table, 'eps-udp', `{ ${index} }`);
    const giveBack = (): Promise<string> =>
      nft('add element', ...table, 'eps-udp', `{ ${index} : ${world.address.ep0} . ${world.echoPort} }`);

    it('holds up one packet and no more', async () => {
      await write([udp()], true);
      const socket = await flow(5301);
      await takeAway();
      expect(await socket.ask()).not.toMatch(/^ep0/);
      await giveBack();
      expect(await socket.ask()).toMatch(/^ep0/);
      socket.stop();
    });

    it('without the guard would hold up the socket for good', async () => {
      const socket = await flow(5302);
      await nft(
        'delete element',
        ...table,
        'guard',
        `{ ${vip} . udp . 53 }\n`,
        'delete element',
        ...table,
        'cluster-ips',
        `{ ${vip} }`,
      );
      await takeAway();
      expect(await socket.ask()).toBe('timeout');
      await giveBack();
      expect(await socket.ask()).toBe('timeout');
      socket.stop();
    });
  });

  describe('endpoints that go', () => {
    it('stay in the map for packets in flight, a second long', async () => {
      await write([stateOf(['ep0', 'ep1'])], true);
      await write([stateOf(['ep0'])]);
      expect(await elements('svc')).toContain('cip-tcp-1');
      expect(await elements('eps-tcp')).toContain(`${vip} . 80 . 1`);
      await systemClock.sleep(1_600);
      expect(await elements('eps-tcp')).not.toContain(`${vip} . 80 . 1`);
    });

    it('and whose index is used again meanwhile are not deleted', async () => {
      await write([stateOf(['ep0', 'ep1'])]);
      await write([stateOf(['ep0'])]);
      await systemClock.sleep(300);
      await write([stateOf(['ep0', 'ep1'])]);
      await systemClock.sleep(1_600);
      const answers = await Promise.all(Array.from({ length: 30 }, ask));
      expect(new Set(answers.map(nameOf))).toEqual(new Set(['ep0', 'ep1']));
    });
  });

  describe('session affinity', () => {
    const sticky = (endpoints: readonly ('ep0' | 'ep1')[]): ServicePortState =>
      stateOf(endpoints, { affinitySeconds: 100 });
    const id = affinityId(servicePortKey('traps', 'web', '', 'TCP'), 'cluster');

    it('outlives it that endpoints move to other indexes, and forgets those that went', async () => {
      await write([sticky(['ep0', 'ep1'])], true);
      const first = nameOf(await ask());
      const other = first === 'ep0' ? 'ep1' : 'ep0';
      for (let at = 0; at < 10; at++) expect(nameOf(await ask())).toBe(first);
      // Whatever its index was: alone it has the first one.
      await write([sticky([first as 'ep0'])]);
      expect(nameOf(await ask())).toBe(first);
      await write([sticky([other as 'ep0', first as 'ep0'])]);
      for (let at = 0; at < 10; at++) expect(nameOf(await ask())).toBe(first);
      await write([sticky([other as 'ep0'])]);
      const ends = performance.now() + 10_000;
      while (nameOf(await ask()) !== other && performance.now() < ends) await systemClock.sleep(20);
      for (let at = 0; at < 5; at++) expect(nameOf(await ask())).toBe(other);
      // What is purged is deleted by the client's address: a note made meanwhile may go with it, and is made anew at the next packet.
      let known = await elements(affinityMap(id));
      for (; !known.includes(world.address[other as 'ep0']) && performance.now() < ends; await systemClock.sleep(50)) {
        expect(nameOf(await ask())).toBe(other);
        known = await elements(affinityMap(id));
      }
      expect(known).toContain(world.address[other as 'ep0']);
      expect(known).not.toContain(world.address[first as 'ep0']);
    });

    it('takes more clients than a dynamic map holds by default', async () => {
      const clients = Array.from({ length: 65_600 }, (_, at) =>
        family === 'IPv4'
          ? `10.${(at >> 16) + 1}.${(at >> 8) & 255}.${at & 255}`
          : `2001:db8::${(at >> 16) + 1}:${(at & 0xffff).toString(16)}`,
      );
      await nft('flush map', ...table, affinityMap(id), '\n', 'flush map', ...table, affinityPortMap(id));
      const entries = (value: string): string => clients.map((client) => `${client} : ${value}`).join(', ');
      await nft('add element', ...table, affinityMap(id), `{ ${entries(world.address.ep0)} }`);
      await nft('add element', ...table, affinityPortMap(id), `{ ${entries(String(world.echoPort))} }`);
      await write([sticky(['ep0', 'ep1'])]);
      const first = nameOf(await ask());
      expect(first).toMatch(/^ep/);
      for (let at = 0; at < 10; at++) expect(nameOf(await ask())).toBe(first);
      expect(await elements(affinityMap(id))).toMatch(new RegExp(`${world.address.pod}[^0-9a-f:.]`));
    });

    it('goes with the Service, and nothing of it stays', async () => {
      await write([], false, [servicePortKey('traps', 'web', '', 'TCP')]);
      const { stdout } = await lab.hosts.node.exec('nft', ['list', 'table', ...table]);
      expect(stdout).not.toContain(id);
    });
  });

  it('all three protocols are balanced by rules the kernel takes', async () => {
    const all = (['TCP', 'UDP', 'SCTP'] as const).map((protocol) =>
      stateOf(['ep0', 'ep1'], { protocol, affinitySeconds: protocol === 'SCTP' ? 60 : 0, nodePort: 30_100 }),
    );
    await write(all, true);
    expect(await elements('svc')).toMatch(/sctp \. 80 : goto cip-sctp-2-sticky/);
    expect(new Set((await Promise.all(Array.from({ length: 24 }, ask))).map(nameOf)).size).toBe(2);
    const udp = Array.from({ length: 24 }, () => lab.ask('pod', 'UDP', vip, 80, 2_000));
    expect(new Set((await Promise.all(udp)).map(nameOf)).size).toBe(2);
  });

  it('one service port the kernel refuses is told from the others', async () => {
    const bad = stateOf(['ep0'], { key: servicePortKey('traps', 'bad', '', 'TCP'), port: 99_999 });
    await expect(write([stateOf(['ep0']), bad])).rejects.toMatchObject({ code: 'rejected' });
    await write([stateOf(['ep1'])]);
    await systemClock.sleep(50);
    expect(nameOf(await ask())).toBe('ep1');
  });

  it('cleanup removes our table and no other', async () => {
    await nft(`table ${ip} others {\nchain c {\ntype filter hook input priority 5\n}\n}\n`);
    await backend.cleanup(signal);
    await backend.cleanup(signal);
    const { stdout } = await lab.hosts.node.exec('nft', ['list', 'tables']);
    expect(stdout).toBe(`table ${ip} others\n`);
  });
});
