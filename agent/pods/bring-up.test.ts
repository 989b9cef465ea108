import { expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { VolumeError } from '../volumes/volume-error.ts';
import { createBringUp } from './bring-up.ts';
import type { ExecuteDeps, OperationContext } from './handling.ts';
import { createMemory } from './memory.ts';

const noRoom = new VolumeError('VolumeAttachmentLimitExceeded', 'v', 'Node has reached its volume attachment limit');

it.each([
  ['no room on the node', noRoom, 0, true],
  ['no room on the node, but containers that are there', noRoom, 1, false],
  ['any other trouble', new VolumeError('FailedMount', 'v', 'not yet'), 0, false],
])('a pod whose volumes have %s is refused, or tried again', async (_what, error, containers, refused) => {
  const clock = createFakeClock();
  const reasons: string[] = [];
  const events: string[] = [];
  const handlers = createBringUp({
    clock,
    events: { record: (_about: unknown, type: string, reason: string) => void events.push(`${type} ${reason}`) },
    parts: { prepare: async () => undefined, setUpVolumes: () => Promise.reject(error) },
    refused: (reason: string) => void reasons.push(reason),
  } as unknown as ExecuteDeps);
  const memory = createMemory();
  memory.admission = { admitted: true };
  const context = {
    pod: { metadata: { name: 'p' }, spec: { containers: [] } },
    memory,
    observed: { sandboxes: [], containers: Array.from({ length: containers }, () => ({})) },
  } as unknown as OperationContext;
  await handlers['set-up-volumes'](context, { kind: 'set-up-volumes' }, new AbortController().signal);
  expect(events).toEqual([`Warning ${error.reason}`]);
  expect(reasons).toEqual(refused ? ['VolumeAttachmentLimitExceeded'] : []);
  expect(memory.admission).toEqual(
    refused ? { admitted: false, reason: error.reason, message: error.message } : { admitted: true },
  );
});
