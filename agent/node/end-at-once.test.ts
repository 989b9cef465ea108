// An evicted pod is ended without the runtime.
import { expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { endAtOnce } from './end-at-once.ts';

const pod = { metadata: { name: 'p', uid: 'u' }, spec: { containers: [] } } as unknown as Pod;

async function ended(counts: number[]) {
  const clock = createFakeClock();
  const seen: string[] = [];
  const work = endAtOnce(
    {
      clock,
      killProcesses(uid) {
        seen.push(`kill ${uid}`);
        return Promise.resolve(counts.length > 1 ? counts.shift()! : counts[0]!);
      },
      freeMemory: ({ metadata }) => Promise.resolve(void seen.push(`free ${metadata.name}`)),
    },
    pod,
    new AbortController().signal,
  );
  await clock.advance(10_000);
  return { found: await work, seen };
}

it('kills until nothing is left, and then gives back the memory of volumes', async () => {
  expect(await ended([3, 1, 0])).toEqual({ found: 3, seen: ['kill u', 'kill u', 'kill u', 'free p'] });
  expect(await ended([0])).toEqual({ found: 0, seen: ['kill u', 'free p'] });
});

it('leaves volumes alone while a process stays', async () => {
  const { found, seen } = await ended([1]);
  expect(found).toBe(1);
  expect(seen.length).toBeGreaterThan(10);
  expect(seen).not.toContain('free p');
});
