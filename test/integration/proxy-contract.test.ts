// The contract of packet flows, on both rules backends and in both IP families, with real packets through network namespaces.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import type { IpFamily } from '../../proxy/addresses.ts';
import type { Changes, RulesBackend } from '../../proxy/backend.ts';
import { type BackendKind, createBackendContext, openBackend } from '../../proxy/backends.ts';
import { type Flow, flowContract, type Round, type Scenario, targetOf, type World } from '../../proxy/contract.ts';
import type { DesiredState } from '../../proxy/state.ts';
import { createFlowsLab, type FlowsLab } from '../lab/flows-lab.ts';

/** All endpoints are seen among so many new connections, save once in 2^20. */
const spreadTries = 24;
const plainTries = 3;

function desiredOf(round: Pick<Round, 'scenarios'>): DesiredState {
  const states = new Map(round.scenarios.map(({ state }) => [state.port.key, state]));
  return {
    get: (key) => states.get(key),
    keys: () => states.keys(),
    size: () => states.size,
    endpointCount: () => [...states.values()].reduce((sum, { endpoints }) => sum + endpoints.length, 0),
  };
}

const everything = (round: Pick<Round, 'scenarios'>): Changes => ({
  upserts: round.scenarios.map(({ state }) => state),
  removals: [],
});

describe.each<BackendKind>(['iptables', 'nftables'])('%s', (kind) => {
  let lab: FlowsLab;
  const signal = new AbortController().signal;

  beforeAll(async () => {
    lab = await createFlowsLab();
    // As the proxy sets it where localhost node ports are asked for.
    await lab.hosts.node.exec('sysctl', ['-qw', 'net.ipv4.conf.all.route_localnet=1']);
  });
  afterAll(() => lab?.stop());

  describe.each<IpFamily>(['IPv4', 'IPv6'])('%s', (family) => {
    let backend: RulesBackend;
    let world: World;
    // Rounds are made before the lab is: their names and order do not depend on it.
    const names = flowContract(pretendWorld(family)).map(({ name }) => name);

    beforeAll(async () => {
      world = lab.world(family);
      const context = createBackendContext(systemClock, silentLog, { enter: lab.hosts.node.enter });
      backend = await openBackend(kind, family, context);
    });
    afterAll(() => backend?.cleanup(signal));

    it.each(names)('%s', async (name) => {
      const found = flowContract(world).find((one) => one.name === name)!;
      const round = { ...found, scenarios: found.scenarios.filter(({ only }) => only === undefined || only === kind) };
      backend.configure(round.facts);
      await backend.adopt(signal);
      await backend.apply(everything(round), desiredOf(round), { signal, full: true });
      const wrong = (await Promise.all(round.scenarios.map((scenario) => checkScenario(lab, world, scenario)))).flat();
      const { state } = round.scenarios.at(-1)!;
      const { missing, surplus } = await backend.describe(state, signal);
      if (missing.length + surplus.length > 0) wrong.push(JSON.stringify({ missing, surplus }));
      // One connection for each try on 127.0.0.1, each counted once.
      if (kind === 'iptables' && name === 'localhost node ports')
        expect(await backend.packetCounts?.(signal)).toEqual({
          localhostNodePorts: family === 'IPv4' ? plainTries : 0,
          invalidDropped: 0,
        });
      // What was written is recognised: reading it back finds nothing to do.
      await backend.adopt(signal);
      const again = await backend.apply(everything(round), desiredOf(round), { signal, full: true });
      if (again.written > 0) wrong.push(`${again.written} rules were written again`);
      if (wrong.length > 0) console.error(await dump(lab, kind));
      expect(wrong).toEqual([]);
    });
  });
});

const dump = async (lab: FlowsLab, kind: BackendKind): Promise<string> => {
  const commands = kind === 'nftables' ? [['nft', 'list', 'ruleset']] : [['iptables-save'], ['ip6tables-save']];
  const parts = commands.map(([command, ...args]) =>
    lab.hosts.node.exec(command!, args).then(({ stdout }) => stdout, String),
  );
  return (await Promise.all(parts)).join('\n');
};

function pretendWorld(family: IpFamily): World {
  const ip = family === 'IPv4' ? '192.0.2.1' : '2001:db8::1';
  return {
    family,
    address: { ep0: ip, ep1: ip, far: ip, pod: ip, client: ip, node: ip },
    echoPort: 1,
    clusterCIDR: `${ip}/32`,
    nodeCIDR: `${ip}/32`,
    podInterface: 'eth0',
  };
}

async function checkScenario(lab: FlowsLab, world: World, scenario: Scenario): Promise<string[]> {
  const wrong: string[] = [];
  // One after another: the flows of a scenario may have a client in common, and affinity is by client.
  for (const flow of scenario.flows) {
    const said = await checkFlow(lab, world, scenario, flow);
    if (said !== undefined)
      wrong.push(`${scenario.name}: ${flow.from} → ${flow.to}: ${said}, not ${JSON.stringify(flow.outcome)}`);
  }
  return wrong;
}

/** What was seen instead of what is due; undefined where all is well. */
async function checkFlow(lab: FlowsLab, world: World, { state }: Scenario, flow: Flow): Promise<string | undefined> {
  const { address, port } = targetOf(state, flow.to, world);
  const protocol = state.port.protocol === 'UDP' ? 'UDP' : 'TCP';
  const { outcome } = flow;
  const tries = typeof outcome === 'object' && outcome.lands.length > 1 ? spreadTries : plainTries;
  const timeoutMs = outcome === 'dropped' ? 400 : 3_000;
  const asking = Array.from({ length: tries }, () => lab.ask(flow.from, protocol, address, port, timeoutMs));
  // Clients that stick must have been noted before they come again.
  const first = flow.sticks ? await asking[0]! : undefined;
  const answers = flow.sticks
    ? [
        first!,
        ...(await Promise.all(asking.slice(1).map(() => lab.ask(flow.from, protocol, address, port, timeoutMs)))),
      ]
    : await Promise.all(asking);
  const seen = [...new Set(answers)].sort();
  if (typeof outcome === 'string') return seen.length === 1 && seen[0] === outcome ? undefined : seen.join(', ');
  const landed = [...new Set(answers.map((answer) => answer.split(' ')[0]!))].sort();
  const sources = [...new Set(answers.map((answer) => answer.split(' ')[1] ?? ''))];
  const due = [...outcome.lands].sort();
  const landsRight = flow.sticks
    ? landed.length === 1 && due.includes(landed[0] as never)
    : JSON.stringify(landed) === JSON.stringify(due);
  const sourceRight = sources.every((source) =>
    outcome.source === 'kept' ? source === world.address[flow.from] : lab.nodeAddresses.has(source),
  );
  return landsRight && sourceRight ? undefined : seen.join(', ');
}
