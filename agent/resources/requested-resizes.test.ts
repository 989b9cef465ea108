import { describe, expect, it } from 'vitest';
import type { Pod, ResourceRequirements } from '../../kube/types/pod.ts';
import { requestedResizes } from './requested-resizes.ts';

const pod = (resources: ResourceRequirements, name = 'c'): Pod => ({
  metadata: { name: 'p' },
  spec: { containers: [{ name, resources }] },
});

describe('what a resize asks for', () => {
  it.each<[ResourceRequirements, ResourceRequirements, string[]]>([
    [{ requests: { cpu: '1' } }, { requests: { cpu: '1000m' } }, []],
    [{ requests: { cpu: '1' } }, { requests: { cpu: '2' } }, ['cpu requests increase']],
    [{ limits: { memory: '2Gi' } }, { limits: { memory: '1Gi' } }, ['memory limits decrease']],
    [{}, { requests: { memory: '1' }, limits: { cpu: '1' } }, ['memory requests add', 'cpu limits add']],
    [{ limits: { cpu: '1' } }, {}, ['cpu limits remove']],
  ])('%j → %j', (before, now, told) => {
    const found = requestedResizes(pod(before), pod(now));
    expect(found.map(({ resource, requirement, operation }) => `${resource} ${requirement} ${operation}`)).toEqual(
      told,
    );
  });

  it('another container is no resize of this one', () => {
    expect(requestedResizes(pod({ limits: { cpu: '1' } }), pod({}, 'other'))).toEqual([]);
  });
});
