import { expect, it } from 'vitest';
import { createPodLab } from '../../test/lab/pod-lab.ts';
import { createDirectory, type Directory } from './directory.ts';

it('who waits for the end of a container is told when it is seen, however the pod went', async () => {
  const lab = createPodLab({ onSeen: (uid) => directory?.changed(uid) });
  const { observer, workers } = lab.agent();
  const directory: Directory | undefined = createDirectory({ observer, workers, byName: () => undefined });
  for (const name of ['a', 'b']) lab.bind(name, { containers: [{ name: 'c', image: 'i' }] });
  await lab.clock.advance(5_000);
  const over: string[] = [];
  for (const { id, config } of lab.runtime.containers())
    void directory
      .ended(id, new AbortController().signal)
      .then(() => over.push(config.labels['io.kubernetes.pod.name'] ?? ''));
  await lab.clock.advance(1_000);
  expect(over).toEqual([]);
  await lab.delete('a', 5);
  await lab.clock.advance(60_000);
  expect(over).toEqual(['a']);
  // No event tells of this one.
  lab.runtime.mapEvents(() => []);
  await lab.delete('b', 5);
  await lab.clock.advance(60_000);
  expect(over).toEqual(['a', 'b']);
  await lab.stop();
});
