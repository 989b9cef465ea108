import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { applyStrategicMergePatch } from '../../kube/strategic-merge.ts';
import type { PodStatus } from '../../kube/types/pod.ts';
import { showsEnd, statusPatch } from './status-patch.ts';

const before: PodStatus = {
  phase: 'Pending',
  podIPs: [{ ip: '10.0.0.1' }],
  podIP: '10.0.0.1',
  reason: 'Old',
  conditions: [
    { type: 'Ready', status: 'False', reason: 'ContainersNotReady', message: 'containers with unready status: [a]' },
    { type: 'example.com/gate', status: 'True' },
  ],
};

const after: PodStatus = {
  phase: 'Running',
  podIPs: [{ ip: '10.0.0.2' }],
  podIP: '10.0.0.2',
  conditions: [{ type: 'Ready', status: 'True' }],
};

// What the API leaves out, dropped: two statuses that are equal then say the same.
function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (value === null || typeof value !== 'object') return value ?? undefined;
  const entries = Object.entries(value)
    .map(([key, each]) => [key, canonical(each)] as const)
    .filter(([, each]) => each !== undefined && each !== '' && !(Array.isArray(each) && each.length === 0))
    .filter(
      ([key, each]) =>
        !(['limits', 'requests', 'allocatedResources', 'lastState'].includes(key) && isDeepStrictEqual(each, {})),
    );
  return Object.fromEntries(entries);
}

describe('the patch of a status', () => {
  it('tells of a difference where what the API leaves out is dropped, and nowhere else', () => {
    const leaf = fc.constantFrom<unknown>(undefined, null, '', 'a', 0, 1, false, [], {});
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof({ maxDepth: 3 }, leaf, tie('list'), tie('map')),
      list: fc.array(tie('tree'), { maxLength: 2 }),
      map: fc.dictionary(fc.constantFrom('limits', 'lastState', 'state', 'name'), tie('tree'), {
        maxKeys: 3,
        noNullPrototype: true,
      }),
    }));
    const statuses = fc.tuple(tree, tree).map(([a, b]) => [{ containerStatuses: [a] }, { containerStatuses: [b] }]);
    fc.assert(
      fc.property(statuses, ([a, b]) => {
        const patch = statusPatch('u', a as PodStatus, b as PodStatus);
        expect(patch === undefined).toBe(isDeepStrictEqual(canonical(a), canonical(b)));
      }),
      { numRuns: 500 },
    );
  });

  it('does not tell again what the API leaves out because it is empty', () => {
    const container = { name: 'a', image: 'i', imageID: '', ready: false, restartCount: 0 };
    const shown = { containerStatuses: [{ ...container, resources: { requests: { cpu: '10m' } } }] };
    const wanted = {
      containerStatuses: [
        {
          ...container,
          lastState: {},
          allocatedResources: {},
          volumeMounts: [],
          resources: { requests: { cpu: '10m' }, limits: {} },
        },
      ],
      initContainerStatuses: [],
    };
    expect(statusPatch('u', shown, wanted)).toBeUndefined();
    expect(showsEnd(shown, wanted)).toBe(true);
  });

  it('takes back what the node said, but not that somebody evicted the pod a moment ago', () => {
    const disrupted = { type: 'DisruptionTarget', status: 'True' as const, reason: 'EvictionByEvictionAPI' };
    const resizing = { type: 'PodResizePending', status: 'True' as const };
    const shown: PodStatus = { conditions: [disrupted, resizing, { type: 'Ready', status: 'True' }] };
    expect(statusPatch('u', shown, { conditions: [{ type: 'Ready', status: 'True' }] })).toEqual({
      metadata: { uid: 'u' },
      status: { conditions: [{ type: 'PodResizePending', $patch: 'delete' }] },
    });
  });

  it('leads from one to the other and leaves others’ conditions alone', () => {
    const patch = statusPatch('u', before, after);
    const result = applyStrategicMergePatch({ metadata: { uid: 'u' }, status: before }, patch, 'Pod') as {
      status: PodStatus;
    };
    expect(result.status).toEqual({
      phase: 'Running',
      podIPs: [{ ip: '10.0.0.2' }],
      podIP: '10.0.0.2',
      conditions: [
        { type: 'Ready', status: 'True' },
        { type: 'example.com/gate', status: 'True' },
      ],
    });
    expect(statusPatch('u', result.status, after)).toBeUndefined();
  });

  it('is none where nothing differs, whatever is empty or null', () => {
    expect(
      statusPatch(
        'u',
        { phase: 'Running', conditions: [] },
        { phase: 'Running', conditions: [], podIPs: undefined as never },
      ),
    ).toBeUndefined();
  });

  it('takes back a resource that is no longer there', () => {
    const shown: PodStatus = { allocatedResources: { cpu: '1', memory: '1Gi' }, resources: { limits: { cpu: '1' } } };
    const wanted: PodStatus = { allocatedResources: { cpu: '2' }, resources: { requests: { cpu: '2' } } };
    const patch = statusPatch('u', shown, wanted);
    const result = applyStrategicMergePatch({ metadata: { uid: 'u' }, status: shown }, patch, 'Pod') as {
      status: PodStatus;
    };
    expect(result.status).toEqual(wanted);
  });
});
