// Objects as they go over the wire: with apiVersion and kind, or as rows of a table.
import { apiVersionOf } from '../kube/api-path.ts';
import type { Kind, Obj } from './kinds.ts';
import type { ApiRequest } from './request.ts';
import { type IncludeObject, tableOf } from './tables.ts';

/** What goes out, with the time by which ages are told; no table: objects as they are. */
export interface Format {
  readonly nowMs: number;
  readonly table: IncludeObject | undefined;
}

/** What the client prefers of what there is, by its Accept header. */
export function formatOf({ header, query }: ApiRequest, nowMs: number): Format {
  const wanted = header('accept')
    ?.split(',')
    .find((part) => /application\/json|\*\/\*/.test(part));
  const table = query.get('includeObject') === 'Object' ? 'Object' : 'Metadata';
  return { nowMs, table: wanted?.includes('as=Table') ? table : undefined };
}

const texts = new WeakMap<Obj, string>();

/** JSON of what is kept, made once for each object however many watch it. */
function textOf(object: Obj): string {
  const text = texts.get(object) ?? JSON.stringify(object);
  texts.set(object, text);
  return text;
}

const header = (kind: string, apiVersion: string): string => `{"kind":"${kind}","apiVersion":"${apiVersion}",`;

export function encodeObject(kind: Kind, object: Obj, format: Format, head = true): string {
  const { resourceVersion = '' } = object.metadata;
  if (format.table) return JSON.stringify(tableOf(kind, [object], resourceVersion, { ...format, head }));
  return `${header(kind.resource.kind, apiVersionOf(kind.resource))}${textOf(object).slice(1)}`;
}

export function encodeList(kind: Kind, objects: readonly Obj[], resourceVersion: string, format: Format): string {
  if (format.table) return JSON.stringify(tableOf(kind, objects, resourceVersion, { ...format, head: true }));
  const { resource } = kind;
  const start = header(`${resource.kind}List`, apiVersionOf(resource));
  return `${start}"metadata":${JSON.stringify({ resourceVersion })},"items":[${objects.map(textOf).join(',')}]}`;
}

/** What comes in, as it is kept. */
export const stripped = ({ apiVersion: _, kind: __, ...kept }: Obj): Obj => kept as Obj;
