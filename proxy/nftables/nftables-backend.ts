// The nftables backend: one table per family, one map of endpoints for all service ports. It knows what it wrote, so that a change costs
// only its elements; what it did not write itself it reads from the kernel first, and takes over.
//
//   unknown ──adopt──▶ read ──full apply──▶ known ──part──▶ known
//      ▲                                      │ a write failed
//      └──────────────────────────────────────┘
import type { Clock, Timer } from '../../lib/clock.ts';
import { createSlices } from '../../lib/slices.ts';
import {
  type ApplyResult,
  type Changes,
  type ForeignChange,
  NetfilterError,
  type NodeFacts,
  type RulesBackend,
} from '../backend.ts';
import type { IpFamily, ServicePortState } from '../model.ts';
import type { DesiredState } from '../state.ts';
import { createAffinityPurger } from './affinity.ts';
import type { RuleEnv } from './chains.ts';
import { describeServicePort, type IndexedListing, indexListing } from './describe.ts';
import { elementsOf } from './elements.ts';
import { type Listing, emptyListing, parseListing } from './listing.ts';
import { affinityId, type ElementId, tableFamily, tableName } from './names.ts';
import { type Book, emptyBook, type Plan, planAll, planPart } from './plan.ts';
import { cutChanges, type ElementChange, elementLines } from './script.ts';
import {
  commitStructure,
  dropAffinity,
  dropSurplus,
  emptyStructure,
  ensureAffinity,
  ensureBase,
  ensureFixed,
  ensureTargets,
  isForeign,
  noStructure,
  type Structure,
  structureOf,
  targetOf,
} from './structure.ts';
import type { NftTool } from './tool.ts';

export interface NftablesBackendDeps {
  readonly tool: NftTool;
  readonly family: IpFamily;
  readonly clock: Clock;
  /** Tells of foreign changes; see foreign.ts. */
  watchForeign(onChange: (change: ForeignChange) => void, signal: AbortSignal): Promise<void>;
}

/** Endpoints that are no longer drawn stay this long, for packets that drew them just before. */
const lateMs = 1_000;
/** A listing answers descriptions for so long; it is dropped by the next write. */
const describedForMs = 1_000;
export interface NftablesBackendOptions {
  /** Elements written in one go, about. */
  readonly partSize?: number;
}

interface Written {
  readonly elements: number;
}

export function createNftablesBackend(
  deps: NftablesBackendDeps,
  { partSize = 20_000 }: NftablesBackendOptions = {},
): RulesBackend {
  const { tool, family, clock } = deps;
  const table = `${tableFamily(family)} ${tableName}`;
  let facts: NodeFacts | undefined;
  let factsText = '';
  // What was read and not yet made right by a full apply; `absent` where there is no table.
  let kernel: Listing | 'absent' | undefined;
  let known = false;
  let book: Book = emptyBook();
  let structure: Structure = emptyStructure();
  let lateTimer: Timer | undefined;
  let lateSince = new Map<ElementId, number>();
  let suspect: ((change: ForeignChange) => void) | undefined;
  let busy: Promise<unknown> = Promise.resolve();

  // One at a time touches the table.
  const serial = <T>(work: () => Promise<T>): Promise<T> => {
    const next = busy.then(work, work);
    busy = next.catch(() => undefined);
    return next;
  };

  const envNow = (): RuleEnv => {
    if (!facts) throw new Error('configure() must be called before rules are made');
    return { ...facts, family };
  };

  const read = async (signal: AbortSignal, counters = false): Promise<Listing | undefined> => {
    const text = await tool.list(['table', tableFamily(family), tableName], signal);
    return text === undefined ? undefined : parseListing(text, createSlices(clock), { counters });
  };

  const adopt = async (signal: AbortSignal): Promise<void> => {
    known = false;
    const found = await read(signal);
    kernel = found ?? 'absent';
    structure = structureOf(found);
  };

  // Listing costs what the table holds: descriptions asked for one after another share it.
  let described: { readonly atMs: number; readonly listing: Promise<IndexedListing | undefined> } | undefined;
  const readForDescription = (signal: AbortSignal): Promise<IndexedListing | undefined> => {
    const now = clock.monotonicMs();
    if (!described || now - described.atMs > describedForMs)
      described = {
        atMs: now,
        listing: read(signal, true).then(
          (listing) => listing && indexListing(listing),
          (error: unknown) => {
            described = undefined;
            throw error;
          },
        ),
      };
    return described.listing;
  };

  const purger = createAffinityPurger({ tool, clock, family });

  const scheduleLate = (signal: AbortSignal): void => {
    const now = clock.monotonicMs();
    lateSince = new Map([...book.late.keys()].map((id) => [id, lateSince.get(id) ?? now]));
    if (lateTimer || lateSince.size === 0) return;
    lateTimer = clock.setTimer(lateMs, () => {
      lateTimer = undefined;
      if (!signal.aborted) void serial(() => deleteLate(signal));
    });
  };

  const deleteLate = async (signal: AbortSignal): Promise<void> => {
    if (!known || signal.aborted) return;
    // A timer may fire a moment early.
    const dueMs = clock.monotonicMs() - lateMs * 0.9;
    const due = new Map<ElementId, ElementChange>();
    for (const [id, value] of book.late)
      if ((lateSince.get(id) ?? dueMs) <= dueMs) due.set(id, { before: value, after: undefined });
    try {
      for (const part of cutChanges(due, partSize)) await tool.run(elementLines(table, part).join('\n'), signal);
      for (const id of due.keys()) book.late.delete(id);
      book.count -= due.size;
    } catch (error) {
      known = false;
      if (!signal.aborted) suspect?.({ what: `endpoints that went could not be deleted: ${String(error)}` });
    }
    scheduleLate(signal);
  };

  const resultOf = (written: number): ApplyResult => ({ written, total: book.count, byTable: {} });

  const afterWrite = (plan: Plan, signal: AbortSignal): void => {
    described = undefined;
    scheduleLate(signal);
    const purges = [...plan.purge].flatMap((key) => book.programmed.get(key) ?? []);
    if (purges.length > 0) purger.purge(purges, signal);
  };

  /** Writes lines and changes, in one transaction where they are few. */
  const write = async (
    head: readonly string[],
    changes: ReadonlyMap<ElementId, ElementChange>,
    tail: readonly string[],
    signal: AbortSignal,
    whole = false,
  ): Promise<Written> => {
    const parts = whole ? [[...changes]] : cutChanges(changes, partSize);
    if (parts.length <= 1) {
      const lines = [...head, ...elementLines(table, parts[0] ?? []), ...tail];
      if (lines.length > 0) await tool.run(`${lines.join('\n')}\n`, signal);
    } else {
      if (head.length > 0) await tool.run(`${head.join('\n')}\n`, signal);
      for (const part of parts) {
        await tool.run(elementLines(table, part).join('\n'), signal);
        // Between the parts others get their turn.
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
      if (tail.length > 0) await tool.run(`${tail.join('\n')}\n`, signal);
    }
    return { elements: changes.size };
  };

  const applyFull = async (upserts: readonly ServicePortState[], signal: AbortSignal): Promise<ApplyResult> => {
    if (kernel === undefined) await adopt(signal);
    const env = envNow();
    const foreign = kernel !== 'absent' && kernel !== undefined && isForeign(kernel, env);
    const found = kernel === 'absent' || kernel === undefined || foreign ? emptyListing() : kernel;
    if (foreign) structure = emptyStructure();
    const nextBook = emptyBook();
    known = false;
    const plan = await planAll(nextBook, env, upserts, found, clock);
    const head = noStructure();
    ensureFixed(head, structure, env);
    const used = new Set<string>();
    const affinity = new Set<string>();
    const slices = createSlices(clock);
    for (const programmed of nextBook.programmed.values()) {
      for (const value of elementsOf(programmed, env).values()) used.add(value);
      ensureAffinity(head, structure, env, programmed);
      if (programmed.state.port.affinitySeconds > 0) affinity.add(affinityId(programmed.state.port.key));
      const pause = slices.giveWay();
      if (pause) await pause;
    }
    ensureTargets(head, structure, env, used);
    const tail = noStructure();
    ensureBase(tail, structure, env);
    dropSurplus(tail, structure, env, new Set([...used].flatMap((value) => targetOf(value) ?? [])), affinity);
    kernel = undefined;
    const lines = foreign ? [`delete table ${table}`, ...head.lines] : head.lines;
    const { elements } = await write(lines, plan.changes, tail.lines, signal, foreign);
    commitStructure(structure, head);
    commitStructure(structure, tail);
    book = nextBook;
    lateSince = new Map();
    known = true;
    afterWrite(plan, signal);
    return resultOf(elements + head.lines.length + tail.lines.length);
  };

  // Before everything was made right once: what is there is known by reading only, and what is not wanted stays.
  const applyOntoRead = async (changes: Changes, signal: AbortSignal): Promise<ApplyResult> => {
    const env = envNow();
    const found = kernel === 'absent' || kernel === undefined ? emptyListing() : kernel;
    const plan = await planAll(emptyBook(), env, changes.upserts, found, clock, {
      keepSurplus: true,
    });
    const head = noStructure();
    ensureFixed(head, structure, env);
    for (const programmed of plan.touched.values()) if (programmed) ensureAffinity(head, structure, env, programmed);
    ensureTargets(
      head,
      structure,
      env,
      [...plan.changes.values()].map(({ after }) => after),
    );
    const { elements } = await write(head.lines, plan.changes, [], signal);
    await adopt(signal);
    return resultOf(elements + head.lines.length);
  };

  const applyPart = async (changes: Changes, signal: AbortSignal): Promise<ApplyResult> => {
    if (!known) {
      if (kernel === undefined) await adopt(signal);
      return applyOntoRead(changes, signal);
    }
    const env = envNow();
    const hadAffinity = new Set(
      [...changes.removals, ...changes.upserts.map(({ port }) => port.key)].filter(
        (key) => (book.programmed.get(key)?.state.port.affinitySeconds ?? 0) > 0,
      ),
    );
    const plan = await planPart(book, env, changes, clock);
    try {
      const head = noStructure();
      for (const programmed of plan.touched.values()) if (programmed) ensureAffinity(head, structure, env, programmed);
      ensureTargets(
        head,
        structure,
        env,
        [...plan.changes.values()].map(({ after }) => after),
      );
      const tail = noStructure();
      for (const key of hadAffinity)
        if ((book.programmed.get(key)?.state.port.affinitySeconds ?? 0) === 0)
          dropAffinity(tail, structure, env, affinityId(key));
      const { elements } = await write(head.lines, plan.changes, tail.lines, signal);
      commitStructure(structure, head);
      commitStructure(structure, tail);
      afterWrite(plan, signal);
      return resultOf(elements + head.lines.length + tail.lines.length);
    } catch (error) {
      plan.rollback();
      if (!(error instanceof NetfilterError && error.code === 'rejected')) known = false;
      throw error;
    }
  };

  return {
    kind: 'nftables',
    family,
    configure(next) {
      const text = JSON.stringify(next);
      const changed = text !== factsText;
      facts = next;
      factsText = text;
      return changed;
    },
    adopt: (signal) => serial(() => adopt(signal)),
    apply: (changes, _desired, { signal, full }) =>
      serial(() => (full ? applyFull(changes.upserts, signal) : applyPart(changes, signal))),
    async watchForeign(onChange, signal) {
      suspect = onChange;
      await deps.watchForeign(onChange, signal);
      suspect = undefined;
      lateTimer?.cancel();
      lateTimer = undefined;
      tool.rest();
    },
    async describe(state, signal) {
      const input = {
        family,
        programmed: book.programmed.get(state.port.key),
        state,
        env: envNow(),
        late: book.late,
      };
      return describeServicePort(input, await readForDescription(signal));
    },
    async render(desired: DesiredState) {
      const env = envNow();
      const states = [...desired.keys()].flatMap((key) => desired.get(key) ?? []);
      const empty = emptyStructure();
      const fresh = emptyBook();
      const plan = await planAll(fresh, env, states, emptyListing(), clock);
      const head = noStructure();
      ensureFixed(head, empty, env);
      for (const programmed of fresh.programmed.values()) ensureAffinity(head, empty, env, programmed);
      ensureTargets(
        head,
        empty,
        env,
        [...plan.changes.values()].map(({ after }) => after),
      );
      const tail = noStructure();
      ensureBase(tail, empty, env);
      return `${[...head.lines, ...elementLines(table, plan.changes), ...tail.lines].join('\n')}\n`;
    },
    cleanup: (signal) =>
      serial(async () => {
        lateTimer?.cancel();
        lateTimer = undefined;
        await tool.run(`add table ${table}\ndelete table ${table}\n`, signal);
        known = false;
        kernel = undefined;
        book = emptyBook();
        structure = emptyStructure();
        tool.rest();
      }),
  };
}
