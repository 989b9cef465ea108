// Forgets clients' endpoints that went: a client that comes back must not be sent to one of them.
import type { Clock } from '../../lib/clock.ts';
import type { IpFamily } from '../model.ts';
import { affinityIdsOf, type Programmed } from './elements.ts';
import { affinityMap, affinityPortMap, tableFamily, tableName } from './names.ts';
import type { NftTool } from './tool.ts';

export interface AffinityPurgerDeps {
  readonly tool: NftTool;
  readonly clock: Clock;
  readonly family: IpFamily;
  /** Given up after some attempts. */
  onFailure(error: unknown): void;
}

export interface AffinityPurger {
  /** Starts it; ends by itself, or when the signal aborts. */
  purge(ports: readonly Programmed[], signal: AbortSignal): void;
}

const attempts = 5;
const againMs = 50;

/** What each client is sent to, as `nft list map` prints it: an address or a port. */
export function parseClients(text: string): Map<string, string> {
  const clients = new Map<string, string>();
  const at = text.indexOf('elements = {');
  if (at < 0) return clients;
  for (const item of text.slice(at + 'elements = {'.length).split(/[,}\n]/)) {
    const [, client, value] = /^\s*(\S+)(?: timeout \S+)?(?: expires \S+)? : (\S+)\s*$/.exec(item) ?? [];
    if (client !== undefined && value !== undefined) clients.set(client, value);
  }
  return clients;
}

export function createAffinityPurger(deps: AffinityPurgerDeps): AffinityPurger {
  const { tool, clock, family } = deps;
  const table = `${tableFamily(family)} ${tableName}`;
  const clientsIn = async (map: string, signal: AbortSignal): Promise<Map<string, string>> =>
    parseClients((await tool.list(['map', tableFamily(family), tableName, map], signal)) ?? '');

  /** True where nothing had to be forgotten. */
  const purgeMemory = async (id: string, valid: ReadonlySet<string>, signal: AbortSignal): Promise<boolean> => {
    const [map, portMap] = [affinityMap(id), affinityPortMap(id)];
    const [addresses, ports] = [await clientsIn(map, signal), await clientsIn(portMap, signal)];
    const isGone = (client: string): boolean => !valid.has(`${addresses.get(client)} . ${ports.get(client)}`);
    const gone = [addresses, ports].map((clients) => [...clients.keys()].filter(isGone).join(', '));
    if (gone.every((keys) => keys === '')) return true;
    const lines = [map, portMap].flatMap((name, at) =>
      gone[at] === '' ? [] : `delete element ${table} ${name} { ${gone[at]} }\n`,
    );
    // Fails where one expired meanwhile: then it is looked at again.
    await tool.run(lines.join(''), signal);
    return false;
  };
  const purgeOne = async ({ state, cluster, local }: Programmed, signal: AbortSignal): Promise<boolean> => {
    const valid = new Set([...cluster, ...local]);
    let clean = true;
    for (const id of affinityIdsOf(state.port)) clean = (await purgeMemory(id, valid, signal)) && clean;
    return clean;
  };
  const purgeAll = async (ports: readonly Programmed[], signal: AbortSignal): Promise<void> => {
    // Until nothing is left: a packet in flight may have noted an endpoint once more.
    for (const port of ports) {
      let failure: unknown;
      for (let attempt = 0; attempt < attempts && !signal.aborted; attempt++) {
        failure = undefined;
        const clean = await purgeOne(port, signal).catch((error: unknown) => {
          failure = error;
          return false;
        });
        if (clean && attempt > 0) break;
        await clock.sleep(againMs, signal).catch(() => undefined);
      }
      if (failure !== undefined && !signal.aborted) deps.onFailure(failure);
    }
  };
  return {
    purge(ports, signal) {
      void purgeAll(ports, signal);
    },
  };
}
