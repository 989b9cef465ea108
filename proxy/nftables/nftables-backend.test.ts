import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFakeClock, type FakeClock } from '../../lib/fake-clock.ts';
import type { ForeignChange, NodeFacts, RulesBackend } from '../backend.ts';
import { computeState, type Endpoint, type ServicePort, type ServicePortState } from '../model.ts';
import { fakePort } from '../fake-ports.ts';
import type { DesiredState } from '../state.ts';
import { elementsOf, frontsOf, type Programmed, sharedOf } from './elements.ts';
import { createFakeNft, type FakeNft } from './fake-nft.ts';
import { isEndpointMap, mapOf } from './names.ts';
import { createNftablesBackend } from './nftables-backend.ts';

const facts: NodeFacts = {
  localDetector: { kind: 'cidr', cidr: '10.200.0.0/16' },
  nodeIP: '172.30.0.1',
  nodePortAddresses: 'all',
  masqueradeAll: false,
  masqueradeBit: 14,
  localhostNodePorts: false,
  conntrackBeLiberal: false,
  serviceCidrs: [],
};
const table = 'ip stevedore';
const { signal } = new AbortController();
/** Ends with the process: what a backend would do later, it does no more. */
let life = new AbortController();

const portOf = (number: number, fields: Partial<ServicePort> = {}): ServicePort =>
  fakePort({ name: `s${number}`, clusterIP: `10.96.0.${number}`, ...fields });
const endpointOf = (number: number): Endpoint => ({
  ip: `10.200.1.${number}`,
  port: 8080,
  isLocal: number % 2 === 0,
  ready: true,
  serving: true,
  terminating: false,
});
const stateOf = (number: number, endpoints: readonly number[], fields: Partial<ServicePort> = {}): ServicePortState =>
  computeState(portOf(number, fields), endpoints.map(endpointOf), { nodeName: 'n1', zone: undefined });

const desiredOf = (states: Iterable<ServicePortState>): DesiredState => {
  const byKey = new Map([...states].map((state) => [state.port.key, state]));
  return {
    get: (key) => byKey.get(key),
    keys: () => byKey.keys(),
    size: () => byKey.size,
    endpointCount: () => 0,
  };
};

function open(nft: FakeNft, clock: FakeClock, partSize = 20_000): RulesBackend {
  const deps = { tool: nft, family: 'IPv4', clock, watchForeign: () => new Promise<never>(() => undefined) } as const;
  const backend = createNftablesBackend(deps, { partSize });
  backend.configure(facts);
  return backend;
}

async function full(backend: RulesBackend, states: readonly ServicePortState[]): Promise<number> {
  await backend.adopt(signal);
  const changes = { upserts: states, removals: [] };
  const result = await backend.apply(changes, desiredOf(states), { signal: life.signal, full: true });
  return result.written;
}

const part = (backend: RulesBackend, upserts: readonly ServicePortState[], removals: readonly string[] = []) =>
  backend.apply({ upserts, removals }, desiredOf(upserts), { signal: life.signal, full: false });

/** Everything in the kernel, by map; rows of endpoints without their order. */
function kernelOf(nft: FakeNft): Record<string, string[]> {
  const all: Record<string, string[]> = {};
  for (const [name, { elements }] of nft.tables.get(table)?.maps ?? []) {
    if (elements.size === 0 || name === 'epoch') continue;
    all[name] = [...elements].map(([key, value]) => unordered(name, key, value)).sort();
  }
  return all;
}

// Which index an endpoint has is free; that the indexes are 0 … n-1 is not.
const unordered = (map: string, key: string, value: string): string =>
  isEndpointMap(map) ? `${key.slice(0, key.lastIndexOf(' . '))} : ${value}` : `${key} : ${value}`;

function wantedOf(states: readonly ServicePortState[]): Record<string, string[]> {
  const all: Record<string, Set<string>> = {};
  const text = ({ ip, port }: Endpoint): string => `${ip} . ${port}`;
  for (const state of states) {
    const programmed: Programmed = {
      state,
      fronts: frontsOf(state.port),
      cluster: state.choice.cluster.map(text),
      local: state.choice.local.map(text),
    };
    const ids = [...elementsOf(programmed, facts), ...[...sharedOf(programmed)].map((id) => [id, ''] as const)];
    for (const [id, value] of ids) {
      const map = mapOf(id);
      const items = all[map] ?? new Set();
      all[map] = items.add(unordered(map, id.slice(map.length + 1), value));
    }
  }
  return Object.fromEntries(Object.entries(all).map(([map, items]) => [map, [...items].sort()]));
}

function indexesAreWhole(nft: FakeNft): void {
  for (const [name, { elements }] of nft.tables.get(table)?.maps ?? []) {
    if (!isEndpointMap(name)) continue;
    const rows = new Map<string, number[]>();
    for (const key of elements.keys()) {
      const at = key.lastIndexOf(' . ');
      rows.set(key.slice(0, at), [...(rows.get(key.slice(0, at)) ?? []), Number(key.slice(at + 3))]);
    }
    for (const indexes of rows.values())
      expect(indexes.sort((a, b) => a - b)).toEqual(indexes.map((_, index) => index));
  }
}

describe('the nftables backend', () => {
  it('writes one change with few elements: the last endpoint moves into the hole, its old index goes a second later', async () => {
    const [nft, clock] = [createFakeNft(), createFakeClock()];
    const backend = open(nft, clock);
    await full(backend, [stateOf(1, [1, 2, 3, 4])]);
    nft.scripts.length = 0;
    await part(backend, [stateOf(1, [2, 3, 4])]);
    expect(nft.scripts.join('')).toContain('delete element ip stevedore eps-tcp { 10.96.0.1 . 80 . 0 }');
    expect(nft.scripts.join('')).toContain(
      'add element ip stevedore eps-tcp { 10.96.0.1 . 80 . 0 : 10.200.1.4 . 8080 }',
    );
    expect(nft.scripts.join('')).not.toContain(' . 80 . 3 }');
    expect(nft.elements(table, 'eps-tcp').size).toBe(4);
    await clock.advance(1_100);
    expect([...nft.elements(table, 'eps-tcp').keys()].sort()).toEqual([
      '10.96.0.1 . 80 . 0',
      '10.96.0.1 . 80 . 1',
      '10.96.0.1 . 80 . 2',
    ]);
  });

  it('a deletion that fails is told of as such', async () => {
    const [nft, clock] = [createFakeNft(), createFakeClock()];
    const backend = open(nft, clock);
    const told: ForeignChange[] = [];
    void backend.watchForeign((change) => told.push(change), life.signal);
    await full(backend, [stateOf(1, [1, 2])]);
    await part(backend, [stateOf(1, [1])]);
    nft.failNext = 1;
    await clock.advance(1_500);
    expect(told).toEqual([{ what: expect.stringContaining('could not be deleted'), cleanupFailed: true }]);
  });

  it('an index that is used again before its deletion stays', async () => {
    const [nft, clock] = [createFakeNft(), createFakeClock()];
    const backend = open(nft, clock);
    await full(backend, [stateOf(1, [1, 2])]);
    await part(backend, [stateOf(1, [1])]);
    await clock.advance(500);
    await part(backend, [stateOf(1, [1, 2])]);
    await clock.advance(5_000);
    expect(nft.elements(table, 'eps-tcp').size).toBe(2);
    await part(backend, [stateOf(1, [1])]);
    await clock.advance(500);
    await part(backend, [stateOf(1, [1, 4])]);
    await clock.advance(5_000);
    expect(nft.elements(table, 'eps-tcp').get('10.96.0.1 . 80 . 1')).toBe('10.200.1.4 . 8080');
  });

  it('what this host listens to on a cluster IP of its own is not refused, as in kube-proxy', async () => {
    const nft = createFakeNft();
    await full(open(nft, createFakeClock()), [stateOf(1, [1])]);
    const chains = nft.tables.get(table)!.chains;
    const reached = (name: string): string[] => {
      const rules = chains.get(name)?.rules ?? [];
      return rules.flatMap((rule) => [rule, ...reached(/ jump (\S+)$/.exec(rule)?.[1] ?? '')]);
    };
    const refuses = (name: string): boolean => reached(name).some((rule) => rule.includes('@cluster-ips'));
    expect(['filter-input', 'filter-forward', 'filter-output'].map(refuses)).toEqual([false, true, true]);
  });

  it('a change of the service CIDRs writes one chain and no more; a restart finds it', async () => {
    const nft = createFakeNft();
    const backend = open(nft, createFakeClock());
    await full(backend, [stateOf(1, [1])]);
    const rules = () => nft.tables.get(table)?.chains.get('unallocated')?.rules;
    const refuse = 'ip daddr @cluster-ips goto refuse';
    expect(rules()).toEqual([refuse]);
    nft.scripts.length = 0;
    expect(backend.configure({ ...facts, serviceCidrs: ['10.96.0.0/16', '10.97.0.1/32'] })).toBe('part');
    await part(backend, []);
    expect(nft.scripts).toEqual([
      'add chain ip stevedore unallocated\n' +
        'flush chain ip stevedore unallocated\n' +
        `add rule ip stevedore unallocated ${refuse}\n` +
        'add rule ip stevedore unallocated ip daddr 10.96.0.0/16 drop\n' +
        'add rule ip stevedore unallocated ip daddr 10.97.0.1 drop\n',
    ]);
    expect(backend.configure({ ...facts, serviceCidrs: ['10.96.0.0/16', '10.97.0.1/32'] })).toBe('none');
    expect(backend.configure({ ...facts, serviceCidrs: ['10.97.0.1/32'] })).toBe('part');
    // What fails is not forgotten.
    nft.failNext = 1;
    await expect(part(backend, [stateOf(1, [1, 2])])).rejects.toThrow();
    await full(backend, [stateOf(1, [1, 2])]);
    expect(rules()).toEqual([refuse, 'ip daddr 10.97.0.1 drop']);
    expect(backend.configure({ ...facts, serviceCidrs: ['10.98.0.0/16'] })).toBe('part');
    nft.refuse = /10\.200\.1\.9/;
    await expect(part(backend, [stateOf(1, [9])])).rejects.toThrow();
    await part(backend, []);
    expect(rules()).toEqual([refuse, 'ip daddr 10.98.0.0/16 drop']);
    nft.refuse = undefined;

    const again = open(nft, createFakeClock());
    expect(again.configure({ ...facts, serviceCidrs: ['10.98.0.0/16'] })).toBe('part');
    nft.scripts.length = 0;
    expect(await full(again, [stateOf(1, [1, 2])])).toBe(0);
    expect(nft.scripts).toEqual([]);
  });

  it('tells of the rules that all have in common what is missing and what is too much', async () => {
    const [nft, clock] = [createFakeNft(), createFakeClock()];
    const backend = open(nft, clock);
    backend.configure({ ...facts, serviceCidrs: ['10.96.0.0/16'] });
    await full(backend, [stateOf(1, [1])]);
    expect(await backend.describeFrame!(signal)).toMatchObject({ key: 'every Service', missing: [], surplus: [] });
    await nft.run(
      `flush chain ${table} unallocated\nadd rule ${table} unallocated ip daddr 10.97.0.0/16 drop\nflush chain ${table} filter-output\n`,
      signal,
    );
    await clock.advance(2_000);
    const { missing, surplus } = await backend.describeFrame!(signal);
    expect(missing.map(({ chain, rule }) => `${chain}: ${rule}`)).toEqual([
      'unallocated: ip daddr @cluster-ips goto refuse',
      'unallocated: ip daddr 10.96.0.0/16 drop',
      'filter-output: ct state new jump guard',
      'filter-output: ct state new jump unallocated',
    ]);
    expect(surplus.map(({ chain, rule }) => `${chain}: ${rule}`)).toEqual(['unallocated: ip daddr 10.97.0.0/16 drop']);
  });

  it('a policy of Local has a memory of clients of its own: what others were sent to may be elsewhere', async () => {
    const nft = createFakeNft();
    const backend = open(nft, createFakeClock());
    const sticky = { affinitySeconds: 60, nodePort: 30_001 };
    const leads = (): (string | undefined)[] => [
      nft.elements(table, 'sticky').get('10.96.0.1 . tcp . 80'),
      nft.elements(table, 'sticky-node').get('tcp . 30001'),
      nft.elements(table, 'record').get('10.96.0.1 . tcp . 80')?.replace('record', 'sticky'),
      nft.elements(table, 'record-node').get('tcp . 30001')?.replace('record', 'sticky'),
    ];
    const memories = (): number =>
      [...nft.tables.get(table)!.maps.keys()].filter((name) => name.startsWith('aff-')).length;
    await full(backend, [stateOf(1, [1, 2], sticky)]);
    const [shared] = leads();
    expect(leads()).toEqual([shared, shared, shared, shared]);
    expect(memories()).toBe(1);

    await part(backend, [stateOf(1, [1, 2], { ...sticky, externalPolicyLocal: true })]);
    const [, external] = leads();
    expect(external).not.toBe(shared);
    expect(leads()).toEqual([shared, external, shared, external]);
    expect(memories()).toBe(2);

    await part(backend, [stateOf(1, [1, 2], { ...sticky, internalPolicyLocal: true })]);
    const [internal] = leads();
    expect(internal).not.toBe(external);
    expect(leads()).toEqual([internal, shared, internal, shared]);
    expect(memories()).toBe(2);

    await part(backend, [stateOf(1, [1, 2], { nodePort: 30_001 })]);
    expect(leads()).toEqual([undefined, undefined, undefined, undefined]);
    expect(memories()).toBe(0);
  });

  it('two service ports on one address: the first has it, the second when the first goes', async () => {
    const [nft, clock] = [createFakeNft(), createFakeClock()];
    const backend = open(nft, clock);
    const shared = { externalIPs: ['192.0.2.9'] };
    await full(backend, [stateOf(1, [1], shared), stateOf(2, [2], shared)]);
    expect(nft.elements(table, 'eps-tcp').get('192.0.2.9 . 80 . 0')).toBe('10.200.1.1 . 8080');
    await part(backend, [], ['ns/s1:/TCP']);
    expect(nft.elements(table, 'eps-tcp').get('192.0.2.9 . 80 . 0')).toBe('10.200.1.2 . 8080');
    expect(nft.elements(table, 'svc').get('192.0.2.9 . tcp . 80')).toBe('goto ext-tcp-1');
  });

  it('base chains are attached last, when big loads are cut in parts', async () => {
    const nft = createFakeNft();
    const states = Array.from({ length: 20 }, (_, at) => stateOf(at + 1, [1, 2, 3, 4, 5]));
    await full(open(nft, createFakeClock(), 20), states);
    expect(nft.scripts.length).toBeGreaterThan(3);
    const hooked = nft.scripts.findIndex((script) => script.includes(' hook '));
    expect(hooked).toBe(nft.scripts.length - 1);
    expect(kernelOf(nft)).toEqual(wantedOf(states));
  });

  it('a table with other maps than ours is replaced in one transaction', async () => {
    const nft = createFakeNft();
    await nft.run('add table ip stevedore\nadd map ip stevedore svc { type ipv4_addr : verdict; }\n', signal);
    nft.scripts.length = 0;
    await full(open(nft, createFakeClock()), [stateOf(1, [1])]);
    expect(nft.scripts).toHaveLength(1);
    expect(kernelOf(nft)).toEqual(wantedOf([stateOf(1, [1])]));
  });

  it('what is refused leaves memory as it was', async () => {
    const [nft, clock] = [createFakeNft(), createFakeClock()];
    const backend = open(nft, clock);
    await full(backend, [stateOf(1, [1, 2])]);
    nft.refuse = /10\.200\.1\.3/;
    await expect(part(backend, [stateOf(1, [2, 3]), stateOf(2, [4])])).rejects.toMatchObject({ code: 'rejected' });
    await part(backend, [stateOf(2, [4])]);
    nft.refuse = undefined;
    await part(backend, [stateOf(1, [2])]);
    await clock.advance(2_000);
    expect(kernelOf(nft)).toEqual(wantedOf([stateOf(1, [2]), stateOf(2, [4])]));
    indexesAreWhole(nft);
  });

  it('a restart after a stop needs no listing; after a crash, or when others flushed, it lists', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nftables-'));
    const nft = createFakeNft();
    const listed: string[] = [];
    const tool: FakeNft = {
      ...nft,
      list(args, given) {
        listed.push(args[0]!);
        return nft.list(args, given);
      },
    };
    const start = () => {
      const [stopping, clock] = [new AbortController(), createFakeClock()];
      const watchForeign = (): Promise<void> =>
        new Promise((resolve) => stopping.signal.addEventListener('abort', () => resolve(), { once: true }));
      const memoryFile = join(folder, 'state');
      const backend = createNftablesBackend({ tool, family: 'IPv4', clock, memoryFile, watchForeign });
      backend.configure(facts);
      const watching = backend.watchForeign(() => undefined, stopping.signal);
      listed.length = 0;
      const stop = async (): Promise<void> => {
        stopping.abort();
        await watching;
      };
      return { backend, stop };
    };
    try {
      const states = [stateOf(1, [1, 2]), stateOf(2, [3], { affinitySeconds: 60 })];
      const first = start();
      await full(first.backend, states);
      await part(first.backend, [stateOf(1, [2])]);
      await first.stop();

      const second = start();
      // The chain for two endpoints, which nobody needs any more, is flushed and deleted.
      expect(await full(second.backend, [stateOf(1, [2]), states[1]!])).toBe(2);
      expect(listed).not.toContain('table');
      await part(second.backend, [stateOf(1, [2, 4])]);
      expect(kernelOf(nft)).toEqual(wantedOf([stateOf(1, [2, 4]), states[1]!]));
      // It crashes: nothing more is left behind, and what was left before is not right any more.

      const third = start();
      await full(third.backend, states);
      expect(listed).toContain('table');
      await third.stop();

      await nft.run(`delete table ${table}`, signal);
      const fourth = start();
      await full(fourth.backend, states);
      expect(kernelOf(nft)).toEqual(wantedOf(states));
      await fourth.stop();

      // Also where the first full apply finds nothing to write, the next change makes the file wrong.
      const fifth = start();
      expect(await full(fifth.backend, states)).toBe(0);
      expect(listed).not.toContain('table');
      await part(fifth.backend, [stateOf(1, [7])]);
      const sixth = start();
      await full(sixth.backend, states);
      expect(listed).toContain('table');
      expect(kernelOf(nft)).toEqual(wantedOf(states));
      await sixth.stop();
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('before a full apply parts are written onto what was read, and nothing is taken away', async () => {
    const nft = createFakeNft();
    await full(open(nft, createFakeClock()), [stateOf(1, [1])]);
    const again = open(nft, createFakeClock());
    await again.adopt(signal);
    await part(again, [stateOf(2, [2])]);
    expect(kernelOf(nft)).toEqual(wantedOf([stateOf(1, [1]), stateOf(2, [2])]));
  });

  it('whatever the changes, failures and restarts, the kernel becomes what is wanted', async () => {
    const fields = fc.record(
      {
        nodePort: fc.constantFrom(0, 30_001, 30_002),
        externalIPs: fc.constantFrom([], ['192.0.2.9'], ['192.0.2.9', '192.0.2.8']),
        loadBalancerVIPs: fc.constantFrom([], ['192.0.2.10']),
        sourceRanges: fc.constantFrom([], ['10.0.0.0/8', '10.1.0.0/16']),
        affinitySeconds: fc.constantFrom(0, 60, 120),
        internalPolicyLocal: fc.boolean(),
        externalPolicyLocal: fc.boolean(),
      },
      { requiredKeys: [] },
    );
    const service = fc.record({
      number: fc.integer({ min: 1, max: 4 }),
      endpoints: fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { maxLength: 6 }),
      fields,
      remove: fc.boolean(),
    });
    const step = fc.record({
      changes: fc.uniqueArray(service, { maxLength: 3, selector: ({ number }) => number }),
      waitMs: fc.constantFrom(0, 300, 1_500),
      serviceCidrs: fc.constantFrom(undefined, undefined, [], ['10.96.0.0/16'], ['10.96.0.0/16', '10.97.0.0/24']),
      event: fc.constantFrom('none', 'none', 'none', 'restart', 'fail', 'check'),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const [nft, clock] = [createFakeNft(), createFakeClock()];
        const wanted = new Map<string, ServicePortState>();
        // The sync loop reads and writes everything again when it is told so.
        let suspected = false;
        let cidrs: readonly string[] = [];
        const start = (): RulesBackend => {
          const opened = open(nft, clock);
          opened.configure({ ...facts, serviceCidrs: cidrs });
          void opened.watchForeign(() => {
            suspected = true;
          }, life.signal);
          return opened;
        };
        let backend = start();
        await full(backend, []);
        for (const { changes, waitMs, event, serviceCidrs } of steps) {
          const upserts: ServicePortState[] = [];
          const removals: string[] = [];
          for (const { number, endpoints, fields: given, remove } of changes) {
            // Addresses are each Service's own here: who has one that two want depends on who came first.
            const own = {
              ...given,
              ...(given.externalIPs ? { externalIPs: given.externalIPs.map((ip) => `${ip}${number}`) } : {}),
              ...(given.nodePort ? { nodePort: given.nodePort + number * 10 } : {}),
              ...(given.loadBalancerVIPs?.length ? { loadBalancerVIPs: [`192.0.2.${100 + number}`] } : {}),
            };
            const state = stateOf(number, endpoints, own);
            if (remove) {
              if (wanted.delete(state.port.key)) removals.push(state.port.key);
            } else {
              wanted.set(state.port.key, state);
              upserts.push(state);
            }
          }
          if (event === 'restart') {
            life.abort();
            life = new AbortController();
            backend = start();
          }
          if (event === 'fail') nft.failNext = 1;
          cidrs = serviceCidrs ?? cidrs;
          backend.configure({ ...facts, serviceCidrs: cidrs });
          try {
            if (event === 'restart' || event === 'check') await full(backend, [...wanted.values()]);
            else await part(backend, upserts, removals);
          } catch {
            await full(backend, [...wanted.values()]);
          }
          await clock.advance(waitMs);
        }
        nft.failNext = 0;
        await clock.advance(3_000);
        if (suspected) await full(backend, [...wanted.values()]);
        await clock.advance(3_000);
        expect(kernelOf(nft)).toEqual(wantedOf([...wanted.values()]));
        expect(nft.tables.get(table)?.chains.get('unallocated')?.rules).toEqual([
          'ip daddr @cluster-ips goto refuse',
          ...cidrs.map((cidr) => `ip daddr ${cidr} drop`),
        ]);
        indexesAreWhole(nft);
        // Reading it back finds nothing to do but chains nobody needs any more, and then nothing at all.
        await full(backend, [...wanted.values()]);
        expect(await full(backend, [...wanted.values()])).toBe(0);
      }),
      { numRuns: 60 },
    );
  });
});
