// Puts a configuration back into the form the API writes: what was read of a schema with durations in milliseconds gets Go's texts again.
import { formatGoDuration } from './go-duration.ts';

/** What is used of valibot's schemas: of an object, an optional one, a list. */
export interface WireSchema {
  readonly entries?: Readonly<Record<string, WireSchema>>;
  readonly wrapped?: WireSchema;
  readonly item?: WireSchema;
}

/** `durations`: the schemas whose values are milliseconds. */
export function onWire(
  schema: WireSchema | undefined,
  durations: Pick<WeakSet<object>, 'has'>,
  value: unknown,
): unknown {
  if (schema === undefined || value === undefined || value === null) return value;
  if (durations.has(schema)) return formatGoDuration(value as number);
  if (schema.wrapped) return onWire(schema.wrapped, durations, value);
  if (schema.item && Array.isArray(value)) return value.map((one) => onWire(schema.item, durations, one));
  if (!schema.entries) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, field]) => [key, onWire(schema.entries?.[key], durations, field)]),
  );
}
