import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { combineSources, isEnding } from './desired.ts';

const pod = (metadata: Pod['metadata']): Pod => ({ metadata, spec: { containers: [] } });

describe('a pod that nobody wants to run any more', () => {
  const known = [
    pod({ name: 'stays', uid: 'stays' }),
    pod({ name: 'deleted', uid: 'deleted', deletionTimestamp: '2026-01-01T00:00:00Z' }),
  ];
  const pods = combineSources([
    { name: 'api', synced: true, get: (uid) => known.find(({ metadata }) => metadata.uid === uid), list: () => known },
  ]);

  it.each([
    ['stays', false],
    ['deleted', true],
    ['forced', true],
  ])('%s: %s', (uid, ending) => expect(isEnding(pods, uid)).toBe(ending));
});
