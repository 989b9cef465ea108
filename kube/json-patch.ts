// JSON patch (RFC 6902), applied to plain JSON. Pure: the target is not changed.
import { isDeepStrictEqual } from 'node:util';

/** A patch that cannot be applied; the API answers 400 or 422 to it. */
export class PatchError extends Error {
  override name = 'PatchError';
  /** `invalid`: the patch makes no sense. `failed`: it does, but not on this object (a failed `test`, a path that is not there). */
  readonly code: 'invalid' | 'failed';
  constructor(code: PatchError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export interface JsonPatchOperation {
  readonly op: 'add' | 'remove' | 'replace' | 'move' | 'copy' | 'test';
  readonly path: string;
  readonly from?: string;
  readonly value?: unknown;
}

const operations = ['add', 'remove', 'replace', 'move', 'copy', 'test'];

/** Applies the operations in order. Throws a PatchError: `invalid` for a patch that makes no sense, `failed` where one does not apply. */
export function applyJsonPatch(target: unknown, patch: unknown): unknown {
  if (!Array.isArray(patch)) throw new PatchError('invalid', 'a JSON patch must be a list of operations');
  let result = structuredClone(target);
  for (const operation of patch as readonly JsonPatchOperation[]) {
    if (typeof operation?.path !== 'string' || !operations.includes(operation.op))
      throw new PatchError('invalid', `not a JSON patch operation: ${JSON.stringify(operation)}`);
    result = applyOne(result, operation);
  }
  return result;
}

function applyOne(target: unknown, operation: JsonPatchOperation): unknown {
  const path = parsePointer(operation.path);
  switch (operation.op) {
    case 'add':
      return add(target, path, newValue(operation));
    case 'replace':
      read(target, path);
      return path.length === 0 ? newValue(operation) : add(remove(target, path), path, newValue(operation));
    case 'remove':
      read(target, path);
      return remove(target, path);
    case 'copy':
      return add(target, path, structuredClone(read(target, fromOf(operation))));
    case 'move': {
      const from = fromOf(operation);
      if (path.length > from.length && from.every((part, at) => part === path[at]))
        throw new PatchError('invalid', `cannot move ${operation.from} into itself`);
      const value = read(target, from);
      return add(remove(target, from), path, value);
    }
    case 'test':
      if (!isDeepStrictEqual(read(target, path), operation.value))
        throw new PatchError('failed', `testing value ${operation.path} failed`);
      return target;
  }
}

const newValue = (operation: JsonPatchOperation): unknown => {
  if (operation.value === undefined) throw new PatchError('invalid', `${operation.op} ${operation.path} has no value`);
  return structuredClone(operation.value);
};

const fromOf = (operation: JsonPatchOperation): string[] => {
  if (typeof operation.from !== 'string')
    throw new PatchError('invalid', `${operation.op} ${operation.path} has no from`);
  return parsePointer(operation.from);
};

function parsePointer(pointer: string): string[] {
  if (pointer === '') return [];
  if (!pointer.startsWith('/')) throw new PatchError('invalid', `not a JSON pointer: ${JSON.stringify(pointer)}`);
  return pointer
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const missing = (path: readonly string[]): PatchError =>
  new PatchError('failed', `the path /${path.join('/')} is not there`);

function indexIn(list: readonly unknown[], part: string, limit: number, path: readonly string[]): number {
  if (!/^(0|[1-9]\d*)$/.test(part) || Number(part) > limit || list.length > 1e6) throw missing(path);
  return Number(part);
}

function read(target: unknown, path: readonly string[]): unknown {
  let value = target;
  for (const part of path) {
    if (Array.isArray(value)) value = value[indexIn(value, part, value.length - 1, path)];
    else if (isObject(value) && Object.hasOwn(value, part)) value = value[part];
    else throw missing(path);
  }
  return value;
}

function add(target: unknown, path: readonly string[], value: unknown): unknown {
  const last = path.at(-1);
  if (last === undefined) return value;
  const parent = read(target, path.slice(0, -1));
  if (Array.isArray(parent))
    parent.splice(last === '-' ? parent.length : indexIn(parent, last, parent.length, path), 0, value);
  else if (isObject(parent))
    Object.defineProperty(parent, last, { value, enumerable: true, configurable: true, writable: true });
  else throw missing(path);
  return target;
}

function remove(target: unknown, path: readonly string[]): unknown {
  const last = path.at(-1);
  if (last === undefined) return null;
  const parent = read(target, path.slice(0, -1));
  if (Array.isArray(parent)) parent.splice(indexIn(parent, last, parent.length - 1, path), 1);
  else if (isObject(parent)) delete parent[last];
  return target;
}
