// The contract of packet flows against tracers over what the backends would write. With real packets:
// test/integration/proxy-contract.test.ts.
import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import type { RulesBackend } from './backend.ts';
import {
  type Flow,
  flowContract,
  type Host,
  loopbackOf,
  type Round,
  type Scenario,
  targetOf,
  type World,
} from './contract.ts';
import { createIptablesBackend } from './iptables/iptables-backend.ts';
import { parseIptables, tracePacketIptables } from './iptables/trace.ts';
import { createNftablesBackend } from './nftables/nftables-backend.ts';
import { parseScript, tracePacket } from './nftables/trace.ts';
import { type IpFamily, servicePortKey } from './model.ts';
import type { DesiredState } from './state.ts';
import type { Trace, TracedPacket } from './trace.ts';

const worlds: Record<IpFamily, World> = {
  IPv4: {
    family: 'IPv4',
    address: {
      ep0: '10.200.1.10',
      ep1: '10.200.1.11',
      pod: '10.200.1.12',
      far: '10.200.2.10',
      client: '172.30.0.2',
      node: '172.30.0.1',
    },
    echoPort: 8080,
    clusterCIDR: '10.200.0.0/16',
    nodeCIDR: '10.200.1.0/24',
    podInterface: 'veth12',
  },
  IPv6: {
    family: 'IPv6',
    address: {
      ep0: 'fd00:10:244:1::10',
      ep1: 'fd00:10:244:1::11',
      pod: 'fd00:10:244:1::12',
      far: 'fd00:10:244:2::10',
      client: 'fd5e::2',
      node: 'fd5e::1',
    },
    echoPort: 8080,
    clusterCIDR: 'fd00:10:244::/56',
    nodeCIDR: 'fd00:10:244:1::/64',
    podInterface: 'veth12',
  },
};
const interfaces: Record<Host, string> = {
  ep0: 'eth7',
  ep1: 'eth8',
  pod: 'veth12',
  far: 'eth9',
  client: 'eth0',
  node: '',
};

const desiredOf = (scenarios: readonly Scenario[]): DesiredState => {
  const states = new Map(scenarios.map(({ state }) => [state.port.key, state]));
  return {
    get: (key) => states.get(key),
    keys: () => states.keys(),
    size: () => states.size,
    endpointCount: () => states.size,
  };
};

const never = (): Promise<never> => Promise.reject(new Error('the kernel is not asked'));
const open: Record<RulesBackend['kind'], (family: IpFamily) => RulesBackend> = {
  nftables: (family) =>
    createNftablesBackend({
      tool: { run: never, list: never, begin: () => undefined, rest: () => undefined },
      family,
      clock: createFakeClock(),
      watchForeign: never,
    }),
  iptables: (family) =>
    createIptablesBackend({
      tool: {
        family,
        variant: 'nft',
        version: '1.8.9',
        randomFully: true,
        save: never,
        restore: never,
        begin: () => undefined,
        rest: () => undefined,
        list: never,
      },
      clock: createFakeClock(),
      watchForeign: never,
    }),
};
const tracer: Record<RulesBackend['kind'], (text: string) => (packet: TracedPacket) => Trace> = {
  nftables: (text) => {
    const ruleset = parseScript(text);
    return (packet) => tracePacket(ruleset, packet);
  },
  iptables: (text) => {
    const ruleset = parseIptables(text);
    return (packet) => tracePacketIptables(ruleset, packet);
  },
};

// Few kernels have sockets for it: what real packets do not show, the rules must.
const overSctp = (scenario: Scenario): Scenario => {
  const { state } = scenario;
  const port = { ...state.port, protocol: 'SCTP' as const };
  const key = servicePortKey(port.namespace, port.name, port.portName, port.protocol);
  return { ...scenario, state: { ...state, port: { ...port, key } } };
};

/** What the trace says, in the contract's words. */
function outcomeOf(world: World, { fate }: Trace): unknown {
  if (fate.kind !== 'endpoints') return fate.kind;
  const nameOf = (ip: string): string | undefined =>
    Object.entries(world.address).find(([, address]) => address === ip)?.[0];
  const lands = [...new Set(fate.endpoints.map(({ address }) => nameOf(address)))].sort();
  const sources = new Set(fate.endpoints.map(({ masqueraded }) => (masqueraded ? 'node' : 'kept')));
  return { lands, source: [...sources].join(' and ') };
}

const wantedOf = (world: World, round: Round, flow: Flow): unknown => {
  if (typeof flow.outcome === 'object') return { ...flow.outcome, lands: [...flow.outcome.lands].sort() };
  const { nodePortAddresses } = round.facts;
  // Nobody listens there: the host refuses it, no rule does.
  const hostRefuses =
    flow.to === 'node-port-elsewhere' ||
    (flow.to === 'unallocated' && flow.outcome === 'rejected') ||
    flow.to === 'node-port-on-loopback' ||
    (flow.to === 'node-port' && nodePortAddresses !== 'all' && !nodePortAddresses.includes(world.address.node));
  return hostRefuses ? 'untouched' : flow.outcome;
};

describe.each(['iptables', 'nftables'] as const)('flows through %s', (kind) => {
  const cases = (['IPv4', 'IPv6'] as const).flatMap((family) =>
    (['as written', 'over SCTP'] as const).flatMap((protocol) =>
      flowContract(worlds[family]).map((round) => [family, round.name, protocol, round] as const),
    ),
  );
  it.each(cases)('%s, %s, %s', async (family, _name, protocol, round) => {
    const world = worlds[family];
    const scenarios = round.scenarios
      .filter(({ only }) => only === undefined || only === kind)
      .map((scenario) => (protocol === 'over SCTP' ? overSctp(scenario) : scenario));
    const backend = open[kind](family);
    backend.configure(round.facts);
    const trace = tracer[kind](await backend.render(desiredOf(scenarios)));
    for (const { name, state, flows } of scenarios)
      for (const flow of flows) {
        const { address, port } = targetOf(state, flow.to, world);
        const traced = trace({
          family,
          protocol: state.port.protocol.toLowerCase() as TracedPacket['protocol'],
          // What goes to the loopback address comes from it.
          source: address === loopbackOf(family) ? address : world.address[flow.from],
          destination: address,
          port,
          sourceIsLocal: flow.from === 'node',
          destinationIsLocal: address === world.address.node || address === loopbackOf(family),
          inInterface: interfaces[flow.from],
        });
        expect({ name, flow, got: outcomeOf(world, traced) }).toEqual({
          name,
          flow,
          got: wantedOf(world, round, flow),
        });
      }
  });
});
