// Policies, reasons, messages and Events as the kubelet's; back-off; sharing and giving up.
import { describe, expect, it } from 'vitest';
import { createFakeRuntime } from '../../cri/fake-runtime.ts';
import { podTarget } from '../../kube/events.ts';
import type { Pod, PullPolicy } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createImagePuller, type ImagePullerOptions } from './image-puller.ts';
import { credentialHash, type Credential } from './keyring.ts';

const pod = (uid: string): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: `pod-${uid}`, namespace: 'default', uid },
  spec: { containers: [] },
});

function make(options: Partial<ImagePullerOptions> = {}) {
  const clock = createFakeClock();
  const runtime = createFakeRuntime({ clock });
  const events: string[] = [];
  const asked: string[] = [];
  let credentials: Credential[] = [];
  const puller = createImagePuller(
    {
      runtime,
      clock,
      log: silentLog,
      events: { record: (_about, type, reason, message) => void events.push(`${type} ${reason} ${message}`) },
      credentials: async () => credentials,
      onAsked: (policy, present, mustPull) => void asked.push(`${policy} ${present} ${mustPull}`),
    },
    { serializeImagePulls: false, registryPullQPS: 0, registryBurst: 0, ...options },
  );
  const ensure = (image: string, policy?: PullPolicy, uid = 'a', signal = new AbortController().signal) => {
    const done = puller.ensure({ pod: pod(uid), image, pullPolicy: policy, target: podTarget(pod(uid)) }, signal);
    done.catch(() => undefined);
    return done;
  };
  const pulls = () => runtime.faults.calls.filter(({ call }) => call === 'pullImage').length;
  return {
    clock,
    runtime,
    events,
    asked,
    puller,
    ensure,
    pulls,
    setCredentials(next: Credential[]) {
      credentials = next;
    },
  };
}

const credential = (username: string, password: string): Credential => ({
  auth: { username, password },
  source: undefined,
  hash: credentialHash({ username, password }),
});

describe('pull policy', () => {
  it('IfNotPresent uses what is there', async () => {
    const { runtime, ensure, events, pulls } = make();
    runtime.images.add({ name: 'example/app:1', uid: 1000 });
    expect(await ensure('example/app:1', 'IfNotPresent')).toMatchObject({ uid: 1000, username: '' });
    expect(pulls()).toBe(0);
    expect(events).toEqual([
      'Normal Pulled Container image "example/app:1" already present on machine and can be accessed by the pod',
    ]);
  });

  it('Always pulls what is there, and says how long it took and how big it is', async () => {
    const { runtime, ensure, events, clock } = make();
    runtime.images.add({ name: 'example/app:1' });
    runtime.images.publish({ name: 'example/app:1', pullMs: 1_500, sizeBytes: 12_345 });
    const done = ensure('example/app:1', 'Always');
    await clock.advance(1_500);
    expect((await done).imageRef).toMatch(/^sha256:/);
    expect(events).toEqual([
      'Normal Pulling Pulling image "example/app:1"',
      'Normal Pulled Successfully pulled image "example/app:1" in 1.5s (1.5s including waiting). Image size: 12345 bytes.',
    ]);
  });

  it('Never fails where there is none', async () => {
    const { ensure, events, pulls } = make();
    const message = 'Container image "example/app:1" is not present with pull policy of Never';
    await expect(ensure('example/app:1', 'Never')).rejects.toMatchObject({ reason: 'ErrImageNeverPull', message });
    expect(events).toEqual([`Warning ErrImageNeverPull ${message}`]);
    expect(pulls()).toBe(0);
  });

  it('is counted with what it came to', async () => {
    const { runtime, ensure, asked } = make();
    runtime.images.add({ name: 'here:1' });
    runtime.images.publish({ name: 'here:1' });
    runtime.images.publish({ name: 'there:1' });
    await ensure('here:1', 'IfNotPresent');
    await ensure('here:1', 'Always');
    await ensure('there:1', 'IfNotPresent');
    await ensure('nowhere:1', 'Never').catch(() => undefined);
    runtime.faults.inject('imageStatus', { mode: 'fail', code: 'unknown', detail: 'broken' });
    await ensure('here:1', 'Never').catch(() => undefined);
    expect(asked).toEqual([
      'IfNotPresent true false',
      'Always undefined true',
      'IfNotPresent false true',
      'Never false undefined',
      'Never undefined undefined',
    ]);
  });

  it.each([
    ['app', true],
    ['app:latest', true],
    ['app:1', false],
    [`app@sha256:${'a'.repeat(64)}`, false],
  ])('%s without a policy: pulled though present is %s', async (image, pulled) => {
    const { runtime, ensure, pulls } = make();
    runtime.images.add({ name: image });
    runtime.images.publish({ name: image });
    await ensure(image);
    expect(pulls()).toBe(pulled ? 1 : 0);
  });
});

describe('failures', () => {
  it('an invalid name is told, and the runtime is not asked', async () => {
    const { runtime, ensure, events } = make();
    const message =
      'Failed to apply default image tag "Bad/Name": couldn\'t parse image name "Bad/Name": invalid reference format: repository name (Name) must be lowercase';
    await expect(ensure('Bad/Name')).rejects.toMatchObject({ reason: 'InvalidImageName', message });
    expect(events).toEqual([`Warning InspectFailed ${message}`]);
    expect(runtime.faults.calls).toEqual([]);
  });

  it('a runtime that cannot look is ImageInspectError', async () => {
    const { runtime, ensure } = make();
    runtime.faults.inject('imageStatus', { mode: 'fail', code: 'unknown', detail: 'broken' });
    await expect(ensure('app:1', 'IfNotPresent')).rejects.toMatchObject({
      reason: 'ImageInspectError',
      message: 'Failed to inspect image "app:1": broken',
    });
  });

  it.each([
    [
      'RegistryUnavailable: down',
      'RegistryUnavailable',
      'image pull failed for app:1 because the registry is unavailable: down',
    ],
    [
      'SignatureValidationFailed: bad',
      'SignatureValidationFailed',
      'image pull failed for app:1 because the signature validation failed: bad',
    ],
    ['something else', 'ErrImagePull', 'something else'],
  ])('%s', async (error, reason, message) => {
    const { runtime, ensure } = make();
    runtime.images.publish({ name: 'app:1', error });
    await expect(ensure('app:1')).rejects.toMatchObject({ reason, message });
  });

  it('back off from 10 s to 300 s, for each pod by itself, telling the last error', async () => {
    const { runtime, ensure, events, clock, pulls } = make();
    runtime.images.publish({ name: 'app:1', error: 'no route' });
    await expect(ensure('app:1')).rejects.toMatchObject({ reason: 'ErrImagePull', retryAfterMs: 1_000 });
    await clock.advance(1_000);
    await expect(ensure('app:1')).rejects.toMatchObject({
      reason: 'ImagePullBackOff',
      message: 'Back-off pulling image "app:1": ErrImagePull: no route',
      retryAfterMs: 9_000,
    });
    expect(events).toEqual([
      'Normal Pulling Pulling image "app:1"',
      'Warning Failed Failed to pull image "app:1": no route',
      'Normal BackOff Back-off pulling image "app:1"',
    ]);
    await expect(ensure('app:1', undefined, 'b')).rejects.toMatchObject({ reason: 'ErrImagePull' });
    const delays: number[] = [];
    for (let turn = 0; turn < 7; turn++) {
      const before = pulls();
      const waited = await ensure('app:1').catch((error: { retryAfterMs: number }) => error.retryAfterMs);
      await clock.advance(waited as number);
      expect(pulls()).toBe(before);
      await expect(ensure('app:1')).rejects.toMatchObject({ reason: 'ErrImagePull' });
      expect(pulls()).toBe(before + 1);
      delays.push(waited as number);
    }
    expect(delays).toEqual([9_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
  });

  it('a success ends the back-off’s message, and forgetting a pod ends its back-off', async () => {
    const { runtime, ensure, puller, clock } = make();
    runtime.images.publish({ name: 'app:1', error: 'no route' });
    await ensure('app:1').catch(() => undefined);
    runtime.images.publish({ name: 'app:1' });
    await expect(ensure('app:1')).rejects.toMatchObject({ reason: 'ImagePullBackOff' });
    puller.forget('a');
    await ensure('app:1');
    await clock.advance(0);
  });
});

describe('pulling together', () => {
  it('pods that want the same with equal credentials share one pull; each has its Events', async () => {
    const { runtime, ensure, clock, pulls, events } = make();
    runtime.images.publish({ name: 'app:1', pullMs: 1_000 });
    const all = ['a', 'b', 'c'].map((uid) => ensure('app:1', 'Always', uid));
    await clock.advance(1_000);
    await Promise.all(all);
    expect(pulls()).toBe(1);
    expect(events.filter((event) => event.startsWith('Normal Pulled'))).toHaveLength(3);
  });

  it('other credentials pull by themselves', async () => {
    const { runtime, ensure, clock, pulls, setCredentials } = make();
    runtime.images.publish({ name: 'app:1', pullMs: 1_000 });
    setCredentials([credential('a', '1')]);
    const first = ensure('app:1', 'Always', 'a');
    await clock.advance(0);
    setCredentials([credential('b', '2')]);
    const second = ensure('app:1', 'Always', 'b');
    await clock.advance(1_000);
    await Promise.all([first, second]);
    expect(pulls()).toBe(2);
  });

  it('one that gives up leaves the others their pull; when all have, the pull is aborted', async () => {
    const { runtime, ensure, clock } = make();
    runtime.images.publish({ name: 'app:1', pullMs: 10_000 });
    const controllers = [new AbortController(), new AbortController()];
    const waits = controllers.map((controller, index) => ensure('app:1', 'Always', `p${index}`, controller.signal));
    await clock.advance(100);
    controllers[0]?.abort(new Error('the pod is gone'));
    await expect(waits[0]).rejects.toThrow('the pod is gone');
    await clock.advance(100);
    expect(runtime.faults.calls.map(({ outcome }) => outcome)).toEqual(['running']);
    controllers[1]?.abort(new Error('gone too'));
    await expect(waits[1]).rejects.toThrow('gone too');
    await clock.advance(0);
    expect(runtime.faults.calls.map(({ outcome }) => outcome)).toEqual(['aborted']);
    // Nothing was counted as a failure.
    const again = ensure('app:1', 'Always', 'p0');
    await clock.advance(10_000);
    await again;
  });

  it.each([
    [{ serializeImagePulls: true }, 3_000],
    [{ serializeImagePulls: false, maxParallelImagePulls: 2 }, 2_000],
    [{ serializeImagePulls: false }, 1_000],
  ])('%o: three images of a second each take %i ms', async (options, tookMs) => {
    const { runtime, ensure, clock } = make(options);
    const start = clock.now();
    let lastMs = 0;
    const all = ['x:1', 'y:1', 'z:1'].map((name, index) => {
      runtime.images.publish({ name, pullMs: 1_000 });
      return ensure(name, 'Always', `p${index}`).then(() => {
        lastMs = clock.now() - start;
      });
    });
    for (let turn = 0; turn < 40; turn++) await clock.advance(100);
    await Promise.all(all);
    expect(lastMs).toBe(tookMs);
  });

  it('a turn that nobody takes any more is passed on', async () => {
    const { runtime, ensure, clock } = make({ serializeImagePulls: true });
    for (const name of ['x:1', 'y:1', 'z:1']) runtime.images.publish({ name, pullMs: 1_000 });
    const controller = new AbortController();
    const first = ensure('x:1', 'Always', 'a');
    const second = ensure('y:1', 'Always', 'b', controller.signal);
    const third = ensure('z:1', 'Always', 'c');
    await clock.advance(500);
    controller.abort(new Error('gone'));
    await expect(second).rejects.toThrow('gone');
    await clock.advance(500);
    await first;
    await clock.advance(1_000);
    await third;
  });
});

describe('credentials', () => {
  it('are tried in turn until the registry takes one', async () => {
    const { runtime, ensure, setCredentials, pulls } = make();
    runtime.images.publish({ name: 'reg.example/app:1', auth: { username: 'b', password: '2' } });
    setCredentials([credential('a', '1'), credential('b', '2')]);
    await ensure('reg.example/app:1');
    expect(pulls()).toBe(2);
  });

  it('that all fail give one message', async () => {
    const { runtime, ensure, setCredentials } = make();
    runtime.images.publish({ name: 'reg.example/app:1', auth: { username: 'c', password: '3' } });
    setCredentials([credential('a', '1'), credential('b', '2')]);
    await expect(ensure('reg.example/app:1')).rejects.toMatchObject({
      reason: 'ErrImagePull',
      message: expect.stringMatching(/401 Unauthorized$/),
    });
  });
});
