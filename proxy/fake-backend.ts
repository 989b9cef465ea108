// A rules backend in memory, for tests: keeps the states it was given, can be told to refuse some or to fail, and can be flushed from outside.
import type { IpFamily } from './addresses.ts';
import { type ApplyResult, type ForeignChange, NetfilterError, type NodeFacts, type RulesBackend } from './backend.ts';
import type { ServicePortKey, ServicePortState } from './model.ts';

export interface FakeBackend extends RulesBackend {
  /** What is "in the kernel". */
  readonly programmed: Map<ServicePortKey, ServicePortState>;
  /** Every apply, in order. */
  readonly applied: { readonly keys: readonly ServicePortKey[]; readonly full: boolean }[];
  /** Transactions that hold one of these are refused. */
  readonly refused: Set<ServicePortKey>;
  /** All transactions are refused. */
  refuseAll: boolean;
  /** The next so many applies fail with `failed`. */
  failNext: number;
  /** How long an apply takes: it awaits this. */
  delay: () => Promise<void>;
  /** Someone else flushes our rules. */
  flush(): void;
  /** Tells of a change. */
  tell(change: ForeignChange): void;
}

export function createFakeBackend(family: IpFamily = 'IPv4', kind: RulesBackend['kind'] = 'iptables'): FakeBackend {
  const told = new Set<(change: ForeignChange) => void>();
  let facts: string | undefined;
  const backend: FakeBackend = {
    kind,
    family,
    programmed: new Map(),
    applied: [],
    refused: new Set(),
    refuseAll: false,
    failNext: 0,
    delay: () => Promise.resolve(),
    configure(next: NodeFacts) {
      const text = JSON.stringify(next);
      const changed = facts !== text;
      facts = text;
      return changed ? 'full' : 'none';
    },
    adopt: () => Promise.resolve(),
    async apply(changes, desired, { full }): Promise<ApplyResult> {
      const keys = [...changes.upserts.map((state) => state.port.key), ...changes.removals];
      backend.applied.push({ keys, full });
      await backend.delay();
      if (backend.failNext > 0) {
        backend.failNext--;
        throw new NetfilterError('failed', 'told to fail');
      }
      const bad = keys.filter((key) => backend.refused.has(key));
      if (backend.refuseAll || bad.length > 0) throw new NetfilterError('rejected', `refuses ${bad.join(', ')}`);
      for (const key of changes.removals) backend.programmed.delete(key);
      for (const state of changes.upserts) backend.programmed.set(state.port.key, state);
      if (full) for (const key of backend.programmed.keys()) if (!desired.get(key)) backend.programmed.delete(key);
      const total = backend.programmed.size;
      return { written: keys.length, total, byTable: { nat: { written: keys.length, total } } };
    },
    watchForeign(onChange, signal) {
      told.add(onChange);
      return new Promise((resolve) => {
        const end = (): void => {
          told.delete(onChange);
          resolve();
        };
        if (signal.aborted) end();
        else signal.addEventListener('abort', end, { once: true });
      });
    },
    describe: (state) =>
      Promise.resolve({ family, key: state.port.key, desired: [], kernel: [], missing: [], surplus: [] }),
    render: (desired) => Promise.resolve([...desired.keys()].join('\n')),
    cleanup() {
      backend.programmed.clear();
      return Promise.resolve();
    },
    flush() {
      backend.programmed.clear();
      backend.tell({ what: 'flushed' });
    },
    tell(change) {
      for (const tell of told) tell(change);
    },
  };
  return backend;
}
