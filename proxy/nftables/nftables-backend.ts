// The nftables backend: one table per family, one map of endpoints for all service ports. It knows what it wrote, so that a change costs
// only its elements; what it did not write itself it reads from the kernel first, and takes over.
//
//   unknown ──adopt──▶ read ──full apply──▶ known ──part──▶ known
//      ▲                                      │ a write failed
//      └──────────────────────────────────────┘
import type { Clock, Timer } from '../../lib/clock.ts';
import { createSlices } from '../../lib/slices.ts';
import { type ApplyResult, type Changes, type ForeignChange, NetfilterError, type RulesBackend } from '../backend.ts';
import { createHeldFacts } from '../held-facts.ts';
import type { IpFamily, ServicePortState } from '../model.ts';
import type { DesiredState } from '../state.ts';
import { createAffinityPurger } from './affinity.ts';
import type { RuleEnv } from './chains.ts';
import { createDescriptions, describeFrame, describeServicePort } from './describe.ts';
import { affinityIdsOf } from './elements.ts';
import { type Listing, emptyListing, parseListing } from './listing.ts';
import { goneFronts } from './gone.ts';
import { createLateDeletions } from './late.ts';
import { tableFamily, tableName } from './names.ts';
import { type Book, emptyBook, frontIdOf, type Plan, planAll, planPart } from './plan.ts';
import { createRecall } from './recall.ts';
import { elementLines } from './script.ts';
import {
  commitStructure,
  dropOldAffinity,
  dropSurplus,
  emptyStructure,
  ensureAffinity,
  ensureBase,
  ensureFixed,
  ensureTargets,
  isForeign,
  noStructure,
  type Structure,
  type StructurePlan,
  structureOf,
  targetOf,
} from './structure.ts';
import type { NftTool } from './tool.ts';
import { createWriter } from './write.ts';

export interface NftablesBackendDeps {
  readonly tool: NftTool;
  readonly family: IpFamily;
  readonly clock: Clock;
  /** Where a backend that stops leaves what it knows for the next one; undefined: nowhere. */
  readonly memoryFile?: string | undefined;
  /** Tells of foreign changes; see foreign.ts. */
  watchForeign(onChange: (change: ForeignChange) => void, signal: AbortSignal): Promise<void>;
}

/** What was taken over without a listing is compared with the kernel after so long. */
const verifyAfterMs = 30_000;
export interface NftablesBackendOptions {
  /** Elements written in one go, about. */
  readonly partSize?: number;
}

function* verdictsOf(changes: Plan['changes']): Generator<string | undefined> {
  for (const [, { after }] of changes) yield after;
}

export function createNftablesBackend(
  deps: NftablesBackendDeps,
  { partSize = 16_000 }: NftablesBackendOptions = {},
): RulesBackend {
  const { tool, family, clock } = deps;
  const table = `${tableFamily(family)} ${tableName}`;
  const facts = createHeldFacts();
  // What was read and not yet made right by a full apply; `absent` where there is no table.
  let kernel: Listing | 'absent' | undefined;
  let known = false;
  let book: Book = emptyBook();
  let structure: Structure = emptyStructure();
  let verifyTimer: Timer | undefined;
  let suspect: ((change: ForeignChange) => void) | undefined;
  let busy: Promise<unknown> = Promise.resolve();
  let firstAdopt = true;
  // Facts have changed that only chains without a hook are made of.
  let fixedDue = false;
  const recall = createRecall({ tool, family, clock, file: deps.memoryFile });
  const write = createWriter({ tool, clock, table, partSize, first: recall.spend });

  // One at a time touches the table.
  const serial = <T>(work: () => Promise<T>): Promise<T> => {
    const next = busy.then(work, work);
    busy = next.catch(() => undefined);
    return next;
  };

  const envNow = (): RuleEnv => ({ ...facts.now(), family });

  const headFor = (env: RuleEnv, withFixed: boolean): StructurePlan => {
    const head = noStructure();
    if (withFixed) ensureFixed(head, structure, env);
    return head;
  };

  const read = async (signal: AbortSignal, counters = false): Promise<Listing | undefined> => {
    const text = await tool.list(['table', tableFamily(family), tableName], signal);
    return text === undefined ? undefined : parseListing(text, createSlices(clock), { counters });
  };

  const adopt = async (signal: AbortSignal): Promise<void> => {
    known = false;
    const remembered = firstAdopt ? await recall.take(signal).catch(() => undefined) : undefined;
    firstAdopt = false;
    if (remembered) {
      // Others may have touched single elements while nobody watched.
      verifyTimer = clock.setTimer(verifyAfterMs, () => {
        if (!signal.aborted) suspect?.({ what: 'they were taken over without a listing', routine: true });
      });
      kernel = { ...emptyListing(), elements: remembered.elements };
      structure = { chains: remembered.chains, maps: remembered.maps, hasTable: true };
      return;
    }
    const found = await read(signal);
    kernel = found ?? 'absent';
    structure = structureOf(found);
  };

  const descriptions = createDescriptions({ clock, read: (signal) => read(signal, true) });
  const purger = createAffinityPurger({
    tool,
    clock,
    family,
    onFailure(error) {
      suspect?.({
        what: `clients of endpoints that went could not be forgotten: ${String(error)}`,
        cleanupFailed: true,
      });
    },
  });

  const late = createLateDeletions({
    clock,
    book: () => book,
    isKnown: () => known,
    serial,
    delete: (due, signal) => write({ head: [], changes: due, tail: [] }, signal),
    onFailure(error, signal) {
      known = false;
      if (!signal.aborted)
        suspect?.({ what: `endpoints that went could not be deleted: ${String(error)}`, cleanupFailed: true });
    },
  });

  const resultOf = (written: number): ApplyResult => ({ written, total: book.count, byTable: {} });

  const afterWrite = (plan: Plan, signal: AbortSignal): void => {
    descriptions.drop();
    late.schedule(signal);
    const purges = [...plan.purge].flatMap((key) => book.programmed.get(key) ?? []);
    if (purges.length > 0) purger.purge(purges, signal);
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
    const head = headFor(env, true);
    const affinity = new Set<string>();
    for (const programmed of nextBook.programmed.values()) {
      ensureAffinity(head, structure, env, programmed);
      for (const id of affinityIdsOf(programmed.state.port)) affinity.add(id);
    }
    ensureTargets(head, structure, env, plan.verdicts);
    const tail = noStructure();
    ensureBase(tail, structure, env);
    dropSurplus(tail, structure, env, new Set([...plan.verdicts].flatMap((value) => targetOf(value) ?? [])), affinity);
    kernel = undefined;
    const lines = foreign ? [`delete table ${table}`, ...head.lines] : head.lines;
    await write({ head: lines, changes: plan.changes, tail: tail.lines, whole: foreign }, signal);
    commitStructure(structure, head);
    commitStructure(structure, tail);
    book = nextBook;
    late.forget();
    known = true;
    afterWrite(plan, signal);
    const result = resultOf(plan.changes.size + head.lines.length + tail.lines.length);
    const gone = goneFronts(plan.changes).filter(
      ({ protocol, ip, port }) => !book.fronts.has(frontIdOf(protocol, ip, port)),
    );
    return { ...result, gone };
  };

  // Before everything was made right once: what is there is known by reading only, and what is not wanted stays.
  const applyOntoRead = async (changes: Changes, signal: AbortSignal): Promise<ApplyResult> => {
    const env = envNow();
    const found = kernel === 'absent' || kernel === undefined ? emptyListing() : kernel;
    const plan = await planAll(emptyBook(), env, changes.upserts, found, clock, {
      keepSurplus: true,
    });
    const head = headFor(env, true);
    for (const programmed of plan.touched.values()) if (programmed) ensureAffinity(head, structure, env, programmed);
    ensureTargets(head, structure, env, verdictsOf(plan.changes));
    await write({ head: head.lines, changes: plan.changes, tail: [] }, signal);
    await adopt(signal);
    return resultOf(plan.changes.size + head.lines.length);
  };

  const applyPart = async (changes: Changes, signal: AbortSignal): Promise<ApplyResult> => {
    if (!known) {
      if (kernel === undefined) await adopt(signal);
      return applyOntoRead(changes, signal);
    }
    const env = envNow();
    const withFixed = fixedDue;
    fixedDue = false;
    const hadAffinity = new Set(
      [...changes.removals, ...changes.upserts.map(({ port }) => port.key)].filter(
        (key) => (book.programmed.get(key)?.state.port.affinitySeconds ?? 0) > 0,
      ),
    );
    const plan = await planPart(book, env, changes, clock);
    try {
      const head = headFor(env, withFixed);
      for (const programmed of plan.touched.values()) if (programmed) ensureAffinity(head, structure, env, programmed);
      ensureTargets(head, structure, env, verdictsOf(plan.changes));
      const tail = noStructure();
      for (const key of hadAffinity) dropOldAffinity(tail, structure, env, key, book.programmed.get(key)?.state.port);
      await write({ head: head.lines, changes: plan.changes, tail: tail.lines }, signal);
      commitStructure(structure, head);
      commitStructure(structure, tail);
      afterWrite(plan, signal);
      return resultOf(plan.changes.size + head.lines.length + tail.lines.length);
    } catch (error) {
      plan.rollback();
      fixedDue ||= withFixed;
      if (!(error instanceof NetfilterError && error.code === 'rejected')) known = false;
      throw error;
    }
  };

  return {
    kind: 'nftables',
    family,
    configure(next) {
      const due = facts.configure(next);
      if (due === 'part') fixedDue = true;
      return due;
    },
    adopt: (signal) => serial(() => adopt(signal)),
    apply: (changes, _desired, { signal, full }) =>
      serial(() => (full ? applyFull(changes.upserts, signal) : applyPart(changes, signal))),
    async watchForeign(onChange, signal) {
      suspect = onChange;
      tool.begin(signal);
      await deps.watchForeign(onChange, signal);
      suspect = undefined;
      late.stop();
      verifyTimer?.cancel();
      await serial(async () => {
        if (known) await recall.leave(book, structure, envNow());
      }).catch(() => undefined);
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
      return describeServicePort(input, await descriptions.read(signal));
    },
    async describeFrame(signal) {
      return describeFrame(envNow(), (await descriptions.read(signal))?.listing);
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
      ensureTargets(head, empty, env, verdictsOf(plan.changes));
      const tail = noStructure();
      ensureBase(tail, empty, env);
      const elements = await elementLines(table, plan.changes, createSlices(clock));
      return `${[...head.lines, ...elements, ...tail.lines].join('\n')}\n`;
    },
    cleanup: (signal) =>
      serial(async () => {
        late.stop();
        verifyTimer?.cancel();
        await tool.run(`add table ${table}\ndelete table ${table}\n`, signal);
        known = false;
        kernel = undefined;
        book = emptyBook();
        structure = emptyStructure();
        tool.rest();
      }),
  };
}
