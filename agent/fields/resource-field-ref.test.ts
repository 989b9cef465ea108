import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { quantityMilliValue, quantityValue } from './quantity-value.ts';
import { resourceFieldValue } from './resource-field-ref.ts';

const pod: Pod = {
  metadata: { name: 'p' },
  spec: {
    initContainers: [{ name: 'i', resources: { requests: { cpu: '1500m' } } }],
    containers: [
      {
        name: 'c',
        resources: { requests: { cpu: '250m', memory: '64Mi' }, limits: { memory: '100M', 'hugepages-2Mi': '4Mi' } },
      },
    ],
  },
};
const allocatable = { cpu: '1900m', memory: '3Gi', 'ephemeral-storage': '10Gi' };

describe('resourceFieldValue', () => {
  it.each([
    ['c', 'requests.cpu', undefined, '1'],
    ['c', 'requests.cpu', '1m', '250'],
    ['c', 'limits.cpu', undefined, '2'],
    ['c', 'limits.cpu', '1m', '1900'],
    ['c', 'requests.memory', '1Mi', '64'],
    ['c', 'limits.memory', '1Mi', '96'],
    ['c', 'limits.memory', '0', '100000000'],
    ['c', 'requests.ephemeral-storage', undefined, '0'],
    ['c', 'limits.ephemeral-storage', '1Gi', '10'],
    ['c', 'limits.hugepages-2Mi', '1Mi', '4'],
    ['i', 'requests.cpu', undefined, '2'],
  ])('%s %s / %s', (containerName, resource, divisor, value) =>
    expect(resourceFieldValue(pod, { containerName, resource, ...(divisor ? { divisor } : {}) }, allocatable)).toBe(
      value,
    ),
  );

  it('takes the container it is asked for where the selector names none', () =>
    expect(resourceFieldValue(pod, { resource: 'requests.cpu', divisor: '1m' }, {}, pod.spec.containers[0])).toBe(
      '250',
    ));

  it('says the limit of the pod as a whole where the container has none', () => {
    const limited: Pod = { ...pod, spec: { ...pod.spec, resources: { limits: { cpu: '700m', memory: '0' } } } };
    const limit = (resource: string) => resourceFieldValue(limited, { containerName: 'i', resource }, allocatable);
    expect(limit('limits.cpu')).toBe('1');
    expect(limit('limits.memory')).toBe(String(3 * 2 ** 30));
    expect(limit('limits.ephemeral-storage')).toBe(String(10 * 2 ** 30));
  });

  it('refuses what cannot be asked for', () => {
    expect(() => resourceFieldValue(pod, { containerName: 'x', resource: 'limits.cpu' }, {})).toThrow(
      'container x not found',
    );
    expect(() => resourceFieldValue(pod, { containerName: 'c', resource: 'limits.gpu' }, {})).toThrow(
      'unsupported container resource : limits.gpu',
    );
  });
});

describe('quantityValue', () => {
  it.each([
    ['0', 0n],
    ['1.5', 2n],
    ['1500m', 2n],
    ['1Ki', 1024n],
    ['1.5Gi', 1610612736n],
    ['2e3', 2000n],
    ['1E', 10n ** 18n],
    ['100n', 1n],
    ['-1500m', -2n],
  ])('%s', (text, value) => expect(quantityValue(text)).toBe(value));
  it('counts thousandths', () => expect(quantityMilliValue('0.25')).toBe(250n));
  it('refuses other text', () => expect(() => quantityValue('ten')).toThrow());
});
