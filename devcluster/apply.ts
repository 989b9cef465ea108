// Server-side apply, as far as kubectl and small controllers need it: who applied which field is kept (for applies, not for updates), fields
// that an applier no longer names go away, and two appliers that differ over a field conflict unless one of them forces.
import { isDeepStrictEqual } from 'node:util';
import { apiVersionOf } from '../kube/api-path.ts';
import { applyStrategicMergePatch } from '../kube/strategic-merge.ts';
import { type PatchSchema, patchSchemaOf, primitiveSet } from '../kube/strategic-schema.ts';
import { badRequest, Failure } from './failure.ts';
import type { Kind, Obj } from './kinds.ts';
import { timestamp } from './names.ts';

/** Kubernetes' FieldsV1: `f:` a field, `k:` an item by its key, `v:` an item by its value, `.` the item itself. */
interface Fields {
  [part: string]: Fields;
}

interface ManagedFields {
  readonly manager: string;
  readonly operation: string;
  readonly time: string;
  readonly fieldsV1: Fields;
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
  const { fieldManager: manager, force, now } = options;
  if (!isObject(applied) || !isObject(applied.metadata)) throw badRequest('the applied object has no metadata');
  if (!manager) throw badRequest('fieldManager: Required value: is required for apply patch');
  if (applied.metadata.managedFields) throw badRequest('metadata.managedFields must be nil');
  const schema = patchSchemaOf(kind.resource.kind);
  const ours = minus(fieldsOf(applied, schema), identity);
  const entries = (current?.metadata.managedFields ?? []) as ManagedFields[];
  const own = entries.find((entry) => entry.manager === manager && entry.operation === 'Apply');
  let others = entries.filter((entry) => entry !== own);
  const base: Json = structuredClone(current ?? {});
  prune(base, [ours, ...others.map(({ fieldsV1 }) => fieldsV1)].reduce(minus, own?.fieldsV1 ?? {}), schema);
  const merged = applyStrategicMergePatch(base, applied, schema) as Obj;
  const conflicts = others.flatMap((entry) => {
    const fields = changesOf(entry.fieldsV1, current, merged, schema);
    return fields.map((field) => ({
      reason: 'FieldManagerConflict',
      field,
      message: `conflict with "${entry.manager}"`,
    }));
  });
  if (conflicts.length > 0 && !force) {
    const count = conflicts.length === 1 ? '1 conflict' : `${conflicts.length} conflicts`;
    const told = conflicts.map(({ message, field }) => `${message}: ${field}`).join(', ');
    throw new Failure(409, 'Conflict', `Apply failed with ${count}: ${told}`, { causes: conflicts });
  }
  if (conflicts.length > 0) others = others.map((entry) => ({ ...entry, fieldsV1: minus(entry.fieldsV1, ours) }));
  const time = own && isDeepStrictEqual(own.fieldsV1, ours) ? own.time : timestamp(now);
  const apiVersion = apiVersionOf(kind.resource);
  const entry = {
    manager,
    operation: 'Apply',
    apiVersion,
    time,
    fieldsType: 'FieldsV1',
    fieldsV1: ours,
  };
  return { ...merged, metadata: { ...merged.metadata, managedFields: [...others, entry] } };
}

/** Who an object is, nobody owns. */
const identity: Fields = {
  'f:apiVersion': {},
  'f:kind': {},
  'f:metadata': { 'f:name': {}, 'f:namespace': {}, 'f:uid': {}, 'f:resourceVersion': {} },
};

const isEmpty = (value: object): boolean => Object.keys(value).length === 0;

const itemPart = (item: unknown, key: string): string =>
  key === primitiveSet ? `v:${JSON.stringify(item)}` : `k:${JSON.stringify({ [key]: (item as Json)[key] })}`;

function fieldsOf(value: unknown, { mergeBy, items = {}, fields = {} }: PatchSchema): Fields {
  if (isObject(value))
    return Object.fromEntries(
      Object.entries(value).map(([name, field]) => [`f:${name}`, fieldsOf(field, fields[name] ?? {})]),
    );
  if (!Array.isArray(value) || !mergeBy) return {};
  const below = (item: unknown): Fields => (mergeBy === primitiveSet ? {} : { '.': {}, ...fieldsOf(item, items) });
  return Object.fromEntries(value.map((item) => [itemPart(item, mergeBy), below(item)]));
}

/** What the first has and the second has not. */
function minus(from: Fields, taken: Fields): Fields {
  const left: Fields = {};
  for (const [part, inside] of Object.entries(from)) {
    const same = taken[part];
    const rest = same && !isEmpty(same) ? minus(inside, same) : {};
    if (!same || !isEmpty(rest)) left[part] = same ? rest : inside;
  }
  return left;
}

/** What is at one part of a value, and the schema of that. */
function step(value: unknown, part: string, { mergeBy = '', items = {}, fields = {} }: PatchSchema) {
  const name = part.slice(2);
  if (part.startsWith('f:')) return { inside: (value as Json | undefined)?.[name], schema: fields[name] ?? {} };
  const list = Array.isArray(value) ? value : [];
  return { inside: list.find((item) => itemPart(item, mergeBy) === part) as unknown, schema: items };
}

/** Which of these fields have another value after than before, as they are told to people. */
function changesOf(fields: Fields, before: unknown, after: unknown, schema: PatchSchema, above = ''): string[] {
  return Object.entries(fields).flatMap(([part, below]) => {
    const here = above + (part.startsWith('f:') ? `.${part.slice(2)}` : `[${part.slice(2)}]`);
    const [was, is] = [step(before, part, schema), step(after, part, schema)];
    if (!isEmpty(below)) return changesOf(below, was.inside, is.inside, was.schema, here);
    return part === '.' || isDeepStrictEqual(was.inside, is.inside) ? [] : [here];
  });
}

/** Takes these fields away, and what holds them where that is empty then. */
function prune(holder: object, fields: Fields, schema: PatchSchema): void {
  for (const [part, below] of Object.entries(fields)) {
    const found = step(holder, part, schema);
    const whole = isEmpty(below) || '.' in below;
    if (found.inside === undefined) continue;
    if (!whole) prune(found.inside as object, below, found.schema);
    if (!whole && !isEmpty(found.inside as object)) continue;
    if (Array.isArray(holder)) holder.splice(holder.indexOf(found.inside), 1);
    else delete (holder as Json)[part.slice(2)];
  }
}
