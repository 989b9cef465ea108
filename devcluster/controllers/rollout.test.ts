import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Deployment, ReplicaSet } from '../workload.ts';
import { limitsOf, planRollout } from './rollout.ts';

const set = (name: string, replicas: number, available = replicas): ReplicaSet => ({
  metadata: { name },
  spec: { replicas, selector: {}, template: { spec: { containers: [] } } },
  status: { replicas, availableReplicas: available },
});

const deployment = (
  replicas: number,
  maxSurge: number | string,
  maxUnavailable: number | string,
  type: 'RollingUpdate' | 'Recreate' = 'RollingUpdate',
): Deployment => ({
  metadata: { name: 'd' },
  spec: {
    replicas,
    selector: {},
    template: { spec: { containers: [] } },
    strategy: { type, rollingUpdate: { maxSurge, maxUnavailable } },
  },
});

describe('limitsOf', () => {
  it.each([
    [10, '25%', '25%', { surge: 3, unavailable: 2 }],
    [3, 1, 0, { surge: 1, unavailable: 0 }],
    [1, '25%', '25%', { surge: 1, unavailable: 0 }],
    [4, 0, 0, { surge: 0, unavailable: 1 }],
  ])('%i replicas, surge %s, unavailable %s', (replicas, surge, unavailable, expected) => {
    expect(limitsOf(deployment(replicas, surge, unavailable))).toEqual(expected);
  });
});

describe('planRollout', () => {
  it('adds one, then takes one away, with surge 1 and unavailable 0', () => {
    const wanted = deployment(3, 1, 0);
    expect([...planRollout(wanted, set('new', 0), [set('old', 3)])]).toEqual([['new', 1]]);
    expect([...planRollout(wanted, set('new', 1, 0), [set('old', 3)])]).toEqual([]);
    expect([...planRollout(wanted, set('new', 1, 1), [set('old', 3)])]).toEqual([['old', 2]]);
  });

  it('takes away first what serves nobody', () => {
    const plan = planRollout(deployment(3, 1, 1), set('new', 1, 0), [set('broken', 1, 0), set('old', 2, 2)]);
    expect(plan.get('broken') ?? 1).toBeLessThanOrEqual(1);
    expect(plan.has('old')).toBe(false);
  });

  it('waits with Recreate until the old pods are gone', () => {
    const wanted = deployment(2, 0, 0, 'Recreate');
    expect([...planRollout(wanted, set('new', 0), [set('old', 2)])]).toEqual([['old', 0]]);
    const ending = { ...set('old', 0), status: { replicas: 0, terminatingReplicas: 1 } };
    expect([...planRollout(wanted, set('new', 0), [ending])]).toEqual([]);
    expect([...planRollout(wanted, set('new', 0), [set('old', 0)])]).toEqual([['new', 2]]);
  });

  it('keeps within surge and unavailable at every step, and arrives, whatever the order in which pods come up', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 0, max: 4 }),
        fc.integer({ min: 0, max: 4 }),
        fc.array(fc.boolean(), { minLength: 200, maxLength: 200 }),
        (replicas, surge, unavailable, ups) => {
          const wanted = deployment(replicas, surge, unavailable);
          const limits = limitsOf(wanted);
          const counts = { new: 0, old: replicas };
          const available = { new: 0, old: replicas };
          for (const up of ups) {
            const plan = planRollout(wanted, set('new', counts.new, available.new), [
              set('old', counts.old, available.old),
            ]);
            for (const [name, count] of plan) {
              const key = name as 'new' | 'old';
              counts[key] = count;
              available[key] = Math.min(available[key], count);
            }
            expect(counts.new + counts.old).toBeLessThanOrEqual(replicas + limits.surge);
            expect(available.new + available.old).toBeGreaterThanOrEqual(replicas - limits.unavailable);
            if (up && available.new < counts.new) available.new += 1;
          }
          // Enough pods came up in every run but those with hardly a true.
          if (ups.filter(Boolean).length > 60) expect(counts).toEqual({ new: replicas, old: 0 });
        },
      ),
    );
  });
});
