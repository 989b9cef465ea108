// Hands what a backend knows to the one after it. A random number in the kernel says that the file is right: any write takes it away first.
//
//   known ──stop──▶ file and number ──start, both there──▶ known again, without a listing
//                        │ a write, or others took the table away
//                        ▼
//                   the file says nothing
import type { Clock } from '../../lib/clock.ts';
import { createSlices } from '../../lib/slices.ts';
import type { RuleEnv } from './chains.ts';
import { createElementMap } from './element-map.ts';
import { elementsOf } from './elements.ts';
import { type Memory, newEpoch, readMemory, writeMemory } from './memory.ts';
import { epochSet, tableFamily, tableName } from './names.ts';
import type { Book } from './plan.ts';
import type { Structure } from './structure.ts';
import type { NftTool } from './tool.ts';
import type { IpFamily } from '../model.ts';

export interface RecallDeps {
  readonly tool: NftTool;
  readonly family: IpFamily;
  readonly clock: Clock;
  /** Undefined: nothing is handed on. */
  readonly file: string | undefined;
}

export interface Recall {
  /** What the one before left, where the kernel still has its number and its chains. */
  take(signal: AbortSignal): Promise<Memory | undefined>;
  /** What must be written with the next change, and what is to be called once it is; no lines where the kernel has no number. */
  readonly spend: { lines(): readonly string[]; written(): void };
  /** Leaves what is known; nothing may be written afterwards. */
  leave(book: Book, structure: Structure, env: RuleEnv): Promise<void>;
}

const leaveMs = 5_000;

export function createRecall({ tool, family, clock, file }: RecallDeps): Recall {
  const table = `${tableFamily(family)} ${tableName}`;
  const forget = `flush set ${table} ${epochSet}`;
  let stands = false;

  const chainsInKernel = async (signal: AbortSignal): Promise<string[]> => {
    const hooks = await tool.list(['chains', tableFamily(family)], signal);
    const [, own = ''] = (hooks ?? '').split(`table ${table} {\n`);
    return [...own.split('\n}')[0]!.matchAll(/^\tchain (\S+) \{/gm)].map(([, name]) => name!);
  };

  return {
    async take(signal) {
      if (file === undefined) return undefined;
      const memory = await readMemory(file, family, createSlices(clock));
      if (!memory) return undefined;
      const listed = await tool.list(['set', tableFamily(family), tableName, epochSet], signal);
      if (!listed?.includes(`elements = { ${memory.epoch} }`)) return undefined;
      const names = await chainsInKernel(signal);
      stands = names.length === memory.chains.size && names.every((name) => memory.chains.has(name));
      return stands ? memory : undefined;
    },
    spend: {
      lines: () => (stands ? [forget] : []),
      written() {
        stands = false;
      },
    },
    async leave(book, structure, env) {
      if (file === undefined) return;
      const elements = createElementMap(book.late);
      const slices = createSlices(clock);
      for (const programmed of book.programmed.values()) {
        for (const [id, value] of elementsOf(programmed, env)) elements.set(id, value);
        const pause = slices.giveWay();
        if (pause) await pause;
      }
      for (const id of book.shared.keys()) elements.set(id, '');
      const { chains, maps } = structure;
      const epoch = newEpoch();
      await writeMemory(file, family, { epoch, elements, chains, maps }, slices);
      await tool.run(`${forget}\nadd element ${table} ${epochSet} { ${epoch} }\n`, AbortSignal.timeout(leaveMs));
    },
  };
}
