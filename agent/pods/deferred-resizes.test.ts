import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { millis } from '../../kube/scheduling/amounts.ts';
import { createDeferredResizes } from './deferred-resizes.ts';

const pod = (
  uid: string,
  cpu: string,
  more: { priority?: number; qosClass?: 'Guaranteed' | 'Burstable' } = {},
): Pod => ({
  metadata: { name: uid, uid },
  spec: {
    ...(more.priority === undefined ? {} : { priority: more.priority }),
    containers: [{ name: 'c', resources: { requests: { cpu } } }],
  },
  status: { qosClass: more.qosClass ?? 'Burstable' },
});
const cpuOf = (each: Pod): number => millis(each.spec.containers[0]?.resources?.requests?.cpu);
/** A node of 2 cores. */
const fits = (each: Pod, beside: readonly Pod[]): boolean =>
  cpuOf(each) + beside.reduce((sum, other) => sum + cpuOf(other), 0) <= 2000;

describe('resizes that wait for room', () => {
  const wanted = {
    late: pod('late', '1300m'),
    early: pod('early', '1300m'),
    guaranteed: pod('guaranteed', '1300m', { qosClass: 'Guaranteed' }),
    high: pod('high', '1300m', { priority: 10 }),
  };
  const all = () => {
    const deferred = createDeferredResizes();
    deferred.wait('early', wanted.early, 1);
    deferred.wait('guaranteed', wanted.guaranteed, 2);
    deferred.wait('high', wanted.high, 3);
    deferred.wait('late', wanted.late, 4);
    deferred.wait('early', wanted.early, 9);
    return deferred;
  };
  const has = (uid: string): Pod => pod(uid, '100m');

  it('are looked at by priority, class, and how long they have waited', () => {
    expect(all().uids()).toEqual(['high', 'guaranteed', 'early', 'late']);
  });

  it('leave the room to those before them', () => {
    const deferred = all();
    const others = ['high', 'guaranteed', 'early'].map(has);
    expect(fits(wanted.late, others)).toBe(true);
    const beside = deferred.beside('late', others, fits, has('late'));
    expect(beside.map(cpuOf).sort()).toEqual([100, 100, 1300]);
    expect(fits(wanted.late, beside)).toBe(false);
    expect(deferred.beside('high', others.slice(1), fits, has('high')).map(cpuOf)).toEqual([100, 100]);
    expect(deferred.beside('new', others, fits, has('new'))).toContain(wanted.high);
  });

  it('take what those before them cannot use', () => {
    const deferred = createDeferredResizes();
    deferred.wait('huge', pod('huge', '5', { priority: 10 }), 1);
    expect(deferred.beside('late', [has('huge')], fits, has('late')).map(cpuOf)).toEqual([100]);
    deferred.forget('huge');
    expect(deferred.uids()).toEqual([]);
  });
});
