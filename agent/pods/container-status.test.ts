import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { containerStatus } from './container-status.ts';
import { createMemory } from './memory.ts';
import type { ObservedContainer } from './observed.ts';
import { defaultRestartBackoff } from './restart.ts';

const created = (name: string): ObservedContainer => ({
  id: `${name}-0`,
  sandboxId: 's0',
  metadata: { name, attempt: 0 },
  state: 'created',
  createdAtMs: 0,
  startedAtMs: 0,
  finishedAtMs: 0,
  exitCode: 0,
  image: 'i',
  imageRef: 'sha256:i',
  imageId: 'sha256:i',
  reason: '',
  message: '',
  labels: {},
  annotations: {},
  mounts: [],
  logPath: '',
});

const show = (pod: Pod, name: string, kind: 'init' | 'regular') =>
  containerStatus(
    {
      pod,
      observed: { sandboxes: [], containers: [created(name)] },
      memory: createMemory(),
      facts: {
        nowMs: 0,
        restartBackoff: defaultRestartBackoff,
        probe: () => ({ started: true, failed: undefined, ready: true }),
        hashOf: () => 'h',
      },
      runtimeName: 'containerd',
      crashLoops: new Map(),
      terminating: false,
      terminal: false,
      extras: () => ({}),
    },
    [...(pod.spec.initContainers ?? []), ...pod.spec.containers].find((each) => each.name === name)!,
    kind,
  );

describe('a container that is made and not started yet', () => {
  const main = { name: 'main', image: 'i' };
  const init = { name: 'init', image: 'i' };
  it('waits like one that is not made yet', () => {
    const metadata = { name: 'p', namespace: 'n', uid: 'u' };
    const without: Pod = { metadata, spec: { containers: [main] } };
    const initialized: Pod = { metadata, spec: { initContainers: [init], containers: [main] } };
    expect(show(without, 'main', 'regular').state).toEqual({ waiting: { reason: 'ContainerCreating' } });
    expect(show(initialized, 'init', 'init').state).toEqual({ waiting: { reason: 'PodInitializing' } });
    expect(show(initialized, 'main', 'regular').state).toEqual({ waiting: { reason: 'PodInitializing' } });
  });
});
