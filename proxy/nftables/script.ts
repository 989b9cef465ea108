// A transaction as text for `nft -f -`, and in which order a big one may be cut. Pure.
import type { Slices } from '../../lib/slices.ts';
import type { ElementMap } from './element-map.ts';
import { type ElementId, isEndpointMap, keyOf, mapOf } from './names.ts';

/** What becomes of one element: from `before` to `after`; undefined where it is not there. */
export interface ElementChange {
  readonly before: string | undefined;
  readonly after: string | undefined;
}

// Endpoints before the verdicts that lead to them; who is guarded last. Deletions go the other way round.
const rank = (map: string): number =>
  isEndpointMap(map) ? 0 : map.startsWith('guard') || map === 'cluster-ips' ? 3 : map.startsWith('svc') ? 2 : 1;

const perLine = 500;

async function commands(
  verb: 'add' | 'delete',
  table: string,
  byMap: ReadonlyMap<string, string[]>,
  slices: Slices,
): Promise<string[]> {
  const lines: string[] = [];
  for (const [map, items] of byMap)
    for (let at = 0; at < items.length; at += perLine) {
      lines.push(`${verb} element ${table} ${map} { ${items.slice(at, at + perLine).join(', ')} }`);
      const pause = slices.giveWay();
      if (pause) await pause;
    }
  return lines;
}

const pushTo = (byMap: Map<string, string[]>, map: string, item: string): void => {
  const items = byMap.get(map);
  if (items) items.push(item);
  else byMap.set(map, [item]);
};

/** The lines that make these changes, deletions first; what is replaced is deleted and added. */
export async function elementLines(
  table: string,
  changes: Iterable<readonly [ElementId, ElementChange]>,
  slices: Slices,
): Promise<string[]> {
  const deleted = new Map<string, string[]>();
  const added = new Map<string, string[]>();
  for (const [id, { before, after }] of changes) {
    const [map, key] = [mapOf(id), keyOf(id)];
    if (before !== undefined) pushTo(deleted, map, key);
    if (after !== undefined) pushTo(added, map, after === '' ? key : `${key} : ${after}`);
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  return [...(await commands('delete', table, deleted, slices)), ...(await commands('add', table, added, slices))];
}

type Part = readonly (readonly [ElementId, ElementChange])[];

/** Cuts changes into parts of about `size`, each safe by itself when they are made in this order. */
export async function cutChanges(changes: ElementMap<ElementChange>, size: number, slices: Slices): Promise<Part[]> {
  if (changes.size === 0) return [];
  if (changes.size <= size * 1.5) return [[...changes]];
  const groups = new Map<number, (readonly [ElementId, ElementChange])[]>();
  for (const entry of changes) {
    const [id, { after }] = entry;
    const at = after === undefined ? 8 - rank(mapOf(id)) : rank(mapOf(id));
    const group = groups.get(at);
    if (group) group.push(entry);
    else groups.set(at, [entry]);
    const pause = slices.giveWay();
    if (pause) await pause;
  }
  // In this order, whole groups or pieces of them: what is in one part is made at once.
  const ordered = [...groups.keys()].sort((a, b) => a - b).flatMap((at) => groups.get(at)!);
  const parts: Part[] = [];
  for (let from = 0; from < ordered.length; from += size) parts.push(ordered.slice(from, from + size));
  return parts;
}
