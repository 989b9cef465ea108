// The facts of the node that a backend makes its rules of, and what new ones ask for.
import type { FactsChange, NodeFacts } from './backend.ts';

export interface HeldFacts {
  /** What must be written, given that service CIDRs need no more than a part. */
  configure(next: NodeFacts): FactsChange;
  /** Throws where none were given yet. */
  now(): NodeFacts;
}

export function createHeldFacts(): HeldFacts {
  let facts: NodeFacts | undefined;
  const textOf = (given: NodeFacts | undefined): string => JSON.stringify({ ...given, serviceCidrs: [] });
  return {
    configure(next) {
      const before = facts;
      facts = next;
      if (!before || textOf(before) !== textOf(next)) return 'full';
      return before.serviceCidrs.join() === next.serviceCidrs.join() ? 'none' : 'part';
    },
    now() {
      if (!facts) throw new Error('configure() must be called before rules are made');
      return facts;
    },
  };
}
