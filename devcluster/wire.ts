// Objects as they go over the wire: with apiVersion and kind, or as rows of a table.
import { apiVersionOf, type Kind } from './kinds.ts';
import type { Obj } from './store.ts';
import { type IncludeObject, tableOf } from './tables.ts';

/** Undefined: as they are. */
export type Format = { readonly table: IncludeObject } | undefined;

const texts = new WeakMap<Obj, string>();

/** JSON of what is kept, made once for each object however many watch it. */
function textOf(object: Obj): string {
  const text = texts.get(object) ?? JSON.stringify(object);
  texts.set(object, text);
  return text;
}

const header = (kind: string, apiVersion: string): string => `{"kind":"${kind}","apiVersion":"${apiVersion}",`;

export function encodeObject(kind: Kind, object: Obj, format: Format, nowMs: number, head = true): string {
  if (format) return JSON.stringify(tableOf(kind, [object], object.metadata, { include: format.table, nowMs, head }));
  return `${header(kind.resource.kind, apiVersionOf(kind.resource))}${textOf(object).slice(1)}`;
}

export interface ListMeta {
  readonly resourceVersion: string;
  readonly continue?: string;
  readonly remainingItemCount?: number;
}

export function encodeList(kind: Kind, objects: readonly Obj[], meta: ListMeta, format: Format, nowMs: number): string {
  if (format) return JSON.stringify(tableOf(kind, objects, meta, { include: format.table, nowMs, head: true }));
  const items = objects.map(textOf).join(',');
  const { resource } = kind;
  return `${header(`${resource.kind}List`, apiVersionOf(resource))}"metadata":${JSON.stringify(meta)},"items":[${items}]}`;
}

/** What the client prefers of what there is, by its Accept header. */
export function formatOf(accept: string | undefined, includeObject: string | null): Format {
  const wanted = (accept ?? '').split(',').find((part) => /application\/json|\*\/\*/.test(part));
  if (!wanted?.includes('as=Table')) return undefined;
  return { table: includeObject === 'Object' || includeObject === 'None' ? includeObject : 'Metadata' };
}

/** What comes in, as it is kept. */
export function stripped({ apiVersion: _, kind: __, ...kept }: Obj): Obj {
  return kept as Obj;
}
