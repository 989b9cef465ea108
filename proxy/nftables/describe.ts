// What is programmed for one service port: its elements in the kernel, with counters, beside those that are wanted.
import type { RuleLine, RulesDescription } from '../backend.ts';
import type { IpFamily, ServicePortState } from '../model.ts';
import type { RuleEnv } from './chains.ts';
import { elementsOf, endpointText, frontsOf, type Programmed, sharedOf } from './elements.ts';
import type { Listing } from './listing.ts';
import { type ElementId, isEndpointMap, keyOf, mapOf } from './names.ts';

export interface DescribeInput {
  readonly family: IpFamily;
  /** As this process wrote it; undefined where it did not. */
  readonly programmed: Programmed | undefined;
  readonly state: ServicePortState;
  readonly env: RuleEnv;
}

const lineOf = (id: ElementId, value: string, counters?: Listing['counters']): RuleLine => {
  const counted = counters?.get(id);
  return {
    table: 'stevedore',
    chain: mapOf(id),
    rule: value === '' ? keyOf(id) : `${keyOf(id)} : ${value}`,
    ...(counted ?? {}),
  };
};

export async function describeServicePort(
  input: DescribeInput,
  read: () => Promise<Listing | undefined>,
): Promise<RulesDescription> {
  const { state, env, family } = input;
  const fronts = frontsOf(state.port);
  const programmed: Programmed = input.programmed ?? {
    state,
    fronts,
    cluster: state.choice.cluster.map(endpointText),
    local: state.choice.local.map(endpointText),
  };
  const wanted = elementsOf(programmed, env);
  for (const id of sharedOf(programmed)) wanted.set(id, '');
  const kernel = await read();
  const own = new Set(fronts.flatMap(({ key, endpointKey }) => [key, endpointKey]));
  // An element of one of its fronts, whoever put it there.
  const isOurs = (id: ElementId): boolean => {
    const key = keyOf(id);
    if (isEndpointMap(mapOf(id))) return own.has(key.slice(0, key.lastIndexOf(' . ')));
    return own.has(key);
  };
  const there = new Map<ElementId, string>();
  for (const [id, value] of kernel?.elements ?? []) if (wanted.has(id) || isOurs(id)) there.set(id, value);
  const desired = [...wanted].map(([id, value]) => lineOf(id, value));
  return {
    family,
    key: state.port.key,
    desired,
    kernel: [...there].map(([id, value]) => lineOf(id, value, kernel?.counters)),
    missing: [...wanted].filter(([id, value]) => there.get(id) !== value).map(([id, value]) => lineOf(id, value)),
    surplus: [...there].filter(([id, value]) => wanted.get(id) !== value).map(([id, value]) => lineOf(id, value)),
  };
}
