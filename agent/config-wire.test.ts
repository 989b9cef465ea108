import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { defaultKubeletConfiguration, kubeletConfigurationFields } from './config.ts';
import { kubeletConfigurationOnWire } from './config-wire.ts';

describe('kubeletConfigurationOnWire', () => {
  it('writes durations as the API does, and the rest as it is', () => {
    const given = {
      syncFrequency: '90s',
      authentication: { webhook: { cacheTTL: '3m0s' } },
      authorization: { webhook: { cacheAuthorizedTTL: '100ms' } },
      crashLoopBackOff: { maxContainerRestartPeriod: '1m' },
      evictionHard: { 'memory.available': '100Mi' },
      tracing: { samplingRatePerMillion: 5 },
      maxPods: 7,
    };
    const parsed = v.parse(kubeletConfigurationFields, given) as ReturnType<typeof defaultKubeletConfiguration>;
    expect(kubeletConfigurationOnWire(parsed)).toMatchObject({
      kind: 'KubeletConfiguration',
      syncFrequency: '1m30s',
      httpCheckFrequency: '20s',
      authentication: { webhook: { cacheTTL: '3m0s' } },
      authorization: { webhook: { cacheAuthorizedTTL: '100ms', cacheUnauthorizedTTL: '30s' } },
      crashLoopBackOff: { maxContainerRestartPeriod: '1m0s' },
      evictionHard: { 'memory.available': '100Mi' },
      tracing: { samplingRatePerMillion: 5 },
      maxPods: 7,
    });
  });

  it('can be read again, and says the same', () => {
    const config = defaultKubeletConfiguration();
    const again = v.parse(kubeletConfigurationFields, kubeletConfigurationOnWire(config));
    expect(again).toEqual(v.parse(kubeletConfigurationFields, kubeletConfigurationOnWire(again as typeof config)));
    expect(again).toMatchObject({ syncFrequency: config.syncFrequency, authentication: config.authentication });
  });
});
