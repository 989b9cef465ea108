import { describe, expect, it } from 'vitest';
import type { ContainerStatus, Pod } from '../../kube/types/pod.ts';
import { containerStatus } from './container-status.ts';
import { createMemory, type PodMemory } from './memory.ts';
import type { ObservedContainer } from './observed.ts';
import type { Operation } from './operations.ts';
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

const show = (
  pod: Pod,
  name: string,
  kind: 'init' | 'regular',
  memory: PodMemory = createMemory(),
  containers = [created(name)],
) =>
  containerStatus(
    {
      pod,
      observed: { sandboxes: [], containers },
      memory,
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

  describe('after others', () => {
    const pod: Pod = { metadata: { name: 'p', namespace: 'n', uid: 'u' }, spec: { containers: [main] } };
    const terminated = {
      exitCode: 1,
      reason: 'Error',
      startedAt: null,
      finishedAt: null,
      containerID: 'containerd://3',
    };
    const fourth = { ...created('main'), id: '4', metadata: { name: 'main', attempt: 4 } };
    const remembering = (before: Partial<ContainerStatus>, starts = true): PodMemory => {
      const memory = createMemory();
      const status = { name: 'main', ready: false, restartCount: 3, image: 'i', imageID: 'i', ...before };
      memory.status = { containerStatuses: [status] };
      const operation: Operation = { kind: 'start-container', container: 'main', attempt: 4, sandboxId: 's0' };
      if (starts)
        memory.running.set('start-container:main', { operation, startedAtMs: 0, abort: new AbortController() });
      return memory;
    };
    const waiting = { reason: 'CrashLoopBackOff', message: 'm' };

    it.each([
      ['in its back-off', { state: { waiting }, lastState: { terminated }, containerID: 'containerd://3' }],
      ['as it ended', { state: { terminated }, lastState: {}, containerID: 'containerd://3' }],
    ])('shows the one before, %s, until it starts', (_, before) => {
      expect(show(pod, 'main', 'regular', remembering(before), [fourth])).toMatchObject({ ...before, restartCount: 3 });
    });

    it('is shown itself when its start failed, and when it runs', () => {
      const before = { state: { waiting }, lastState: { terminated }, containerID: 'containerd://3' };
      expect(show(pod, 'main', 'regular', remembering(before, false), [fourth])).toMatchObject({ restartCount: 4 });
      const runs = { ...fourth, state: 'running' as const };
      expect(show(pod, 'main', 'regular', remembering(before), [runs])).toMatchObject({
        restartCount: 4,
        state: { running: {} },
        lastState: { terminated },
      });
    });
  });
});

describe('a runtime that has forgotten the newest of several', () => {
  const main = { name: 'main', image: 'i' };
  const pod = { metadata: { name: 'p', uid: 'u' }, spec: { containers: [main] } } as unknown as Pod;
  const first: ObservedContainer = { ...created('main'), state: 'exited', exitCode: 255 };

  it('leaves the one that was shown running with an end that nobody saw, look after look', () => {
    const memory = createMemory();
    const second: ObservedContainer = {
      ...created('main'),
      id: 'main-1',
      metadata: { name: 'main', attempt: 1 },
      state: 'running',
    };
    const told = (containers: ObservedContainer[]): ContainerStatus => {
      const status = show(pod, 'main', 'regular', memory, containers);
      memory.status = { containerStatuses: [status] };
      return status;
    };
    expect(told([second, first])).toMatchObject({ restartCount: 1, state: { running: {} } });
    const lost = {
      restartCount: 1,
      state: { waiting: { reason: 'ContainerCreating' } },
      lastState: { terminated: { reason: 'ContainerStatusUnknown', exitCode: 137 } },
    };
    expect(told([first])).toMatchObject(lost);
    expect(told([first])).toMatchObject(lost);
    const third: ObservedContainer = { ...second, id: 'main-2', metadata: { name: 'main', attempt: 2 } };
    expect(told([third, first])).toMatchObject({ restartCount: 2, state: { running: {} } });
  });
});
