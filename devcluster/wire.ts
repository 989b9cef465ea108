// Objects as they go over the wire: with apiVersion and kind, as full objects, as metadata only, or as rows of a table.
import { apiVersionOf, type Kind } from './kinds.ts';
import type { Obj } from './store.ts';
import { tableOf } from './tables.ts';

export interface Format {
  readonly as: 'object' | 'table' | 'metadata';
  readonly includeObject: 'Metadata' | 'Object' | 'None';
}

const texts = new WeakMap<Obj, string>();

/** JSON of what is kept, made once for each object however many watch it. */
function textOf(object: Obj): string {
  const known = texts.get(object);
  if (known !== undefined) return known;
  const text = JSON.stringify(object);
  texts.set(object, text);
  return text;
}

const header = (kind: string, apiVersion: string): string => `{"kind":"${kind}","apiVersion":"${apiVersion}",`;

export function encodeObject(kind: Kind, object: Obj, format: Format, nowMs: number, first = true): string {
  const { resource } = kind;
  switch (format.as) {
    case 'table':
      return JSON.stringify(tableOf(kind, [toView(kind, object)], object.metadata, format.includeObject, nowMs, first));
    case 'metadata':
      return `${header('PartialObjectMetadata', 'meta.k8s.io/v1')}"metadata":${JSON.stringify(object.metadata)}}`;
    case 'object': {
      const view = toView(kind, object);
      const text = view === object ? textOf(object) : JSON.stringify(view);
      return `${header(resource.kind, apiVersionOf(resource))}${text.slice(1)}`;
    }
  }
}

export function encodeList(
  kind: Kind,
  objects: readonly Obj[],
  metadata: { resourceVersion: string; continue?: string; remainingItemCount?: number },
  format: Format,
  nowMs: number,
): string {
  const views = (): Obj[] => objects.map((object) => toView(kind, object));
  if (format.as === 'table') return JSON.stringify(tableOf(kind, views(), metadata, format.includeObject, nowMs, true));
  const meta = JSON.stringify(metadata);
  if (format.as === 'metadata') {
    const items = objects.map((object) => encodeObject(kind, object, format, nowMs)).join(',');
    return `${header('PartialObjectMetadataList', 'meta.k8s.io/v1')}"metadata":${meta},"items":[${items}]}`;
  }
  const items = objects.map((object) => {
    const view = toView(kind, object);
    return view === object ? textOf(object) : JSON.stringify(view);
  });
  return `${header(`${kind.resource.kind}List`, apiVersionOf(kind.resource))}"metadata":${meta},"items":[${items.join(',')}]}`;
}

/** Reads the Accept header: what the client prefers of what there is. */
export function formatOf(accept: string | undefined, includeObject: string | null): Format {
  const include = includeObject === 'Object' || includeObject === 'None' ? includeObject : 'Metadata';
  for (const part of (accept ?? '').split(',')) {
    if (part.includes('protobuf') || part.includes('cbor')) continue;
    if (/as=Table/.test(part)) return { as: 'table', includeObject: include };
    if (/as=PartialObjectMetadata/.test(part)) return { as: 'metadata', includeObject: include };
    if (/application\/json|\*\/\*/.test(part)) break;
  }
  return { as: 'object', includeObject: include };
}

// events.k8s.io/v1 names some fields of a core Event differently; what is kept is the core form.
const eventFields = [
  ['involvedObject', 'regarding'],
  ['message', 'note'],
  ['source', 'deprecatedSource'],
  ['firstTimestamp', 'deprecatedFirstTimestamp'],
  ['lastTimestamp', 'deprecatedLastTimestamp'],
  ['count', 'deprecatedCount'],
  ['reportingComponent', 'reportingController'],
] as const;

const renamed = (object: Obj, pairs: readonly (readonly [string, string])[]): Obj => {
  const result: Record<string, unknown> = { ...object };
  for (const [from, to] of pairs) {
    if (!(from in result)) continue;
    result[to] = result[from];
    delete result[from];
  }
  return result as Obj;
};

const isEventV1 = ({ resource }: Kind): boolean => resource.group === 'events.k8s.io';

export const toView = (kind: Kind, object: Obj): Obj => (isEventV1(kind) ? renamed(object, eventFields) : object);

/** What comes in, as it is kept. */
export function fromView(kind: Kind, object: Obj): Obj {
  const { apiVersion: _, kind: __, ...rest } = object;
  const kept = rest as Obj;
  return isEventV1(kind)
    ? renamed(
        kept,
        eventFields.map(([core, v1]) => [v1, core] as const),
      )
    : kept;
}
