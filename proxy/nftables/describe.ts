// What is programmed for one service port: its elements in the kernel, with counters, beside those that are wanted.
import type { Clock } from '../../lib/clock.ts';
import type { RuleLine, RulesDescription } from '../backend.ts';
import type { IpFamily, ServicePortState } from '../model.ts';
import { printed, type RuleEnv } from './chains.ts';
import { elementsOf, endpointText, frontsOf, type Programmed, sharedOf } from './elements.ts';
import type { Listing } from './listing.ts';
import { type ElementId, elementId, filteredMap, isEndpointMap, keyOf, mapOf, protocolName } from './names.ts';
import { baseChains, fixedChains } from './skeleton.ts';

export interface DescribeInput {
  readonly family: IpFamily;
  /** As this process wrote it; undefined where it did not. */
  readonly programmed: Programmed | undefined;
  readonly state: ServicePortState;
  readonly env: RuleEnv;
  /** Elements that wait for their deletion. */
  readonly late: ReadonlyMap<ElementId, string>;
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

/** A listing with its elements by what they are about, so that each service port finds its own. */
export interface IndexedListing {
  readonly listing: Listing;
  /** Element ids by map and front (for endpoint maps without the index). */
  readonly byFront: ReadonlyMap<string, readonly ElementId[]>;
}

export function indexListing(listing: Listing): IndexedListing {
  const byFront = new Map<string, ElementId[]>();
  for (const id of listing.elements.keys()) {
    const key = isEndpointMap(mapOf(id)) ? id.slice(0, id.lastIndexOf(' . ')) : id;
    const ids = byFront.get(key);
    if (ids) ids.push(id);
    else byFront.set(key, [id]);
  }
  return { listing, byFront };
}

const verdictMaps = ['svc', 'clu', 'sticky', 'record', 'guard'];

export function describeServicePort(input: DescribeInput, kernel: IndexedListing | undefined): RulesDescription {
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
  const proto = protocolName(state.port.protocol);
  const there = new Map<ElementId, string>();
  const look = (key: string): void => {
    for (const id of kernel?.byFront.get(key) ?? []) there.set(id, kernel!.listing.elements.get(id)!);
  };
  for (const id of wanted.keys()) look(id);
  // Of its addresses, whoever put it there.
  for (const { suffix, key, endpointKey } of programmed.fronts) {
    for (const map of verdictMaps) look(elementId(`${map}${suffix}`, key));
    if (suffix === '') look(elementId(filteredMap, key));
    for (const map of ['eps', 'loc']) look(elementId(`${map}${suffix}-${proto}`, endpointKey));
  }
  // Endpoints that are no longer drawn stay for a moment.
  for (const id of input.late.keys()) if (!wanted.has(id)) there.delete(id);
  const counters = kernel?.listing.counters;
  return {
    family,
    key: state.port.key,
    desired: [...wanted].map(([id, value]) => lineOf(id, value)),
    kernel: [...there].map(([id, value]) => lineOf(id, value, counters)),
    missing: [...wanted].filter(([id, value]) => there.get(id) !== value).map(([id, value]) => lineOf(id, value)),
    surplus: [...there].filter(([id, value]) => wanted.get(id) !== value).map(([id, value]) => lineOf(id, value)),
  };
}

const rulesOf = (chains: Iterable<readonly [string, readonly string[]]>): RuleLine[] =>
  [...chains].flatMap(([chain, rules]) => rules.map((rule) => ({ table: 'stevedore', chain, rule })));

/** What is there and what is not: a rule may stand in a chain more than once. */
function differenceOf(lines: readonly RuleLine[], from: readonly RuleLine[]): RuleLine[] {
  const left = new Map<string, number>();
  const idOf = ({ chain, rule }: RuleLine): string => `${chain} ${rule}`;
  for (const line of from) left.set(idOf(line), (left.get(idOf(line)) ?? 0) + 1);
  return lines.filter((line) => {
    const count = left.get(idOf(line)) ?? 0;
    left.set(idOf(line), count - 1);
    return count <= 0;
  });
}

/** The chains that all service ports have in common, with a hook and without, rule by rule. */
export function describeFrame(env: RuleEnv, kernel: Listing | undefined): RulesDescription {
  const wanted = new Map([
    ...[...fixedChains(env)].map(([name, rules]) => [name, rules.map(printed)] as const),
    ...baseChains(env).map(({ name, rules }) => [name, rules.map(printed)] as const),
  ]);
  const desired = rulesOf(wanted);
  const there = rulesOf([...(kernel?.chains ?? [])].filter(([name]) => wanted.has(name)));
  return {
    family: env.family,
    key: 'every Service',
    desired,
    kernel: there,
    missing: differenceOf(desired, there),
    surplus: differenceOf(there, desired),
  };
}

export interface DescriptionsDeps {
  readonly clock: Pick<Clock, 'monotonicMs'>;
  read(signal: AbortSignal): Promise<Listing | undefined>;
}

/** Listing costs what the table holds: descriptions asked for one after another share it. */
export interface Descriptions {
  read(signal: AbortSignal): Promise<IndexedListing | undefined>;
  /** The kernel has changed. */
  drop(): void;
}

const describedForMs = 1_000;

export function createDescriptions({ clock, read }: DescriptionsDeps): Descriptions {
  let kept: { readonly atMs: number; readonly listing: Promise<IndexedListing | undefined> } | undefined;
  return {
    read(signal) {
      const now = clock.monotonicMs();
      if (!kept || now - kept.atMs > describedForMs)
        kept = {
          atMs: now,
          listing: read(signal).then(
            (listing) => listing && indexListing(listing),
            (error: unknown) => {
              kept = undefined;
              throw error;
            },
          ),
        };
      return kept.listing;
    },
    drop() {
      kept = undefined;
    },
  };
}
