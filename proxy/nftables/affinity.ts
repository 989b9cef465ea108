// Forgets clients' endpoints that went: a client that comes back must not be sent to one of them.
import type { Clock } from '../../lib/clock.ts';
import type { IpFamily } from '../model.ts';
import type { Programmed } from './elements.ts';
import { affinityId, affinityMap, tableFamily, tableName } from './names.ts';
import type { NftTool } from './tool.ts';

export interface AffinityPurgerDeps {
  readonly tool: NftTool;
  readonly clock: Clock;
  readonly family: IpFamily;
}

export interface AffinityPurger {
  /** Starts it; ends by itself, or when the signal aborts. */
  purge(ports: readonly Programmed[], signal: AbortSignal): void;
}

const attempts = 5;
const againMs = 50;

/** Clients by endpoint, as `nft list map` prints them. */
export function parseClients(text: string): { readonly client: string; readonly endpoint: string }[] {
  const at = text.indexOf('elements = {');
  if (at < 0) return [];
  return text
    .slice(at + 'elements = {'.length)
    .split(/[,}\n]/)
    .flatMap((item) => {
      const [, client, endpoint] = /^\s*(\S+)(?: timeout \S+)?(?: expires \S+)? : (\S+ \. \d+)\s*$/.exec(item) ?? [];
      return client !== undefined && endpoint !== undefined ? [{ client, endpoint }] : [];
    });
}

export function createAffinityPurger(deps: AffinityPurgerDeps): AffinityPurger {
  const { tool, clock, family } = deps;
  const purgeOne = async ({ state, cluster, local }: Programmed, signal: AbortSignal): Promise<boolean> => {
    const map = affinityMap(affinityId(state.port.key));
    const valid = new Set([...cluster, ...local]);
    const text = await tool.list(['map', tableFamily(family), tableName, map], signal);
    const gone = parseClients(text ?? '').filter(({ endpoint }) => !valid.has(endpoint));
    if (gone.length === 0) return true;
    const keys = gone.map(({ client }) => client).join(', ');
    // Fails where one expired meanwhile: then it is looked at again.
    await tool.run(`delete element ${tableFamily(family)} ${tableName} ${map} { ${keys} }\n`, signal);
    return false;
  };
  const purgeAll = async (ports: readonly Programmed[], signal: AbortSignal): Promise<void> => {
    // Until nothing is left: a packet in flight may have noted an endpoint once more.
    for (const port of ports)
      for (let attempt = 0; attempt < attempts && !signal.aborted; attempt++) {
        const clean = await purgeOne(port, signal).catch(() => false);
        if (clean && attempt > 0) break;
        await clock.sleep(againMs, signal).catch(() => undefined);
      }
  };
  return {
    purge(ports, signal) {
      void purgeAll(ports, signal);
    },
  };
}
