// Reads a valibot schema and a configuration with every default in it, and returns a row for each field.
import { isDeepStrictEqual } from 'node:util';

export interface FieldRow {
  /** `authentication.x509.clientCAFile`. */
  readonly path: string;
  readonly type: string;
  /** As YAML on one line; empty: none. */
  readonly fallback: string;
}

interface Schema {
  readonly type: string;
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly wrapped?: Schema;
  readonly pipe?: readonly (Schema & { readonly requirement?: unknown; readonly kind?: string })[];
  readonly options?: readonly unknown[];
  readonly item?: Schema;
  readonly value?: Schema;
  readonly literal?: unknown;
  readonly message?: unknown;
  readonly default?: unknown;
}

const wrappers = new Set(['optional', 'exact_optional', 'nullable', 'nullish', 'undefinedable']);

/** The schema inside `optional` and the first of a `pipe`. */
function inner(schema: Schema): Schema {
  if (wrappers.has(schema.type) && schema.wrapped) return inner(schema.wrapped);
  const first = schema.pipe?.[0];
  return first && first !== schema && first.kind === 'schema' && wrappers.has(first.type) ? inner(first) : schema;
}

/** Durations are texts that a check with these words guards. */
const isDuration = (schema: Schema): boolean => {
  const words = (each: { readonly message?: unknown; readonly pipe?: readonly unknown[] }): boolean =>
    String(typeof each.message === 'function' ? each.message({ received: '' }) : each.message).includes('duration');
  const parts = [
    schema,
    ...(schema.pipe ?? []),
    ...(schema.wrapped ? [schema.wrapped, ...(schema.wrapped.pipe ?? [])] : []),
  ];
  return (
    parts.some(words) ||
    (schema.wrapped !== undefined && isDuration(schema.wrapped)) ||
    (schema.pipe?.[0] !== undefined &&
      schema.pipe[0] !== schema &&
      schema.pipe[0].type !== schema.type &&
      isDuration(schema.pipe[0]))
  );
};

function typeOf(schema: Schema): string {
  if (isDuration(schema)) return 'duration';
  const it = inner(schema);
  switch (it.type) {
    case 'strict_object':
    case 'object':
    case 'loose_object':
      return 'map';
    case 'picklist':
      return (it.options ?? [])
        .filter((option) => option !== '')
        .map((option) => `\`${String(option)}\``)
        .join(', ');
    case 'array':
      return `list of ${it.item ? typeOf(it.item) : 'anything'}`;
    case 'record':
      return `map of ${it.value ? typeOf(it.value) : 'anything'}`;
    case 'string':
      return 'text';
    case 'boolean':
      return 'true or false';
    case 'number':
      return range(it);
    case 'union':
      return [...new Set((it.options as Schema[]).map(typeOf))].join(' or ');
    case 'literal':
      return `\`${String(it.literal)}\``;
    case 'unknown':
    case 'any':
      return 'anything';
    default:
      throw new Error(`a schema of type ${it.type} has no words yet`);
  }
}

function range(schema: Schema): string {
  const bound = (type: string): number | undefined => {
    const found = schema.pipe?.find((each) => each.type === type)?.requirement;
    return typeof found === 'number' ? found : undefined;
  };
  const [min, max] = [bound('min_value'), bound('max_value')];
  const open = max === undefined || max >= 2 ** 31 - 1;
  if (min === undefined || (open && min <= -(2 ** 31))) return 'number';
  return open ? `number from ${min}` : `number from ${min} to ${max}`;
}

/** Milliseconds as Go writes them. */
export function goDuration(ms: number): string {
  if (ms === 0) return '0s';
  const parts: string[] = [];
  let rest = ms;
  for (const [unit, size] of [
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1000],
    ['ms', 1],
  ] as const) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count}${unit}`);
  }
  return parts.join('');
}

function fallbackOf(schema: Schema, value: unknown): string {
  if (value === undefined || value === null || value === '') return '';
  if (isDuration(schema) && typeof value === 'number') return goDuration(value);
  return typeof value === 'string' ? value : JSON.stringify(value);
}

const at = (value: unknown, key: string): unknown =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;

/** Rows in the schema's order; maps with fields of their own are taken apart. */
export function fieldRows(schema: unknown, values: unknown, prefix = ''): FieldRow[] {
  const { entries } = inner(schema as Schema);
  if (!entries) throw new Error('only a map with known fields can be taken apart');
  return Object.entries(entries).flatMap(([name, field]) => {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    const it = inner(field);
    const value = at(values, name);
    if (it.entries && Object.keys(it.entries).length > 0) return fieldRows(it, value, path);
    const rows: FieldRow[] = [
      {
        path,
        type: typeOf(field),
        fallback: isDeepStrictEqual(value, {}) || isDeepStrictEqual(value, []) ? '' : fallbackOf(field, value),
      },
    ];
    // The fields of a list's items, without defaults.
    if (it.type === 'array' && it.item && inner(it.item).entries)
      rows.push(...fieldRows(it.item, undefined, `${path}[]`));
    return rows;
  });
}
