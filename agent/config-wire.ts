// A KubeletConfiguration as the API writes it, for /configz.
import { formatGoDuration } from '../lib/go-duration.ts';
import { durations, type KubeletConfiguration, kubeletConfigurationFields } from './config.ts';

/** What is used of valibot's schemas: of an object, an optional one, a list. */
interface Schema {
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly wrapped?: Schema;
  readonly item?: Schema;
}

function onWire(schema: Schema | undefined, value: unknown): unknown {
  if (schema === undefined || value === undefined || value === null) return value;
  if (durations.has(schema)) return formatGoDuration(value as number);
  if (schema.wrapped) return onWire(schema.wrapped, value);
  if (schema.item && Array.isArray(value)) return value.map((one) => onWire(schema.item, one));
  if (!schema.entries) return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, onWire(schema.entries?.[key], field)]));
}

/** Durations as Go's texts. */
export const kubeletConfigurationOnWire = (config: KubeletConfiguration): unknown =>
  onWire(kubeletConfigurationFields as unknown as Schema, config);
