// What must be written so that the kernel holds what is wanted: keeps what each service port has, who owns which address, and which
// elements are to be deleted later. Changes nothing by itself: a plan is committed once it was written.
import { createSlices, type Slices } from '../../lib/slices.ts';
import type { Clock } from '../../lib/clock.ts';
import type { NodeFacts } from '../backend.ts';
import type { Protocol, ServicePortKey, ServicePortState } from '../model.ts';
import { arrange } from './arrange.ts';
import { createElementMap, type ElementMap } from './element-map.ts';
import { elementsOf, endpointText, frontsOf, type Front, type Programmed, sharedOf } from './elements.ts';
import type { Listing } from './listing.ts';
import { type ElementId, elementId, isEndpointMap, mapOf, protocolName } from './names.ts';
import type { ElementChange } from './script.ts';

/** What service ports have in the kernel. */
export interface Book {
  readonly programmed: Map<ServicePortKey, Programmed>;
  /** Who wants an address and port; the first one has it. */
  readonly fronts: Map<string, ServicePortKey[]>;
  /** Who needs an element that is shared. */
  readonly shared: Map<ElementId, Set<ServicePortKey>>;
  /** Elements no longer drawn, still in the kernel: value by id. */
  readonly late: Map<ElementId, string>;
  /** Elements in the kernel, those of `late` too. */
  count: number;
}

export const emptyBook = (): Book => ({
  programmed: new Map(),
  fronts: new Map(),
  shared: new Map(),
  late: new Map(),
  count: 0,
});

export interface Plan {
  readonly changes: ElementMap<ElementChange>;
  /** Service ports with session affinity that lost endpoints, or have just got it. */
  readonly purge: Set<ServicePortKey>;
  /** Where verdicts lead; planAll only. */
  readonly verdicts: ReadonlySet<string>;
  /** Those that are as before are not in it. */
  readonly touched: ReadonlyMap<ServicePortKey, Programmed | undefined>;
  /** Puts the book back as it was. */
  rollback(): void;
}

const frontId = (front: Pick<Front, 'suffix' | 'key'>): string => `${front.suffix} ${front.key}`;

/** As `Book.fronts` has it; `ip` undefined: a node port. */
export const frontIdOf = (protocol: Protocol, ip: string | undefined, port: number): string => {
  const key = `${protocolName(protocol)} . ${port}`;
  return ip === undefined ? frontId({ suffix: '-node', key }) : frontId({ suffix: '', key: `${ip} . ${key}` });
};

/** The row of endpoints a front has in the kernel. */
function rowInKernel(kernel: Listing, map: string, endpointKey: string): string[] {
  const row: string[] = [];
  for (let at = 0; ; at++) {
    const value = kernel.elements.get(elementId(map, `${endpointKey} . ${at}`));
    if (value === undefined) return row;
    row.push(value);
  }
}

function rowsBefore(
  before: Programmed | undefined,
  kernel: Listing | undefined,
  state: ServicePortState,
  fronts: readonly Front[],
): { cluster: readonly string[]; local: readonly string[] } {
  if (before) return before;
  if (!kernel) return { cluster: [], local: [] };
  const proto = protocolName(state.port.protocol);
  const inside = fronts.find(({ internal }) => internal);
  const outside = fronts.find(({ internal }) => !internal);
  const eps = (front: Front | undefined): string[] =>
    front ? rowInKernel(kernel, `eps${front.suffix}-${proto}`, front.endpointKey) : [];
  if (state.port.internalPolicyLocal) return { cluster: eps(outside), local: eps(inside) };
  return {
    cluster: eps(inside ?? outside),
    local: outside ? rowInKernel(kernel, `loc${outside.suffix}-${proto}`, outside.endpointKey) : [],
  };
}

const remains = (row: readonly string[], before: readonly string[]): boolean => {
  const now = new Set(row);
  return before.every((endpoint) => now.has(endpoint));
};

interface Builder {
  set(id: ElementId, before: string | undefined, after: string | undefined): void;
  upsert(state: ServicePortState): void;
  remove(key: ServicePortKey): void;
  finish(slices: Slices): Promise<Plan>;
}

/** `kernel`: given where the book is empty and the kernel was read; then elements are compared with it. */
function createBuilder(book: Book, facts: NodeFacts, kernel: Listing | undefined): Builder {
  const raw = createElementMap<{ before: string | undefined; after: string | undefined }>();
  const purge = new Set<ServicePortKey>();
  const touched = new Map<ServicePortKey, Programmed | undefined>();
  const undo: (() => void)[] = [];
  const heirs = new Set<ServicePortKey>();

  const verdicts = new Set<string>();

  const set: Builder['set'] = (id, before, after) => {
    const known = raw.get(id);
    if (known) known.after = after;
    else if (!kernel) raw.set(id, { before, after });
    else {
      // What is wanted is taken out of the listing: in the end it holds what is not.
      const there = kernel.elements.get(id);
      if (there !== undefined) kernel.elements.delete(id);
      if (there !== after) raw.set(id, { before: there, after });
    }
  };

  const claim = (key: ServicePortKey, before: readonly string[], after: readonly string[]): void => {
    const keep = new Set(after);
    for (const id of before) {
      if (keep.has(id)) continue;
      const owners = book.fronts.get(id) ?? [];
      const left = owners.filter((owner) => owner !== key);
      if (owners[0] === key && left[0] !== undefined) heirs.add(left[0]);
      if (left.length > 0) book.fronts.set(id, left);
      else book.fronts.delete(id);
      undo.push(() => book.fronts.set(id, owners));
    }
    for (const id of after) {
      const owners = book.fronts.get(id);
      if (owners?.includes(key)) continue;
      book.fronts.set(id, [...(owners ?? []), key]);
      undo.push(() => (owners ? book.fronts.set(id, owners) : book.fronts.delete(id)));
    }
  };

  const share = (key: ServicePortKey, before: ReadonlySet<ElementId>, after: ReadonlySet<ElementId>): void => {
    for (const id of before) {
      if (after.has(id)) continue;
      const users = book.shared.get(id);
      if (!users?.delete(key)) continue;
      undo.push(() => {
        users.add(key);
        book.shared.set(id, users);
      });
      if (users.size > 0) continue;
      book.shared.delete(id);
      set(id, '', undefined);
    }
    for (const id of after) {
      if (before.has(id)) continue;
      const users = book.shared.get(id) ?? new Set();
      if (users.size === 0) set(id, undefined, '');
      users.add(key);
      book.shared.set(id, users);
      undo.push(() => {
        users.delete(key);
        if (users.size === 0) book.shared.delete(id);
      });
    }
  };

  const replace = (key: ServicePortKey, before: Programmed | undefined, after: Programmed | undefined): void => {
    const had = before ? elementsOf(before, facts) : new Map<ElementId, string>();
    const has = after ? elementsOf(after, facts) : new Map<ElementId, string>();
    for (const [id, value] of had) if (!has.has(id)) set(id, value, undefined);
    for (const [id, value] of has) {
      const old = had.get(id);
      if (kernel || old !== value) set(id, old, value);
      if (kernel && (value.startsWith('goto') || value.startsWith('jump'))) verdicts.add(value);
    }
    share(key, before ? sharedOf(before) : new Set(), after ? sharedOf(after) : new Set());
    if (after) book.programmed.set(key, after);
    else book.programmed.delete(key);
    undo.push(() => (before ? book.programmed.set(key, before) : book.programmed.delete(key)));
    touched.set(key, after);
  };

  const upsert = (state: ServicePortState): void => {
    const { key, affinitySeconds } = state.port;
    const before = book.programmed.get(key);
    const wanted = frontsOf(state.port);
    claim(key, before ? frontsOf(before.state.port).map(frontId) : [], wanted.map(frontId));
    const fronts = wanted.filter((front) => book.fronts.get(frontId(front))?.[0] === key);
    const rows = rowsBefore(before, kernel, state, fronts);
    const after: Programmed = {
      state,
      fronts,
      cluster: arrange(rows.cluster, state.choice.cluster.map(endpointText)),
      local: arrange(rows.local, state.choice.local.map(endpointText)),
    };
    const lost = !remains(after.cluster, rows.cluster) || !remains(after.local, rows.local);
    if (affinitySeconds > 0 && (lost || (before && before.state.port.affinitySeconds === 0))) purge.add(key);
    replace(key, before, after);
  };

  const remove = (key: ServicePortKey): void => {
    const before = book.programmed.get(key);
    if (!before) return;
    claim(key, frontsOf(before.state.port).map(frontId), []);
    replace(key, before, undefined);
  };

  return {
    set,
    upsert,
    remove,
    async finish(slices) {
      for (const key of heirs) {
        const heir = book.programmed.get(key);
        if (heir) upsert(heir.state);
      }
      const changes = await settle(book, raw, kernel !== undefined, undo, slices);
      return { changes, purge, verdicts, touched, rollback: () => undoAll(undo) };
    },
  };
}

const undoAll = (undo: (() => void)[]): void => {
  for (const step of undo.reverse()) step();
};

/** What really changes: endpoints are deleted late, and what waits for its deletion may be wanted again. */
async function settle(
  book: Book,
  raw: ElementMap<ElementChange>,
  adopting: boolean,
  undo: (() => void)[],
  slices: Slices,
): Promise<ElementMap<ElementChange>> {
  const changes = createElementMap<ElementChange>();
  const before = { count: book.count, late: new Map<ElementId, string | undefined>() };
  const setLate = (id: ElementId, value: string | undefined): void => {
    before.late.set(id, book.late.get(id));
    if (value === undefined) book.late.delete(id);
    else book.late.set(id, value);
  };
  for (const [id, change] of raw) {
    const pause = slices.giveWay();
    if (pause) await pause;
    if (change.before === change.after) continue;
    if (change.after === undefined) {
      if (isEndpointMap(mapOf(id))) setLate(id, change.before);
      else {
        changes.set(id, change);
        book.count--;
      }
      continue;
    }
    const waiting = adopting ? undefined : book.late.get(id);
    if (waiting !== undefined) setLate(id, undefined);
    if (waiting === change.after) continue;
    const old = change.before ?? waiting;
    if (old === undefined) book.count++;
    changes.set(id, { before: old, after: change.after });
  }
  undo.push(() => {
    book.count = before.count;
    for (const [id, value] of before.late)
      if (value === undefined) book.late.delete(id);
      else book.late.set(id, value);
  });
  return changes;
}

export interface PlanInput {
  readonly upserts: readonly ServicePortState[];
  readonly removals: readonly ServicePortKey[];
}

/** Plans a part; the book is changed and can be put back. */
export async function planPart(book: Book, facts: NodeFacts, input: PlanInput, clock: Clock): Promise<Plan> {
  const builder = createBuilder(book, facts, undefined);
  const slices = createSlices(clock);
  for (const key of input.removals) builder.remove(key);
  await upsertAll(builder, input.upserts, slices);
  return builder.finish(slices);
}

/**
 * Plans everything against what was read: `book` must be empty, and the listing is used up. What is in the kernel and not wanted goes.
 */
export async function planAll(
  book: Book,
  facts: NodeFacts,
  upserts: readonly ServicePortState[],
  kernel: Listing,
  clock: Clock,
  options: { readonly keepSurplus?: boolean } = {},
): Promise<Plan> {
  const builder = createBuilder(book, facts, kernel);
  const slices = createSlices(clock);
  book.count = kernel.elements.size;
  await upsertAll(builder, upserts, slices);
  if (!options.keepSurplus)
    for (const [id, value] of kernel.elements) {
      builder.set(id, value, undefined);
      const pause = slices.giveWay();
      if (pause) await pause;
    }
  return builder.finish(slices);
}

async function upsertAll(builder: Builder, upserts: readonly ServicePortState[], slices: Slices): Promise<void> {
  for (const state of upserts) {
    builder.upsert(state);
    const pause = slices.giveWay();
    if (pause) await pause;
  }
}
