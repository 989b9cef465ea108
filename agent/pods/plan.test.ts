import { describe, expect, it } from 'vitest';
import type { Container, Pod } from '../../kube/types/pod.ts';
import type { SandboxStatus } from '../../cri/types.ts';
import { createMemory, memoryOf, type PodMemory } from './memory.ts';
import { nothingObserved, type ObservedContainer, type ObservedPod } from './observed.ts';
import type { Operation } from './operations.ts';
import { plan, type PlanFacts, type PlanInput } from './plan.ts';
import { defaultRestartBackoff } from './restart.ts';

const t0 = Date.UTC(2026, 0, 1);

const facts = (over: Partial<PlanFacts> = {}): PlanFacts => ({
  nowMs: t0,
  restartBackoff: defaultRestartBackoff,
  probe: () => ({ started: true, failed: undefined, ready: true }),
  hashOf: () => 'h',
  ...over,
});

const podOf = (
  containers: Container[],
  over: Partial<Pod['spec']> = {},
  metadata: Partial<Pod['metadata']> = {},
): Pod => ({
  metadata: { name: 'p', namespace: 'n', uid: 'u', ...metadata },
  spec: { containers, terminationGracePeriodSeconds: 30, ...over },
});

const sandbox: SandboxStatus = {
  id: 's0',
  metadata: { name: 'p', namespace: 'n', uid: 'u', attempt: 0 },
  state: 'ready',
  createdAtMs: t0,
  labels: {},
  annotations: {},
  runtimeHandler: '',
  ips: ['10.0.0.2'],
  namespaces: { network: 'pod', pid: 'container', ipc: 'pod' },
};

const container = (name: string, over: Partial<ObservedContainer> = {}): ObservedContainer => ({
  id: `${name}-0`,
  sandboxId: 's0',
  metadata: { name, attempt: 0 },
  state: 'running',
  createdAtMs: t0,
  startedAtMs: t0,
  finishedAtMs: 0,
  exitCode: 0,
  image: 'i',
  imageRef: 'sha256:i',
  imageId: 'sha256:i',
  reason: '',
  message: '',
  labels: {},
  annotations: { 'io.kubernetes.container.hash': 'h' },
  mounts: [],
  logPath: '',
  ...over,
});

const exited = (name: string, exitCode: number, over: Partial<ObservedContainer> = {}): ObservedContainer =>
  container(name, { state: 'exited', exitCode, finishedAtMs: t0, ...over });

const ready = (names: readonly string[] = []): PodMemory => {
  const memory = createMemory();
  memory.admission = { admitted: true };
  memory.volumesUp = true;
  memory.startTimeMs = t0;
  for (const name of names) memoryOf(memory, name).image = { imageRef: 'sha256:i', uid: undefined, username: '' };
  return memory;
};

const input = (pod: Pod, observed: ObservedPod, memory: PodMemory, over: Partial<PlanInput> = {}): PlanInput => ({
  desired: { pod, source: 'api' },
  pod,
  observed,
  memory,
  facts: facts(),
  ...over,
});

const kinds = (operations: readonly Operation[]): string[] =>
  operations
    .map((operation) => ('container' in operation ? `${operation.kind} ${operation.container}` : operation.kind))
    .sort();

const running = (...containers: ObservedContainer[]): ObservedPod => ({ sandboxes: [sandbox], containers });

describe('a new pod', () => {
  it('sets up volumes, the sandbox and images side by side', () => {
    const memory = ready();
    memory.volumesUp = false;
    const made = plan(input(podOf([{ name: 'a' }, { name: 'b' }]), nothingObserved, memory));
    expect(kinds(made.start)).toEqual(['pull-image a', 'pull-image b', 'run-sandbox', 'set-up-volumes']);
  });

  it('pulls only the first init container’s image before the sandbox stands', () => {
    const pod = podOf([{ name: 'a' }], { initContainers: [{ name: 'i' }] });
    expect(kinds(plan(input(pod, nothingObserved, ready())).start)).toEqual(['pull-image i', 'run-sandbox']);
  });

  it('starts containers in order, the next when the one before has started', () => {
    const pod = podOf([{ name: 'a' }, { name: 'b' }]);
    expect(kinds(plan(input(pod, running(), ready(['a', 'b']))).start)).toEqual(['start-container a']);
    expect(kinds(plan(input(pod, running(container('a')), ready(['b']))).start)).toEqual(['start-container b']);
  });

  it('holds later containers until the postStart hook of an earlier one is done', () => {
    const pod = podOf([{ name: 'a', lifecycle: { postStart: { exec: { command: ['x'] } } } }, { name: 'b' }]);
    const memory = ready(['b']);
    expect(kinds(plan(input(pod, running(container('a')), memory)).start)).toEqual(['run-post-start a']);
    memoryOf(memory, 'a').postStartDone = 'a-0';
    expect(kinds(plan(input(pod, running(container('a')), memory)).start)).toEqual(['start-container b']);
  });

  it('waits for volumes before a container, and says why', () => {
    const memory = ready(['a']);
    memory.volumesUp = false;
    memory.volumeTrouble = {
      reason: 'FailedMount',
      message: 'configmap "x" not found',
      sinceMs: t0,
      retryAtMs: t0 + 1000,
    };
    const made = plan(input(podOf([{ name: 'a' }]), running(), memory));
    expect(made.start).toEqual([]);
    expect(made.waitingFor.join()).toContain('configmap "x" not found');
    expect(made.wakeAtMs).toBe(t0 + 1000);
  });
});

describe('init containers', () => {
  const init = (over: Partial<Pod['spec']> = {}) =>
    podOf([{ name: 'main' }], { initContainers: [{ name: 'i1' }, { name: 'i2' }], ...over });

  it('run one after the other', () => {
    expect(kinds(plan(input(init(), running(), ready(['i1', 'i2', 'main']))).start)).toEqual(['start-container i1']);
    expect(kinds(plan(input(init(), running(container('i1')), ready(['i2', 'main']))).start)).toEqual([]);
    expect(kinds(plan(input(init(), running(exited('i1', 0)), ready(['i2', 'main']))).start)).toEqual([
      'start-container i2',
    ]);
    expect(kinds(plan(input(init(), running(exited('i2', 0), exited('i1', 0)), ready(['main']))).start)).toEqual([
      'start-container main',
    ]);
  });

  it('end the pod where one fails under Never', () => {
    const made = plan(input(init({ restartPolicy: 'Never' }), running(exited('i1', 1)), ready(['i1'])));
    expect(made.termination?.cause).toBe('completed');
    expect(made.terminal).toBe(true);
  });

  it('are not run again though their records are gone, once a main container has been', () => {
    const made = plan(input(init(), running(container('main')), ready(['i1', 'i2'])));
    expect(made.start).toEqual([]);
  });

  it('run again in a new sandbox', () => {
    const pod = init();
    const observed: ObservedPod = {
      sandboxes: [
        { ...sandbox, id: 's1', metadata: { ...sandbox.metadata, attempt: 1 } },
        { ...sandbox, state: 'notready' },
      ],
      containers: [exited('main', 0), exited('i2', 0), exited('i1', 0)],
    };
    expect(kinds(plan(input(pod, observed, ready(['i1', 'i2', 'main']))).start)).toEqual(['start-container i1']);
  });

  it('a sidecar holds the next until it has started, and is kept running after', () => {
    const pod = podOf([{ name: 'main' }], {
      initContainers: [{ name: 'side', restartPolicy: 'Always', startupProbe: {} }],
    });
    const starting = facts({ probe: () => ({ started: false, failed: undefined, ready: false }) });
    expect(plan(input(pod, running(container('side')), ready(['main']), { facts: starting })).start).toEqual([]);
    expect(kinds(plan(input(pod, running(container('side')), ready(['main']))).start)).toEqual([
      'start-container main',
    ]);
    expect(kinds(plan(input(pod, running(container('main'), exited('side', 1)), ready(['side']))).start)).toEqual([
      'start-container side',
    ]);
  });
});

describe('a sidecar that ends', () => {
  const podWith = (restartPolicy: 'Always' | 'Never') =>
    podOf([{ name: 'main' }], { restartPolicy, initContainers: [{ name: 'side', restartPolicy: 'Always' }] });
  const kill = { id: 'main-0', sinceMs: t0, graceSeconds: 30, message: '', restartAnyway: false };
  const starts = (restartPolicy: 'Always' | 'Never', main: ObservedContainer, killed: boolean): string[] => {
    const memory = ready(['main', 'side']);
    if (killed) memoryOf(memory, 'main').kill = { ...kill, again: restartPolicy === 'Always' };
    return kinds(plan(input(podWith(restartPolicy), running(main, exited('side', 1)), memory)).start).filter((each) =>
      each.startsWith('start-'),
    );
  };

  it('is not started again while what it serves is being killed for good', () => {
    expect(starts('Never', container('main'), true)).toEqual([]);
  });

  it('is, where that runs, or will run again', () => {
    expect(starts('Never', container('main'), false)).toEqual(['start-container side']);
    expect(starts('Always', container('main'), true)).toEqual(['start-container side']);
  });
});

describe('restarts', () => {
  it('are at once the first time, then back off 10 s doubling to 300 s', () => {
    const pod = podOf([{ name: 'a' }]);
    const memory = ready(['a']);
    const delays: number[] = [];
    for (let attempt = 0; attempt < 8; attempt++) {
      const observed = running(exited('a', 1, { id: `a-${attempt}`, metadata: { name: 'a', attempt } }));
      const made = plan(input(pod, observed, memory));
      const backoff = made.backoffs.get('a')!;
      memoryOf(memory, 'a').backoff = backoff;
      delays.push(backoff.delayMs / 1000);
      if (backoff.delayMs === 0) expect(kinds(made.start)).toEqual(['start-container a']);
      else expect([made.start.length, made.wakeAtMs]).toEqual([0, t0 + backoff.delayMs]);
    }
    expect(delays).toEqual([0, 10, 20, 40, 80, 160, 300, 300]);
  });

  it('go on from the restart count after the agent itself was restarted', () => {
    const observed = running(exited('a', 1, { metadata: { name: 'a', attempt: 3 } }));
    expect(plan(input(podOf([{ name: 'a' }]), observed, ready(['a']))).backoffs.get('a')?.delayMs).toBe(40_000);
  });

  it.each([
    ['Always', 0, true],
    ['Always', 1, true],
    ['OnFailure', 0, false],
    ['OnFailure', 1, true],
    ['Never', 0, false],
    ['Never', 1, false],
  ] as const)('under %s with exit code %i: %s', (restartPolicy, exitCode, restarts) => {
    const pod = podOf([{ name: 'a' }], { restartPolicy });
    const made = plan(input(pod, running(exited('a', exitCode)), ready(['a'])));
    expect(kinds(made.start).includes('start-container a')).toBe(restarts);
    expect(made.terminal).toBe(!restarts);
  });

  it('never count down', () => {
    const memory = ready(['a']);
    memory.status = {
      containerStatuses: [
        { name: 'a', ready: false, restartCount: 7, image: '', imageID: '', state: { terminated: { exitCode: 1 } } },
      ],
    };
    const made = plan(input(podOf([{ name: 'a' }]), running(), memory));
    expect(made.start).toMatchObject([{ kind: 'start-container', attempt: 8 }]);
  });

  it.each([
    ['has all of them', 2, 3],
    ['has forgotten the newest, as after a loss of power', 1, 3],
    ['has one that was never shown', 3, 4],
  ])('count on where the runtime %s', (_what, newest, attempt) => {
    const memory = ready(['a']);
    const state = { running: { startedAt: '2026-01-01T00:00:00Z' } };
    const containerID = 'containerd://the-third';
    memory.status = {
      containerStatuses: [{ name: 'a', ready: true, restartCount: 2, image: '', imageID: '', containerID, state }],
    };
    const observed = running(exited('a', 255, { metadata: { name: 'a', attempt: newest } }));
    const made = plan(input(podOf([{ name: 'a' }]), observed, memory, { facts: facts({ nowMs: 10_000_000_000_000 }) }));
    expect(made.start).toMatchObject([{ kind: 'start-container', attempt }]);
  });

  it('count on while it is shown that the newest was forgotten', () => {
    const memory = ready(['a']);
    const lost = { exitCode: 137, reason: 'ContainerStatusUnknown', startedAt: null, finishedAt: null };
    const [state, lastState] = [{ waiting: { reason: 'ContainerCreating' } }, { terminated: lost }];
    memory.status = {
      containerStatuses: [{ name: 'a', ready: false, restartCount: 2, image: '', imageID: '', state, lastState }],
    };
    const observed = running(exited('a', 255, { metadata: { name: 'a', attempt: 1 } }));
    const made = plan(input(podOf([{ name: 'a' }]), observed, memory, { facts: facts({ nowMs: 10_000_000_000_000 }) }));
    expect(made.start).toMatchObject([{ kind: 'start-container', attempt: 3 }]);
  });

  it('a failed liveness probe stops the container with the probe’s own grace', () => {
    const pod = podOf([{ name: 'a', livenessProbe: { terminationGracePeriodSeconds: 5 } }]);
    const failing = facts({ probe: () => ({ started: true, failed: 'liveness', ready: true }) });
    const made = plan(input(pod, running(container('a')), ready(), { facts: failing }));
    expect(made.start).toMatchObject([{ kind: 'stop-container', graceSeconds: 5 }]);
    expect(made.kills.get('a')?.message).toBe('Container a failed liveness probe, will be restarted');
  });

  it.each([
    ['OnFailure', ['start-container a']],
    ['Never', []],
  ] as const)(
    'what was stopped for a failed probe and ended with 0 runs again, under %s: %j',
    (restartPolicy, starts) => {
      const pod = podOf([{ name: 'a' }], { restartPolicy });
      const memory = ready(['a']);
      const failing = facts({ probe: () => ({ started: false, failed: 'startup', ready: false }) });
      const made = plan(input(pod, running(container('a')), memory, { facts: failing }));
      memoryOf(memory, 'a').kill = made.kills.get('a')!;
      const after = plan(input(pod, running(exited('a', 0)), memory));
      expect(kinds(after.start).filter((each) => each.startsWith('start-'))).toEqual(starts);
      expect(after.terminal).toBe(restartPolicy === 'Never');
    },
  );

  it('a changed definition restarts the container at once, whatever its policy', () => {
    const pod = podOf([{ name: 'a' }], { restartPolicy: 'Never' });
    const memory = ready(['a']);
    const made = plan(
      input(pod, running(container('a', { annotations: { 'io.kubernetes.container.hash': 'other' } })), memory),
    );
    expect(kinds(made.start)).toEqual(['stop-container a']);
    memoryOf(memory, 'a').kill = made.kills.get('a')!;
    const after = plan(input(pod, running(exited('a', 137)), memory));
    expect(kinds(after.start)).toEqual(['start-container a']);
  });
});

describe('a lost sandbox', () => {
  const lost: ObservedPod = { sandboxes: [{ ...sandbox, state: 'notready' }], containers: [exited('a', 137)] };
  it('is replaced with the next attempt', () => {
    expect(plan(input(podOf([{ name: 'a' }]), lost, ready(['a']))).start).toMatchObject([
      { kind: 'run-sandbox', attempt: 1 },
    ]);
  });
  it('is not replaced under Never', () => {
    expect(plan(input(podOf([{ name: 'a' }], { restartPolicy: 'Never' }), lost, ready())).termination?.cause).toBe(
      'completed',
    );
  });
});

describe('bringing down', () => {
  const deletion = { deletionTimestamp: '2026-01-01T00:00:30Z', deletionGracePeriodSeconds: 30 };

  it('stops main containers together, then sidecars in reverse order', () => {
    const sidecars: Container[] = [
      { name: 's1', restartPolicy: 'Always' },
      { name: 's2', restartPolicy: 'Always' },
    ];
    const pod = podOf([{ name: 'a' }, { name: 'b' }], { initContainers: sidecars }, deletion);
    const all = [container('a'), container('b'), container('s1'), container('s2')];
    expect(kinds(plan(input(pod, running(...all), ready())).start)).toEqual(['stop-container a', 'stop-container b']);
    expect(kinds(plan(input(pod, running(container('s1'), container('s2')), ready())).start)).toEqual([
      'stop-container s2',
    ]);
    expect(kinds(plan(input(pod, running(container('s1')), ready())).start)).toEqual(['stop-container s1']);
  });

  it('runs the preStop hook first and takes its time off the grace', () => {
    const pod = podOf([{ name: 'a', lifecycle: { preStop: { sleep: { seconds: 9 } } } }], {}, deletion);
    const memory = ready();
    const first = plan(input(pod, running(container('a')), memory));
    expect(first.start).toMatchObject([{ kind: 'run-pre-stop', deadlineMs: t0 + 30_000 }]);
    memory.termination = first.termination;
    memoryOf(memory, 'a').preStopDone = 'a-0';
    const later = plan(input(pod, running(container('a')), memory, { facts: facts({ nowMs: t0 + 9_000 }) }));
    expect(later.start).toMatchObject([{ kind: 'stop-container', graceSeconds: 21 }]);
    const overdue = plan(input(pod, running(container('a')), memory, { facts: facts({ nowMs: t0 + 60_000 }) }));
    expect(overdue.start).toMatchObject([{ kind: 'stop-container', graceSeconds: 2 }]);
  });

  it('shortens a grace that is under way, and never lengthens it', () => {
    const memory = ready();
    memory.termination = { cause: 'deleted', sinceMs: t0, graceSeconds: 30 };
    const nowMs = t0 + 5_000;
    const shorter = podOf([{ name: 'a' }], {}, { ...deletion, deletionGracePeriodSeconds: 1 });
    const made = plan(input(shorter, running(container('a')), memory, { facts: facts({ nowMs }) }));
    expect(made.termination?.graceSeconds).toBe(6);
    const longer = podOf([{ name: 'a' }], {}, { ...deletion, deletionGracePeriodSeconds: 600 });
    expect(
      plan(input(longer, running(container('a')), memory, { facts: facts({ nowMs }) })).termination?.graceSeconds,
    ).toBe(30);
  });

  it('confirms the deletion only once all is stopped, released and shown', () => {
    const pod = podOf([{ name: 'a' }], {}, deletion);
    const memory = ready();
    const stopped: ObservedPod = { sandboxes: [{ ...sandbox, state: 'notready' }], containers: [exited('a', 0)] };
    expect(kinds(plan(input(pod, running(exited('a', 0)), memory)).start)).toEqual(['release-volumes', 'stop-sandbox']);
    memory.released = true;
    expect(kinds(plan(input(pod, stopped, memory)).start)).toEqual(['remove-cgroup']);
    memory.cgroupRemoved = true;
    memory.terminalStatusWritten = true;
    expect(kinds(plan(input(pod, stopped, memory)).start)).toEqual(['confirm-deletion']);
    memory.deletionConfirmed = true;
    expect(kinds(plan(input(pod, stopped, memory)).start)).toEqual(['remove-container']);
  });

  it('lets the stop of a sandbox end before anything is removed, though the runtime shows it stopped', () => {
    const pod = podOf([{ name: 'a' }], {}, deletion);
    const memory = ready();
    memory.released = true;
    memory.terminalStatusWritten = true;
    const operation: Operation = { kind: 'stop-sandbox', id: 's0' };
    memory.running.set('stop-sandbox:s0', { operation, startedAtMs: t0, abort: new AbortController() });
    const stopped: ObservedPod = { sandboxes: [{ ...sandbox, state: 'notready' }], containers: [exited('a', 0)] };
    expect(plan(input(pod, stopped, memory)).start).toEqual([]);
  });

  it('cuts pulls short and lets a start run to its end', () => {
    const pod = podOf([{ name: 'a' }, { name: 'b' }], {}, deletion);
    const memory = ready();
    const begin = (operation: Operation, key: string) =>
      memory.running.set(key, { operation, startedAtMs: t0, abort: new AbortController() });
    begin({ kind: 'pull-image', container: 'b' }, 'pull-image:b');
    begin({ kind: 'start-container', container: 'a', attempt: 0, sandboxId: 's0' }, 'start-container:a');
    const made = plan(input(pod, running(), memory));
    expect(made.abort).toEqual(['pull-image:b']);
    expect(made.terminal).toBe(false);
    expect(made.start).toEqual([]);
  });

  it('of a pod that is gone from its source ends with its files', () => {
    const pod = podOf([{ name: 'a' }]);
    const memory = ready();
    memory.released = true;
    memory.cgroupRemoved = true;
    memory.filesRemoved = true;
    const made = plan(input(pod, nothingObserved, memory, { desired: undefined }));
    expect(made.done).toBe(true);
  });

  it('at its deadline fails the pod', () => {
    const pod = podOf([{ name: 'a' }], { activeDeadlineSeconds: 10 });
    const before = plan(input(pod, running(container('a')), ready()));
    expect([before.start.length, before.wakeAtMs]).toEqual([0, t0 + 10_000]);
    const made = plan(input(pod, running(container('a')), ready(), { facts: facts({ nowMs: t0 + 10_000 }) }));
    expect(made.termination?.status?.reason).toBe('DeadlineExceeded');
  });
});
