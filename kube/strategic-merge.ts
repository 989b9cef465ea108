// Two patches of the Kubernetes API, applied to plain JSON: JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch
// (json-patch.ts has the third). Pure: neither argument is changed, and what is untouched is shared with the target.
import { PatchError } from './json-patch.ts';
import { type PatchSchema, patchSchemaOf, primitiveSet } from './strategic-schema.ts';

export { applyJsonPatch, PatchError } from './json-patch.ts';

type JsonObject = Record<string, unknown>;

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** RFC 7386: null deletes, objects merge, everything else replaces. */
export function applyMergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const result: JsonObject = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else put(result, key, applyMergePatch(result[key], value));
  }
  return result;
}

// A key such as __proto__ must become a key, not a prototype.
function put(object: JsonObject, key: string, value: unknown): void {
  if (key === '__proto__')
    Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
  else object[key] = value;
}

const directive = {
  patch: '$patch',
  retainKeys: '$retainKeys',
  setElementOrder: '$setElementOrder/',
  deleteFromPrimitiveList: '$deleteFromPrimitiveList/',
} as const;

/**
 * Applies a strategic merge patch. `schema` is a kind (`Pod`) or a schema of its own. Throws a PatchError where a directive makes no
 * sense or an item of a merged list lacks its merge key.
 */
export function applyStrategicMergePatch(target: unknown, patch: unknown, schema: string | PatchSchema): unknown {
  if (!isObject(patch)) throw new PatchError('invalid', 'a strategic merge patch must be an object');
  return mergeObjects(
    isObject(target) ? target : {},
    patch,
    typeof schema === 'string' ? patchSchemaOf(schema) : schema,
  );
}

function mergeObjects(target: JsonObject, patch: JsonObject, schema: PatchSchema): JsonObject {
  const how = patch[directive.patch];
  if (how === 'replace') return withoutDirectives(without(patch, directive.patch)) as JsonObject;
  if (how === 'delete') return {};
  if (how !== undefined && how !== 'merge')
    throw new PatchError(
      'invalid',
      `unknown $patch directive ${JSON.stringify(how)}: expected replace, delete or merge`,
    );
  const result: JsonObject = retainKeys(target, patch);
  const fieldOf = (name: string): PatchSchema => schema.fields?.[name] ?? {};
  const orders = new Map<string, unknown[]>();
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith(directive.setElementOrder)) {
      if (!Array.isArray(value)) throw new PatchError('invalid', `${key} must be a list`);
      orders.set(key.slice(directive.setElementOrder.length), value);
    } else if (key.startsWith(directive.deleteFromPrimitiveList)) {
      const name = key.slice(directive.deleteFromPrimitiveList.length);
      const list = result[name];
      if (!Array.isArray(value)) throw new PatchError('invalid', `${key} must be a list`);
      if (Array.isArray(list)) result[name] = list.filter((item) => !value.includes(item));
    }
  }
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith('$')) continue;
    if (value === null) delete result[key];
    else put(result, key, mergeValues(key, result[key], value, fieldOf(key), orders.get(key)));
  }
  for (const [key, order] of orders) {
    const list = result[key];
    if (patch[key] !== undefined || !Array.isArray(list)) continue;
    result[key] = arrange(list, list, order, fieldOf(key).mergeBy ?? primitiveSet);
  }
  return result;
}

function retainKeys(target: JsonObject, patch: JsonObject): JsonObject {
  const keep = patch[directive.retainKeys];
  if (keep === undefined) return { ...target };
  if (!Array.isArray(keep)) throw new PatchError('invalid', '$retainKeys must be a list');
  for (const [key, value] of Object.entries(patch))
    if (!key.startsWith('$') && value !== null && !keep.includes(key))
      throw new PatchError('invalid', `$retainKeys does not name ${key}, which the patch sets`);
  return Object.fromEntries(Object.entries(target).filter(([key]) => keep.includes(key)));
}

function mergeValues(name: string, target: unknown, patch: unknown, schema: PatchSchema, order?: unknown[]): unknown {
  if (isObject(patch)) return mergeObjects(isObject(target) ? target : {}, patch, schema);
  if (!Array.isArray(patch)) return patch;
  if (schema.mergeBy === undefined) return withoutDirectives(patch);
  return mergeLists(name, Array.isArray(target) ? target : [], patch, schema, order);
}

function mergeLists(
  name: string,
  target: unknown[],
  patch: unknown[],
  schema: PatchSchema,
  order: unknown[] | undefined,
): unknown[] {
  const key = schema.mergeBy!;
  if (key === primitiveSet) {
    const merged = [...new Set([...target, ...patch])];
    return arrange(merged, target, order ?? patch, key);
  }
  const replaces = patch.some((item) => isObject(item) && item[directive.patch] === 'replace');
  let merged = replaces ? [] : [...target];
  const plain: unknown[] = [];
  for (const item of patch) {
    if (!isObject(item)) throw new PatchError('invalid', `${name}: the items of this list must be objects`);
    const how = item[directive.patch];
    if (how === 'replace') {
      const rest = without(item, directive.patch);
      if (rest[key] !== undefined) merged.push(withoutDirectives(rest));
      continue;
    }
    const value = item[key];
    if (value === undefined)
      throw new PatchError('invalid', `${name}: an item of the patch lacks ${key}, the key this list is merged by`);
    if (how === 'delete') {
      merged = merged.filter((other) => !(isObject(other) && other[key] === value));
      continue;
    }
    plain.push(item);
    const at = merged.findIndex((other) => isObject(other) && other[key] === value);
    const before = at < 0 ? {} : (merged[at] as JsonObject);
    const next = mergeObjects(before, item, schema.items ?? {});
    if (at < 0) merged.push(next);
    else merged[at] = next;
  }
  return arrange(merged, target, order ?? plain, key);
}

// The items that `order` names come in its order; the others keep their place relative to how the target had them.
function arrange(merged: unknown[], target: unknown[], order: unknown[], key: string): unknown[] {
  const idOf = (item: unknown): unknown => (key !== primitiveSet && isObject(item) ? item[key] : item);
  const wanted = order.map(idOf);
  const had = target.map(idOf);
  const named = merged.filter((item) => wanted.includes(idOf(item)));
  named.sort((a, b) => wanted.indexOf(idOf(a)) - wanted.indexOf(idOf(b)));
  const others = merged.filter((item) => !wanted.includes(idOf(item)));
  const result: unknown[] = [];
  let next = 0;
  for (const item of named) {
    const at = had.indexOf(idOf(item));
    while (at >= 0 && next < others.length) {
      const otherAt = had.indexOf(idOf(others[next]));
      if (otherAt < 0 || otherAt > at) break;
      result.push(others[next++]);
    }
    result.push(item);
  }
  return [...result, ...others.slice(next)];
}

const without = (object: JsonObject, key: string): JsonObject => {
  const { [key]: _, ...rest } = object;
  return rest;
};

function withoutDirectives(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutDirectives);
  if (!isObject(value)) return value;
  const kept = Object.entries(value).filter(([key, field]) => !key.startsWith('$') && field !== null);
  return Object.fromEntries(kept.map(([key, field]) => [key, withoutDirectives(field)]));
}
