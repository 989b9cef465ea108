// What a backend that stops leaves for the next one, so that it need not list the table: the elements and chains, in a file, and the same
// random number in the kernel and in the file. Any write takes the number away first, so a file that matches is right.
import { createHash, randomBytes } from 'node:crypto';
import { readFileIfThere, writeFileAtomic } from '../../lib/files.ts';
import type { Slices } from '../../lib/slices.ts';
import type { IpFamily } from '../model.ts';
import { createElementMap, type ElementMap } from './element-map.ts';
import { declarations } from './skeleton.ts';

export interface Memory {
  readonly epoch: string;
  readonly elements: ElementMap<string>;
  /** Rules as nft lists them, a string a chain. */
  readonly chains: Map<string, string>;
  readonly maps: Set<string>;
}

const version = 1;

/** Changes where the maps do: what another version left is not taken over by memory. */
const layoutOf = (family: IpFamily): string =>
  createHash('sha256')
    .update(JSON.stringify([version, ...declarations(family)]))
    .digest('hex')
    .slice(0, 16);

/** 32 random bits, as nft lists them. */
export const newEpoch = (): string => `0x${randomBytes(4).toString('hex')}`;

/** Rejects where the file cannot be written. */
export async function writeMemory(path: string, family: IpFamily, memory: Memory, slices: Slices): Promise<void> {
  const head = { layout: layoutOf(family), epoch: memory.epoch, chains: [...memory.chains], maps: [...memory.maps] };
  const lines = [JSON.stringify(head)];
  for (const [id, value] of memory.elements) {
    lines.push(`${id}\t${value}`);
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  lines.push('end', '');
  await writeFileAtomic(path, lines.join('\n'), 0o600);
}

/** Undefined where there is no file, or it is not whole, or of another layout. */
export async function readMemory(path: string, family: IpFamily, slices: Slices): Promise<Memory | undefined> {
  const text = await readFileIfThere(path);
  if (!text?.endsWith('\nend\n')) return undefined;
  const headEnd = text.indexOf('\n');
  let head: { layout?: string; epoch: string; chains: [string, string][]; maps: string[] };
  try {
    head = JSON.parse(text.slice(0, headEnd)) as typeof head;
  } catch {
    return undefined;
  }
  if (head.layout !== layoutOf(family)) return undefined;
  const elements = createElementMap<string>();
  for (let from = headEnd + 1; from < text.length - 'end\n'.length; ) {
    const end = text.indexOf('\n', from);
    const tab = text.indexOf('\t', from);
    elements.set(text.slice(from, tab), text.slice(tab + 1, end));
    from = end + 1;
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  return { epoch: head.epoch, elements, chains: new Map(head.chains), maps: new Set(head.maps) };
}
