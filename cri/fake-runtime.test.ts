// The fake keeps the port's contract, and its faults, scripts and events do what tests rely on.
import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { leastContainer, leastSandbox } from './configs.fixture.ts';
import { commands, runtimeContract, workloads, type ContractSubject } from './contract.ts';
import { createFakeRuntime } from './fake-runtime.ts';
import type { ContainerConfig, RuntimeEvent, SandboxConfig } from './types.ts';

const image = 'localhost/stevedore/demo:1';
const same = (left: readonly string[], right: readonly string[]): boolean => left.join('\0') === right.join('\0');

function contractSubject(): ContractSubject {
  const clock = createFakeClock();
  const runtime = createFakeRuntime({ clock }, { images: [image] });
  const exec = (command: readonly string[]) =>
    same(command, commands.speaks)
      ? { stdout: 'out\n', stderr: 'err\n', exitCode: 7 }
      : same(command, commands.hangs)
        ? { afterMs: 60_000 }
        : {};
  runtime.behave(() => true, { exec });
  const script = (command: readonly string[], behaviour: Parameters<typeof runtime.behave>[1]) =>
    runtime.behave((config) => same(config.command, command), { exec, ...behaviour });
  script(workloads.succeeds, { exitAfterMs: 50 });
  script(workloads.fails, { exitAfterMs: 50, exitCode: 3 });
  script(workloads.ignoresTerm, { onStop: 'ignore' });
  script(workloads.cannotStart, { failStart: 'exec: "/no/such/program": no such file or directory' });
  return {
    runtime,
    image,
    logDirectory: '/var/log/pods/contract',
    cgroupParent: '/contract',
    real: false,
    quirks: [],
    unreachable() {
      const other = createFakeRuntime({ clock });
      other.setDown(true);
      return other;
    },
    pass: (ms) => clock.advance(ms),
  };
}

const subject = contractSubject();
runtimeContract('the fake', () => subject);

const sandbox = (uid = 'uid-1', attempt = 0): SandboxConfig =>
  leastSandbox({
    metadata: { name: 'pod', uid, namespace: 'default', attempt },
    labels: { 'io.kubernetes.pod.uid': uid },
    logDirectory: '/logs',
  });

const container = (attempt = 0): ContainerConfig =>
  leastContainer(image, [], { metadata: { name: 'main', attempt }, logPath: 'main/0.log' });

describe('faults', () => {
  const make = () => {
    const clock = createFakeClock();
    return { clock, runtime: createFakeRuntime({ clock }, { images: [image] }) };
  };

  it('fail without effect, or with it', async () => {
    const { runtime } = make();
    runtime.faults.inject('runSandbox', { mode: 'fail', detail: 'no' });
    await expect(runtime.runSandbox(sandbox(), '')).rejects.toMatchObject({ code: 'unavailable', detail: 'no' });
    expect(runtime.sandboxes()).toEqual([]);
    runtime.faults.inject('runSandbox', { mode: 'fail', code: 'deadline', applied: true });
    await expect(runtime.runSandbox(sandbox(), '')).rejects.toMatchObject({ code: 'deadline' });
    expect(runtime.sandboxes()).toHaveLength(1);
    await expect(runtime.runSandbox(sandbox(), '')).rejects.toMatchObject({ code: 'already-exists' });
    expect(runtime.faults.calls.map(({ call, outcome }) => [call, outcome])).toEqual([
      ['runSandbox', 'unavailable'],
      ['runSandbox', 'deadline'],
      ['runSandbox', 'already-exists'],
    ]);
  });

  it('hang until the call’s time is up', async () => {
    const { runtime, clock } = make();
    runtime.faults.inject('*', { mode: 'hang' });
    const listing = runtime.listSandboxes();
    const failed = expect(listing).rejects.toMatchObject({ code: 'deadline' });
    await clock.advance(29_999);
    expect(runtime.faults.calls[0]?.outcome).toBe('running');
    await clock.advance(1);
    await failed;
    expect(await runtime.listSandboxes()).toEqual([]);
  });

  it('answer late: the effect is there before the answer', async () => {
    const { runtime, clock } = make();
    runtime.faults.inject('runSandbox', { mode: 'late', ms: 500 });
    const running = runtime.runSandbox(sandbox(), '');
    await clock.advance(499);
    expect(runtime.sandboxes()).toHaveLength(1);
    expect(runtime.faults.calls[0]?.outcome).toBe('running');
    await clock.advance(1);
    expect(await running).toBe(runtime.sandboxes()[0]?.id);
  });

  it('meet only the subject they are for', async () => {
    const { runtime } = make();
    const id = await runtime.runSandbox(sandbox(), '');
    runtime.faults.inject('createContainer', { mode: 'fail', on: 'other' });
    await runtime.createContainer(id, container(), sandbox());
    expect(runtime.containers()).toHaveLength(1);
  });

  it('a runtime that is down is unavailable, and says lost when it is back', async () => {
    const { runtime, clock } = make();
    const events: RuntimeEvent[] = [];
    const controller = new AbortController();
    const reading = (async () => {
      for await (const event of runtime.events(controller.signal)) events.push(event);
    })();
    await clock.advance(0);
    runtime.setDown(true);
    await expect(runtime.runSandbox(sandbox(), '')).rejects.toMatchObject({ code: 'unavailable' });
    runtime.setDown(false);
    await clock.advance(0);
    expect(events).toEqual([{ kind: 'lost' }, { kind: 'lost' }]);
    controller.abort();
    await reading;
  });
});

describe('containers by script', () => {
  it('notes when the same container of a pod runs twice', async () => {
    const clock = createFakeClock();
    const runtime = createFakeRuntime({ clock }, { images: [image] });
    const id = await runtime.runSandbox(sandbox(), '');
    for (const attempt of [0, 1])
      await runtime.startContainer(await runtime.createContainer(id, container(attempt), sandbox()));
    expect(runtime.violations).toEqual([expect.stringContaining('container main of pod uid-1 runs twice')]);
  });

  it('events can be lost and doubled', async () => {
    const clock = createFakeClock();
    const runtime = createFakeRuntime({ clock }, { images: [image] });
    runtime.mapEvents((event) => (event.kind === 'created' ? [] : [event, event]));
    const kinds: string[] = [];
    const controller = new AbortController();
    const reading = (async () => {
      for await (const event of runtime.events(controller.signal)) kinds.push(event.kind);
    })();
    await runtime.runSandbox(sandbox(), '');
    await clock.advance(0);
    expect(kinds).toEqual(['lost', 'started', 'started']);
    controller.abort();
    await reading;
  });

  it('registries want credentials and are slow', async () => {
    const clock = createFakeClock();
    const runtime = createFakeRuntime({ clock });
    const name = 'registry.example/private:1';
    runtime.images.publish({ name, pullMs: 3_000, auth: { username: 'me', password: 'secret' } });
    const refused = expect(runtime.pullImage({ image: name }, undefined, undefined)).rejects.toMatchObject({
      code: 'unauthorized',
    });
    await clock.advance(3_000);
    await refused;
    const pulling = runtime.pullImage({ image: name }, { username: 'me', password: 'secret' }, undefined);
    await clock.advance(2_999);
    expect(runtime.images.find(name)).toBeUndefined();
    await clock.advance(1);
    expect(runtime.images.find(name)?.id).toBe(await pulling);
  });
});
