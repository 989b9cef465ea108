import { describe, expect, it } from 'vitest';
import type { Container, Pod, PodSpec } from '../../kube/types/pod.ts';
import { hugePageSize, memorySize } from './empty-dir.ts';

const limited = (memory?: string, more: Partial<Container> = {}): Container => ({
  name: 'c',
  ...(memory === undefined ? {} : { resources: { limits: { memory } } }),
  ...more,
});
const pod = (spec: Partial<PodSpec>): Pod => ({ metadata: { name: 'p' }, spec: { containers: [], ...spec } });
const host = (memory?: string) => ({
  node: () =>
    memory === undefined ? undefined : { metadata: { name: 'n' }, spec: {}, status: { allocatable: { memory } } },
});

describe('the size of memory volumes', () => {
  it.each([
    ['the volume', '1Gi', pod({ containers: [limited()] }), '16Mi', 16n],
    ['the pod', '1Gi', pod({ containers: [limited('8Mi'), limited('8Mi')] }), '32Mi', 16n],
    ['the node', '64Mi', pod({ containers: [limited('1Gi')] }), '2Gi', 64n],
    [
      'the node, where one container has no limit',
      '64Mi',
      pod({ containers: [limited('1Mi'), limited()] }),
      undefined,
      64n,
    ],
    [
      'an init container',
      '1Gi',
      pod({ containers: [limited('1Mi')], initContainers: [limited('32Mi')] }),
      undefined,
      32n,
    ],
    [
      'a sidecar as well',
      '1Gi',
      pod({ containers: [limited('8Mi')], initContainers: [limited('8Mi', { restartPolicy: 'Always' })] }),
      undefined,
      16n,
    ],
    [
      'the pod as a whole',
      '1Gi',
      pod({ containers: [limited()], resources: { limits: { memory: '4Mi' } } }),
      undefined,
      4n,
    ],
  ])('is that of %s', (_, allocatable, of, sizeLimit, mebibytes) =>
    expect(memorySize(host(allocatable), of, sizeLimit)).toBe(mebibytes << 20n),
  );
  it('is open where nobody limits it', () => expect(memorySize(host(), pod({}))).toBeUndefined());
});

describe('the page size of huge page volumes', () => {
  const asking = (...sizes: string[]): Pod =>
    pod({
      containers: sizes.map((size) => ({ name: 'c', resources: { requests: { [`hugepages-${size}`]: '4Mi' } } })),
    });
  it('is the one that is requested', () => expect(hugePageSize('HugePages', asking('2Mi'))).toBe('2Mi'));
  it('is the one that the medium names', () => expect(hugePageSize('HugePages-1Gi', asking('2Mi', '1Gi'))).toBe('1Gi'));
  it.each([
    [
      'HugePages',
      asking('2Mi', '1Gi'),
      "medium: HugePages can't be used if container requests multiple huge page sizes",
    ],
    ['HugePages', asking(), 'medium HugePages: hugePages storage requested, but there is no resource request'],
    ['HugePages-1Gi', asking('2Mi'), 'medium HugePages-1Gi: hugePages storage requested'],
  ])('of %s is refused', (medium, of, message) => expect(() => hugePageSize(medium, of)).toThrow(message));
});
