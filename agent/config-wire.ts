// A KubeletConfiguration as the API writes it, for /configz.
import { onWire, type WireSchema } from '../lib/on-wire.ts';
import { durations, type KubeletConfiguration, kubeletConfigurationFields } from './config.ts';

/** Durations as Go's texts. */
export const kubeletConfigurationOnWire = (config: KubeletConfiguration): unknown =>
  onWire(kubeletConfigurationFields as unknown as WireSchema, durations, config);
