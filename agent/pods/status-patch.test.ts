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

describe('the patch of a status', () => {
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
