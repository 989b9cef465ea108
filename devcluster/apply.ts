// Server-side apply, as far as kubectl and small controllers need it: who applied which field is kept (for applies, not for updates), fields
// that an applier no longer names go away, and two appliers that differ over a field conflict unless one of them forces.
import { isDeepStrictEqual } from 'node:util';
import { applyStrategicMergePatch } from '../kube/strategic-merge.ts';
import { type PatchSchema, patchSchemaOf, primitiveSet } from '../kube/strategic-schema.ts';
import { badRequest, Failure } from './failure.ts';
import { apiVersionOf, type Kind } from './kinds.ts';
import { timestamp } from './names.ts';
import type { Obj } from './store.ts';

/** Kubernetes' FieldsV1: `f:` a field, `k:` an item by its key, `v:` an item by its value, `.` the item itself. */
interface Fields {
  [part: string]: Fields;
}

/** From the object down to one field, in the parts of FieldsV1. */
type Path = readonly string[];

interface ManagedFields {
  readonly manager: string;
  readonly operation: 'Apply' | 'Update';
  readonly apiVersion: string;
  readonly time: string;
  readonly fieldsType: 'FieldsV1';
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
  const ours = pathsOf(applied, schema).filter((path) => !identity.includes(path.slice(0, 2).join('.')));
  const named = new Set(ours.map(textOf));
  const entries = (current?.metadata.managedFields ?? []) as ManagedFields[];
  const own = entries.find((entry) => entry.manager === manager && entry.operation === 'Apply');
  let others = entries.filter((entry) => entry !== own);
  const differs = (path: Path): boolean =>
    path.at(-1) !== '.' && !isDeepStrictEqual(reach(current, path, schema), reach(applied, path, schema));
  const clashes = others.flatMap((entry) =>
    leavesOf(entry.fieldsV1)
      .filter((path) => named.has(textOf(path)) && differs(path))
      .map((path) => ({ field: fieldOf(path), manager: entry.manager })),
  );
  if (clashes.length > 0 && !force) throw applyConflict(clashes);
  if (clashes.length > 0)
    others = others.map((entry) => {
      const left = leavesOf(entry.fieldsV1).filter((path) => !named.has(textOf(path)) || !differs(path));
      return { ...entry, fieldsV1: treeOf(left) };
    });
  const base: Json = structuredClone(current ?? {});
  const kept = new Set([...named, ...others.flatMap((entry) => leavesOf(entry.fieldsV1).map(textOf))]);
  for (const path of own ? leavesOf(own.fieldsV1) : []) if (!kept.has(textOf(path))) drop(base, path, schema);
  const merged = applyStrategicMergePatch(base, applied, schema) as Obj;
  const fieldsV1 = treeOf(ours);
  const time = own && isDeepStrictEqual(own.fieldsV1, fieldsV1) ? own.time : timestamp(now);
  const apiVersion = apiVersionOf(kind.resource);
  const entry: ManagedFields = { manager, operation: 'Apply', apiVersion, time, fieldsType: 'FieldsV1', fieldsV1 };
  return { ...merged, metadata: { ...merged.metadata, managedFields: [...others, entry] } };
}

const ids = ['name', 'namespace', 'uid', 'resourceVersion'].map((name) => `f:metadata.f:${name}`);
const identity = ['f:apiVersion', 'f:kind', ...ids];

const textOf = (path: Path): string => path.join('\n');
const fieldOf = (path: Path): string =>
  path.map((part) => (part.startsWith('f:') ? `.${part.slice(2)}` : `[${part.slice(2)}]`)).join('');

const itemPart = (item: unknown, key: string): string =>
  key === primitiveSet ? `v:${JSON.stringify(item)}` : `k:${JSON.stringify({ [key]: (item as Json)[key] })}`;

function pathsOf(value: unknown, schema: PatchSchema, above: Path = []): Path[] {
  const { mergeBy, items = {}, fields = {} } = schema;
  if (isObject(value) && Object.keys(value).length > 0)
    return Object.entries(value).flatMap(([name, field]) =>
      pathsOf(field, fields[name] ?? {}, [...above, `f:${name}`]),
    );
  if (!Array.isArray(value) || !mergeBy) return [above];
  return value.flatMap((item) => {
    const here = [...above, itemPart(item, mergeBy)];
    return mergeBy === primitiveSet ? [here] : [[...here, '.'], ...pathsOf(item, items, here)];
  });
}

function treeOf(paths: readonly Path[]): Fields {
  const root: Fields = {};
  for (const path of paths) {
    let inside = root;
    for (const part of path) {
      inside[part] ??= {};
      inside = inside[part];
    }
  }
  return root;
}

const leavesOf = (fields: Fields, above: Path = []): Path[] =>
  Object.entries(fields).flatMap(([part, inside]) => {
    const here = [...above, part];
    return Object.keys(inside).length === 0 ? [here] : leavesOf(inside, here);
  });

/** What is at the path; undefined where there is nothing. */
function reach(object: unknown, path: Path, schema: PatchSchema): unknown {
  let value = object;
  let known = schema;
  for (const part of path) {
    const { mergeBy = '', items = {}, fields = {} } = known;
    const name = part.slice(2);
    if (part.startsWith('f:')) [value, known] = [(value as Json | undefined)?.[name], fields[name] ?? {}];
    else if (part !== '.')
      [value, known] = [
        Array.isArray(value) ? value.find((item) => itemPart(item, mergeBy) === part) : undefined,
        items,
      ];
  }
  return value;
}

/** Takes away what is at the path, and what holds it where that is empty then. */
function drop(object: Json, path: Path, schema: PatchSchema): void {
  const where = path.at(-1) === '.' ? path.slice(0, -1) : path;
  const above = where.slice(0, -1);
  const holder = reach(object, above, schema);
  if (Array.isArray(holder)) {
    const at = holder.indexOf(reach(object, where, schema));
    if (at >= 0) holder.splice(at, 1);
  }
  if (isObject(holder)) delete holder[where.at(-1)!.slice(2)];
  if (holder && Object.keys(holder).length === 0 && above.at(-1)?.startsWith('f:')) drop(object, above, schema);
}

function applyConflict(clashes: readonly { field: string; manager: string }[]): Failure {
  const causes = clashes.map(({ field, manager }) => ({
    reason: 'FieldManagerConflict',
    field,
    message: `conflict with "${manager}"`,
  }));
  const told = causes.map(({ message, field }) => `${message}: ${field}`).join(', ');
  const count = causes.length === 1 ? '1 conflict' : `${causes.length} conflicts`;
  return new Failure(409, 'Conflict', `Apply failed with ${count}: ${told}`, { causes });
}
