// What is programmed, for who asks: described beside the kernel, or as the tool reads it.
import type { RulesDescription } from './backend.ts';
import type { ProxyFamily } from './family.ts';
import type { ProxyState } from './state.ts';

export interface ShownRules {
  readonly state: ProxyState;
  readonly families: readonly ProxyFamily[];
  /** Everything was written once. */
  readonly synced?: boolean;
}

/** Of a Service (`namespace/name`); where none is named, of all, and of the rules they have in common. */
export async function describeRules(
  { state, families, synced }: ShownRules,
  serviceKey: string | undefined,
  signal: AbortSignal,
): Promise<readonly RulesDescription[]> {
  const found: RulesDescription[] = [];
  for (const { family, backend } of families) {
    const desired = state.desired(family);
    const keys = serviceKey === undefined ? desired.keys() : state.services.keysOf(family, serviceKey);
    for (const key of keys) {
      const wanted = desired.get(key);
      if (wanted) found.push(await backend.describe(wanted, signal));
    }
    const frame = serviceKey === undefined && synced ? await backend.describeFrame?.(signal) : undefined;
    if (frame) found.push(frame);
  }
  return found;
}

export async function renderRules({ state, families }: ShownRules): Promise<string> {
  const parts: string[] = [];
  for (const { family, backend } of families) parts.push(`# ${family}\n${await backend.render(state.desired(family))}`);
  return parts.join('\n');
}
