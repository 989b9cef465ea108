// Writes a plan: in one transaction where it is small, else in parts that are safe one after another.
import type { Clock } from '../../lib/clock.ts';
import { createSlices } from '../../lib/slices.ts';
import type { ElementMap } from './element-map.ts';
import { cutChanges, type ElementChange, elementLines } from './script.ts';
import type { NftTool } from './tool.ts';

export interface WriteInput {
  /** Lines before the elements, which lead to what these make. */
  readonly head: readonly string[];
  readonly changes: ElementMap<ElementChange>;
  readonly tail: readonly string[];
  /** All in one transaction, however much it is. */
  readonly whole?: boolean;
}

export interface WriterDeps {
  readonly tool: NftTool;
  readonly clock: Clock;
  /** Family and name. */
  readonly table: string;
  /** Elements of a part, about. */
  readonly partSize: number;
  /** Belongs into the first transaction that succeeds, whatever it is. */
  readonly first: { lines(): readonly string[]; written(): void };
}

export type Write = (input: WriteInput, signal: AbortSignal) => Promise<void>;

export function createWriter({ tool, clock, table, partSize, first }: WriterDeps): Write {
  return async ({ head, changes, tail, whole }, signal) => {
    const slices = createSlices(clock);
    const before = first.lines();
    const parts = whole ? [[...changes]] : await cutChanges(changes, partSize, slices);
    if (parts.length <= 1) {
      const lines = [...head, ...(await elementLines(table, parts[0] ?? [], slices)), ...tail];
      if (lines.length === 0) return;
      await tool.run(`${[...before, ...lines].join('\n')}\n`, signal);
      first.written();
      return;
    }
    let under: Promise<void> = Promise.resolve();
    for (const [at, part] of parts.entries()) {
      // While nft works on one part the next is made.
      under.catch(() => undefined);
      const lines = await elementLines(table, part, slices);
      if (at === 0) lines.unshift(...before, ...head);
      if (at === parts.length - 1) lines.push(...tail);
      const script = `${lines.join('\n')}\n`;
      await under;
      under = tool.run(script, signal);
      if (at === 0) under = under.then(first.written);
    }
    await under;
  };
}
