// When others in this process are told that a pod's readiness changed.
import { expect, it } from 'vitest';
import type { Pod, PodStatus } from '../../kube/types/pod.ts';
import { createServingNotice } from './serving-notice.ts';

const pod = (deletionTimestamp?: string): Pod =>
  ({
    metadata: { name: 'a', uid: 'u', ...(deletionTimestamp ? { deletionTimestamp } : {}) },
    spec: { containers: [] },
  }) as unknown as Pod;
const status = (ready: boolean): PodStatus => ({
  conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
});

it('tells what changed since a pod was first seen, once', () => {
  const told: string[] = [];
  const notice = createServingNotice((uid, { ready, terminating }) => told.push(`${uid} ${ready} ${terminating}`));
  notice.status(pod(), status(true));
  notice.status(pod(), status(true));
  expect(told).toEqual([]);
  notice.status(pod(), status(false));
  notice.status(pod(), status(false));
  notice.status(pod(), status(true));
  notice.status(pod('2026-01-01T00:00:00Z'), status(true));
  expect(told).toEqual(['u false false', 'u true false', 'u true true']);
  notice.forget('u');
  notice.status(pod(), status(false));
  expect(told).toHaveLength(3);
});
