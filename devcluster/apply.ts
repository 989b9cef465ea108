// Server-side apply, as far as kubectl and small controllers need it: who applied which field is kept (for applies, not for updates), fields
// that an applier no longer names go away, and two appliers that differ over a field conflict unless one of them forces.
import { isDeepStrictEqual } from 'node:util';
import { applyStrategicMergePatch } from '../kube/strategic-merge.ts';
import { type PatchSchema, patchSchemaOf, primitiveSet } from '../kube/strategic-schema.ts';
import { badRequest, type Cause, Failure } from './failure.ts';
import { apiVersionOf, type Kind } from './kinds.ts';
import { timestamp } from './names.ts';
import type { Obj } from './store.ts';

/** Kubernetes' FieldsV1: `f:` a field, `k:` an item by its key, `v:` an item by its value, `.` the item itself. */
interface Fields {
  [part: string]: Fields;
}

interface ManagedFields {
  manager: string;
  operation: 'Apply' | 'Update';
  apiVersion: string;
  time: string;
  fieldsType: 'FieldsV1';
  fieldsV1: Fields;
}

type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export interface ApplyOptions {
  readonly fieldManager: string;
  readonly force: boolean;
  readonly now: number;
}

export function serverSideApply(kind: Kind, current: Obj | undefined, applied: Obj, options: ApplyOptions): Obj {
  if (!isObject(applied) || !isObject(applied.metadata)) throw badRequest('the applied object has no metadata');
  if (!options.fieldManager)
    throw badRequest(
      'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    );
  if ((applied.metadata as Json).managedFields) throw badRequest('metadata.managedFields must be nil');
  const schema = patchSchemaOf(kind.resource.kind);
  const fields = fieldsOf(withoutIdentity(applied), schema);
  const entries = (current?.metadata.managedFields ?? []) as ManagedFields[];
  const own = entries.find((entry) => entry.manager === options.fieldManager && entry.operation === 'Apply');
  let others = entries.filter((entry) => entry !== own);
  if (current) {
    const clashes = others.flatMap((entry) =>
      clashing(entry.fieldsV1, fields, current, applied, schema, '').map((path) => ({ path, manager: entry.manager })),
    );
    if (clashes.length > 0 && !options.force) throw applyConflict(clashes);
    if (clashes.length > 0) others = others.map((entry) => ({ ...entry, fieldsV1: minus(entry.fieldsV1, fields) }));
  }
  const base: Json = current ? structuredClone(current) : {};
  if (own)
    removeDropped(
      base,
      own.fieldsV1,
      fields,
      others.map((entry) => entry.fieldsV1),
      schema,
    );
  const merged = applyStrategicMergePatch(base, applied, schema) as Obj;
  const entry: ManagedFields = {
    manager: options.fieldManager,
    operation: 'Apply',
    apiVersion: apiVersionOf(kind.resource),
    time: own && isDeepStrictEqual(own.fieldsV1, fields) ? own.time : timestamp(options.now),
    fieldsType: 'FieldsV1',
    fieldsV1: fields,
  };
  return { ...merged, metadata: { ...merged.metadata, managedFields: [...others, entry] } };
}

function withoutIdentity({ apiVersion: _, kind: __, metadata, ...rest }: Obj): Json {
  const { name: ___, namespace: ____, uid: _____, resourceVersion: ______, ...meta } = metadata;
  return { ...rest, ...(Object.keys(meta).length > 0 ? { metadata: meta } : {}) };
}

const itemPart = (item: unknown, key: string): string =>
  key === primitiveSet ? `v:${JSON.stringify(item)}` : `k:${JSON.stringify({ [key]: (item as Json)[key] })}`;

function fieldsOf(value: unknown, schema: PatchSchema): Fields {
  const fields: Fields = {};
  if (isObject(value))
    for (const [name, field] of Object.entries(value))
      fields[`f:${name}`] = fieldsOf(field, schema.fields?.[name] ?? {});
  else if (Array.isArray(value) && schema.mergeBy)
    for (const item of value)
      fields[itemPart(item, schema.mergeBy)] =
        schema.mergeBy === primitiveSet ? {} : { '.': {}, ...fieldsOf(item, schema.items ?? {}) };
  return fields;
}

const isLeaf = (fields: Fields): boolean => Object.keys(fields).every((part) => part === '.');

const child = (value: unknown, part: string, schema: PatchSchema): [unknown, PatchSchema] => {
  if (part.startsWith('f:'))
    return [(value as Json | undefined)?.[part.slice(2)], schema.fields?.[part.slice(2)] ?? {}];
  const list = Array.isArray(value) ? value : [];
  return [list.find((item) => schema.mergeBy && itemPart(item, schema.mergeBy) === part), schema.items ?? {}];
};

// Paths that both own and that the applied object would change.
function clashing(
  theirs: Fields,
  ours: Fields,
  current: unknown,
  applied: unknown,
  schema: PatchSchema,
  path: string,
): string[] {
  return Object.keys(ours).flatMap((part) => {
    const [a, b] = [theirs[part], ours[part]!];
    if (!a || part === '.') return [];
    const [before, next] = child(current, part, schema);
    const [after] = child(applied, part, schema);
    const where = `${path}${part.startsWith('f:') ? `.${part.slice(2)}` : `[${part.slice(2)}]`}`;
    if (isLeaf(a) || isLeaf(b)) return part.startsWith('v:') || isDeepStrictEqual(before, after) ? [] : [where];
    return clashing(a, b, before, after, next, where);
  });
}

function applyConflict(clashes: readonly { path: string; manager: string }[]): Failure {
  const causes = clashes.map(
    ({ path, manager }): Cause => ({
      reason: 'FieldManagerConflict',
      field: path,
      message: `conflict with "${manager}"`,
    }),
  );
  const [first] = clashes;
  const message =
    clashes.length === 1
      ? `Apply failed with 1 conflict: conflict with "${first!.manager}": ${first!.path}`
      : `Apply failed with ${clashes.length} conflicts: conflicts with ${clashes.map(({ manager, path }) => `"${manager}": ${path}`).join(', ')}`;
  return new Failure(409, 'Conflict', message, { causes });
}

function minus(from: Fields, taken: Fields): Fields {
  const left: Fields = {};
  for (const [part, fields] of Object.entries(from)) {
    const other = taken[part];
    if (!other) left[part] = fields;
    else if (!isLeaf(fields) && !isLeaf(other)) {
      const rest = minus(fields, other);
      if (Object.keys(rest).length > 0) left[part] = rest;
    }
  }
  return left;
}

function removeDropped(
  target: unknown,
  before: Fields,
  now: Fields,
  others: readonly Fields[],
  schema: PatchSchema,
): void {
  for (const [part, fields] of Object.entries(before)) {
    if (part === '.') continue;
    const kept = now[part];
    const theirs = others.flatMap((other) => (other[part] ? [other[part]] : []));
    const [value, next] = child(target, part, schema);
    if (value === undefined || (kept && isLeaf(fields))) continue;
    if (!isLeaf(fields)) removeDropped(value, fields, kept ?? {}, theirs, next);
    if (kept || theirs.length > 0) continue;
    if (part.startsWith('f:')) {
      const empty = isObject(value) ? Object.keys(value).length === 0 : Array.isArray(value) && value.length === 0;
      if (isLeaf(fields) || empty) delete (target as Json)[part.slice(2)];
    } else if (Array.isArray(target)) target.splice(target.indexOf(value), 1);
  }
}
