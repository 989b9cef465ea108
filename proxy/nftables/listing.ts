// Reads what `nft list table` prints, in slices: with 100,000 elements it is some megabytes.
import type { Slices } from '../../lib/slices.ts';
import { parseIp } from '../addresses.ts';
import { createElementMap, type ElementMap } from './element-map.ts';
import { type ElementId, elementId, epochSet, isAffinityMap } from './names.ts';

export interface Counted {
  readonly packets: number;
  readonly bytes: number;
}

/** Our table as it is in the kernel. */
export interface Listing {
  /** Elements by id; the value of a set's element is empty. Those of affinity maps are left out. */
  readonly elements: ElementMap<string>;
  /** Lines that declare maps and sets, by name. */
  readonly declarations: Map<string, readonly string[]>;
  /** Rules by chain, without the line that names the hook. */
  readonly chains: Map<string, readonly string[]>;
  /** The line that names the hook, by chain. */
  readonly hooks: Map<string, string>;
  readonly counters: Map<ElementId, Counted>;
}

export const emptyListing = (): Listing => ({
  elements: createElementMap(),
  declarations: new Map(),
  chains: new Map(),
  hooks: new Map(),
  counters: new Map(),
});

const block = /^\t(map|set|chain) (\S+) \{$/;
const counter = / counter packets (\d+) bytes (\d+)/;
const mixed = /[0-9a-f:]*:[0-9a-f:]*\d+\.\d+\.\d+\.\d+/g;

// nft prints the last four bytes of some IPv6 addresses as IPv4 does.
const usual = (text: string): string =>
  text.includes(':') && text.includes('.') ? text.replace(mixed, (address) => parseIp(address)?.text ?? address) : text;

function addElement(listing: Listing, name: string, text: string, counters: boolean): void {
  const counted = counter.exec(text);
  const plain = counted ? text.slice(0, counted.index) + text.slice(counted.index + counted[0].length) : text;
  const at = plain.indexOf(' : ');
  const id = elementId(name, usual(at < 0 ? plain : plain.slice(0, at)));
  listing.elements.set(id, at < 0 ? '' : usual(plain.slice(at + 3)));
  if (counters && counted) listing.counters.set(id, { packets: Number(counted[1]), bytes: Number(counted[2]) });
}

/** `text`: what `nft list table` or `nft list map` printed. Counters are kept only where asked for. */
export async function parseListing(
  text: string,
  slices: Slices,
  options: { counters?: boolean } = {},
): Promise<Listing> {
  const listing = emptyListing();
  let kind = '';
  let name = '';
  let lines: string[] = [];
  let inElements = false;
  for (let from = 0; from < text.length; ) {
    const end = text.indexOf('\n', from);
    const line = text.slice(from, end < 0 ? text.length : end);
    from = end < 0 ? text.length : end + 1;
    if (inElements) {
      inElements = elementsLine(listing, name, line, options.counters ?? false);
      const pause = slices.giveWay();
      if (pause) await pause;
      continue;
    }
    const opened = block.exec(line);
    if (opened) {
      [, kind, name] = opened as unknown as [string, string, string];
      lines = [];
    } else if (line === '\t}') {
      if (kind === 'chain') listing.chains.set(name, lines);
      else listing.declarations.set(name, lines);
    } else if (line.startsWith('\t\telements = { ')) {
      inElements = elementsLine(listing, name, line.slice('\t\telements = { '.length), options.counters ?? false);
    } else if (line.startsWith('\t\ttype ') && line.includes(' hook ')) {
      listing.hooks.set(name, line.trim());
    } else if (line.startsWith('\t\t')) {
      lines.push(line.trim());
    }
  }
  return listing;
}

/** False where the line is the last one of the elements. */
function elementsLine(listing: Listing, name: string, line: string, counters: boolean): boolean {
  let text = line.trim();
  const last = text.endsWith('}');
  text = last ? text.slice(0, -1).trimEnd() : text.endsWith(',') ? text.slice(0, -1) : text;
  if (isAffinityMap(name) || name === epochSet) return !last;
  for (const element of text.split(', ')) if (element !== '') addElement(listing, name, element, counters);
  return !last;
}
