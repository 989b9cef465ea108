import { describe, expect, it } from 'vitest';
import { RuntimeError } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerInspection, ContainerSummary, RuntimeEvent } from '../../cri/types.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createObserver } from './observer.ts';

const container = (state: 'running' | 'exited', attempt = 0, createdAtMs = 0) =>
  ({
    id: `c${attempt}`,
    sandboxId: 's',
    metadata: { name: 'c', attempt },
    image: '',
    imageRef: '',
    imageId: '',
    state,
    createdAtMs,
    labels: { 'io.kubernetes.pod.uid': 'u' },
    annotations: {},
    startedAtMs: 0,
    finishedAtMs: 0,
    exitCode: 0,
    reason: '',
    message: '',
    mounts: [],
    logPath: '',
  }) as unknown as ContainerSummary & ContainerInspection;

function lab(
  containers: () => readonly (ContainerSummary & ContainerInspection)[],
  kernelKilled: (id: string) => boolean = () => false,
) {
  const clock = createFakeClock();
  const changes: string[] = [];
  let send: (event: RuntimeEvent) => void = () => undefined;
  let away = false;
  const seen: (string | undefined)[] = [];
  const asked: string[] = [];
  const runtime = {
    listSandboxes: async () => {
      if (away) throw new RuntimeError('unavailable', 'ListPodSandbox', 'gone');
      return [];
    },
    listContainers: async () => {
      asked.push('list');
      return containers();
    },
    inspectContainer: async (id: string) => {
      asked.push(id);
      const found = containers().find((each) => each.id === id);
      if (!found) throw new RuntimeError('not-found', 'ContainerStatus', 'gone');
      return found;
    },
    async *events(signal: AbortSignal) {
      while (!signal.aborted) yield await new Promise<RuntimeEvent>((resolve) => (send = resolve));
    },
  } as unknown as Runtime;
  const observer = createObserver({
    runtime,
    clock,
    log: silentLog,
    terminationMessage: async () => undefined,
    oomKills: { begin: async () => undefined, killed: async (_uid, id) => kernelKilled(id), forget: () => undefined },
    onChange: (uid) => changes.push(uid),
    onSeen: (uid) => seen.push(observer.last(uid).containers[0]?.state),
  });
  return {
    clock,
    observer,
    changes,
    seen,
    asked,
    tell: (event: RuntimeEvent) => send(event),
    setAway: (now: boolean): void => {
      away = now;
    },
  };
}

/** A lab that hears events and has seen the pod; what it asked for that is forgotten. */
async function listening(containers: () => readonly (ContainerSummary & ContainerInspection)[]) {
  const made = lab(containers);
  const abort = new AbortController();
  void made.observer.run(abort.signal);
  await made.observer.relist();
  await made.observer.observe('u');
  await made.clock.advance(0);
  made.asked.length = 0;
  return { ...made, abort };
}

describe('the observer', () => {
  it('looks again where an event comes before the runtime’s own state', async () => {
    let state: 'running' | 'exited' = 'running';
    const { clock, observer, changes, tell } = lab(() => [container(state)]);
    const abort = new AbortController();
    void observer.run(abort.signal);
    await observer.relist();
    await observer.observe('u');
    await clock.advance(0);
    tell({ kind: 'stopped', containerId: 'c0', sandboxId: undefined, podUid: 'u' } as unknown as RuntimeEvent);
    await clock.advance(0);
    expect((await observer.observe('u')).containers[0]?.state).toBe('running');
    state = 'exited';
    changes.length = 0;
    await clock.advance(400);
    expect(changes).toContain('u');
    expect((await observer.observe('u')).containers[0]?.state).toBe('exited');
    abort.abort();
  });

  const ended = (exitCode: number, reason: string) => ({ ...container('exited'), exitCode, reason });
  it.each<[string, number, string, { kernel?: boolean; event?: 'before' | 'after'; stopped?: boolean }, string]>([
    ['killed, the kernel says for want of memory', 137, 'Error', { kernel: true }, 'OOMKilled'],
    ['killed, the runtime told before', 137, 'Error', { event: 'before' }, 'OOMKilled'],
    ['killed, the runtime tells later', 137, '', { event: 'after' }, 'OOMKilled'],
    ['killed by somebody', 137, 'Error', {}, 'Error'],
    ['killed by us', 137, 'Error', { kernel: true, event: 'before', stopped: true }, 'Error'],
    ['failed by itself', 1, 'Error', { kernel: true, event: 'before' }, 'Error'],
    ['killed, and the runtime knows why', 137, 'ContainerCannotRun', { kernel: true }, 'ContainerCannotRun'],
  ])('a container %s', async (_what, exitCode, reason, { kernel = false, event, stopped }, shown) => {
    let now = container('running');
    const { clock, observer, changes, tell } = lab(
      () => [now],
      () => kernel,
    );
    const abort = new AbortController();
    void observer.run(abort.signal);
    await observer.relist();
    await observer.observe('u');
    await clock.advance(0);
    const say = async (kind: 'oom' | 'stopped'): Promise<void> => {
      tell({ kind, containerId: 'c0', sandboxId: undefined, podUid: 'u' } as unknown as RuntimeEvent);
      await clock.advance(0);
    };
    if (stopped) observer.stopping('c0');
    if (event === 'before') await say('oom');
    now = ended(exitCode, reason);
    await say('stopped');
    await observer.observe('u');
    changes.length = 0;
    if (event === 'after') {
      await say('oom');
      expect(changes).toEqual(['u']);
    }
    expect((await observer.observe('u')).containers[0]?.reason).toBe(shown);
    abort.abort();
  });

  it('takes the highest attempt for the newest, whatever the clock has done', async () => {
    const { observer } = lab(() => [container('exited', 1, 900), container('running', 2, 100)]);
    await observer.relist();
    expect((await observer.observe('u')).containers.map(({ metadata }) => metadata.attempt)).toEqual([2, 1]);
  });

  it('asks again for what it could not see', async () => {
    const { observer, setAway } = lab(() => [container('running')]);
    await observer.relist();
    setAway(true);
    await expect(observer.observe('u')).rejects.toThrow('gone');
    setAway(false);
    expect((await observer.observe('u')).containers).toHaveLength(1);
  });

  it('asks once more for what others made or removed, and not for what is known', async () => {
    let lists = 0;
    let all = [container('running')];
    const { clock, observer, changes, tell } = lab(() => {
      lists++;
      return all;
    });
    const abort = new AbortController();
    void observer.run(abort.signal);
    await observer.relist();
    await observer.observe('u');
    const event = (kind: 'started' | 'deleted') =>
      ({ kind, containerId: 'c0', sandboxId: undefined, podUid: 'u' }) as unknown as RuntimeEvent;
    changes.length = 0;
    lists = 0;
    await clock.advance(0);
    tell(event('started'));
    await clock.advance(500);
    expect(changes).toEqual([]);
    all = [];
    tell(event('deleted'));
    await clock.advance(50);
    expect(changes).toEqual([]);
    await clock.advance(100);
    expect(changes).toEqual(['u']);
    expect((await observer.observe('u')).containers).toEqual([]);
    expect(lists).toBe(1);
    abort.abort();
  });

  it('asks for what was touched alone', async () => {
    let all = [container('running')];
    const { observer, asked } = lab(() => all);
    await observer.relist();
    await observer.observe('u');
    asked.length = 0;
    all = [container('exited'), container('running', 1)];
    observer.invalidate('u', { container: 'c0' as never, sandboxId: 's' as never });
    expect((await observer.observe('u')).containers.map(({ id, state }) => [id, state])).toEqual([['c0', 'exited']]);
    observer.invalidate('u', { container: 'c1' as never, sandboxId: 's' as never });
    expect((await observer.observe('u')).containers.map(({ id }) => id)).toEqual(['c1', 'c0']);
    expect(asked).toEqual(['c0', 'c1']);
    all = [container('exited')];
    observer.invalidate('u', { container: 'c1' as never, sandboxId: 's' as never });
    expect((await observer.observe('u')).containers.map(({ id }) => id)).toEqual(['c0']);
    expect(asked).toEqual(['c0', 'c1', 'c1']);
  });

  it('lists nothing again that it knows from what was touched', async () => {
    let all = [container('running')];
    const { observer, changes } = lab(() => all);
    await observer.relist();
    await observer.observe('u');
    all = [container('exited'), container('running', 1)];
    for (const id of ['c0', 'c1']) observer.invalidate('u', { container: id as never, sandboxId: 's' as never });
    await observer.observe('u');
    changes.length = 0;
    await observer.relist();
    expect(changes).toEqual([]);
  });

  it('takes an end from the event that brings it', async () => {
    const { clock, observer, asked, tell, abort } = await listening(() => [container('running')]);
    const inspection = { ...container('exited'), exitCode: 3 };
    tell({ kind: 'stopped', containerId: 'c0', sandboxId: undefined, podUid: 'u', inspection });
    await clock.advance(0);
    expect((await observer.observe('u')).containers[0]).toMatchObject({ state: 'exited', exitCode: 3 });
    expect(asked).toEqual([]);
    abort.abort();
  });

  it('takes a start from the event that brings it, unless an end came since', async () => {
    let all = [container('exited')];
    const { clock, observer, asked, tell, abort } = await listening(() => all);
    const started = async (attempt: number): Promise<void> => {
      all = [container('exited', attempt), ...all];
      const inspection = { ...container('running', attempt), startedAtMs: 7 };
      tell({ kind: 'started', containerId: `c${attempt}`, sandboxId: undefined, podUid: 'u', inspection });
      await clock.advance(0);
    };
    await started(1);
    const look = { sandboxId: 's' as never };
    observer.invalidate('u', { container: 'c1' as never, ...look });
    expect((await observer.observe('u')).containers[0]).toMatchObject({ id: 'c1', state: 'running', startedAtMs: 7 });
    expect(asked).toEqual([]);
    await started(2);
    tell({ kind: 'stopped', containerId: 'c2', sandboxId: undefined, podUid: 'u' });
    await clock.advance(0);
    observer.invalidate('u', { container: 'c2' as never, ...look });
    expect((await observer.observe('u')).containers[0]).toMatchObject({ id: 'c2', state: 'exited' });
    abort.abort();
  });

  it('believes the list and not what was told of a start before it', async () => {
    let all = [container('exited')];
    const { clock, observer, tell, abort } = await listening(() => all);
    const inspection = container('running', 1);
    tell({ kind: 'started', containerId: 'c1', sandboxId: undefined, podUid: 'u', inspection });
    await clock.advance(0);
    // The runtime went away with the start unanswered, and the container with it.
    all = [container('exited', 1), container('exited')];
    await observer.relist();
    expect((await observer.observe('u')).containers[0]).toMatchObject({ id: 'c1', state: 'exited' });
    abort.abort();
  });

  it('knows of a running container that its process has ended until the runtime does', async () => {
    let state: 'running' | 'exited' = 'running';
    const { clock, observer, changes, asked, tell } = lab(() => [container(state)]);
    const abort = new AbortController();
    void observer.run(abort.signal);
    await observer.relist();
    await observer.observe('u');
    await clock.advance(0);
    changes.length = 0;
    asked.length = 0;
    tell({ kind: 'ending', containerId: 'c0', exitCode: 7, finishedAtMs: 5 });
    await clock.advance(0);
    expect(changes).toEqual(['u']);
    const ending = { exitCode: 7, finishedAtMs: 5 };
    expect((await observer.observe('u')).containers[0]).toMatchObject({ state: 'running', ending });
    expect(asked).toEqual([]);
    observer.invalidate('u');
    expect((await observer.observe('u')).containers[0]).toMatchObject({ state: 'running', ending });
    state = 'exited';
    observer.invalidate('u');
    expect((await observer.observe('u')).containers[0]?.ending).toBeUndefined();
    changes.length = 0;
    for (const id of ['c0', 'another']) {
      tell({ kind: 'ending', containerId: id, exitCode: 7, finishedAtMs: 5 });
      await clock.advance(0);
    }
    expect(changes).toEqual([]);
    abort.abort();
  });

  it('shows no more what was dropped, without asking', async () => {
    const { observer } = lab(() => [container('exited')]);
    await observer.relist();
    await observer.observe('u');
    observer.drop('u', 'c0' as never);
    expect((await observer.observe('u')).containers).toEqual([]);
  });

  it('tells when something else is known of a pod, also where the runtime told nothing', async () => {
    let state: 'running' | 'exited' = 'running';
    const { observer, changes, seen } = lab(() => [container(state)]);
    await observer.relist();
    await observer.observe('u');
    state = 'exited';
    changes.length = 0;
    // We have stopped it: that is known from the call, and no event is news then.
    observer.invalidate('u', { container: 'c0' as never, sandboxId: 's' as never });
    await observer.observe('u');
    observer.drop('u', 'c0' as never);
    observer.forget('u');
    expect(seen).toEqual(['running', 'exited', undefined, undefined]);
    expect(changes).toEqual([]);
  });

  it('hears no more of a pod that is forgotten', async () => {
    const { clock, observer, changes, tell } = lab(() => []);
    const abort = new AbortController();
    void observer.run(abort.signal);
    await observer.relist();
    for (const kind of ['stopped', 'deleted'] as const) {
      await clock.advance(0);
      tell({ kind, containerId: 'c0', sandboxId: undefined, podUid: 'gone' } as unknown as RuntimeEvent);
      await clock.advance(500);
    }
    expect(changes).toEqual([]);
    abort.abort();
  });
});
