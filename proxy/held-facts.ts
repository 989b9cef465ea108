// The facts of the node that a backend makes its rules of, and whether new ones differ.
import type { NodeFacts } from './backend.ts';

export interface HeldFacts {
  /** True where they differ from the former. */
  configure(next: NodeFacts): boolean;
  /** Throws where none were given yet. */
  now(): NodeFacts;
}

export function createHeldFacts(): HeldFacts {
  let facts: NodeFacts | undefined;
  let text = '';
  return {
    configure(next) {
      const before = text;
      facts = next;
      text = JSON.stringify(next);
      return text !== before;
    },
    now() {
      if (!facts) throw new Error('configure() must be called before rules are made');
      return facts;
    },
  };
}
