// The port's terms over the wire and back, and the runtime's errors as ours.
import { status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type * as t from '../types.ts';
import { classifyError } from './classify.ts';
import { endingOf, eventOfCri, eventOfEnvelope } from './event-stream.ts';
import * as from from './from-wire.ts';
import { Envelope, TaskExit } from './gen/containerd-events.ts';
import * as wire from './gen/cri.ts';
import { signalFromWire, signalToWire } from './signals.ts';
import * as to from './to-wire.ts';

describe('errors', () => {
  const grpc = (code: number, details: string) => Object.assign(new Error(`${code} ${details}`), { code, details });
  it.each([
    ['ContainerStatus', status.NOT_FOUND, 'an error occurred when try to find container "x": not found', 'not-found'],
    [
      'RunPodSandbox',
      status.UNKNOWN,
      'failed to reserve sandbox name "a": name "a" is reserved for "b"',
      'already-exists',
    ],
    ['RunPodSandbox', status.FAILED_PRECONDITION, 'name "a" is reserved for "b"', 'already-exists'],
    ['ExecSync', status.DEADLINE_EXCEEDED, 'failed to exec: timeout 1s exceeded', 'deadline'],
    ['ExecSync', status.UNKNOWN, 'timeout 1s exceeded: context deadline exceeded', 'deadline'],
    ['Exec', status.UNKNOWN, 'container is in CONTAINER_EXITED state', 'unknown'],
    ['StopContainer', status.UNKNOWN, 'no such container', 'not-found'],
    ['Version', status.UNAVAILABLE, 'No connection established', 'unavailable'],
    ['RuntimeConfig', status.UNIMPLEMENTED, 'unknown method', 'unimplemented'],
    ['CreateContainer', status.INVALID_ARGUMENT, 'bad', 'invalid'],
    ['PullImage', status.UNKNOWN, 'failed to authorize: unexpected status: 401 Unauthorized', 'unauthorized'],
    ['PullImage', status.NOT_FOUND, 'docker.io/library/x:1: not found', 'not-found'],
    ['PullImage', status.PERMISSION_DENIED, 'pull access denied', 'unauthorized'],
    ['ListContainers', status.RESOURCE_EXHAUSTED, 'Received message larger than max', 'resource-exhausted'],
  ])('%s %i %j is %s', (call, code, details, expected) => {
    const error = classifyError(call, grpc(code, details));
    expect(error).toMatchObject({ name: 'RuntimeError', code: expected, call, detail: details });
    expect(error.message).toBe(`${call}: ${details}`);
  });

  it('what is not gRPC’s is unknown', () => {
    expect(classifyError('Version', new TypeError('x'))).toMatchObject({ code: 'unknown', detail: 'x' });
  });
});

describe('signals', () => {
  it('go over the wire by their place in CRI’s list', () => {
    // Numbers of the protocol.
    expect(signalToWire('SIGABRT')).toBe(1);
    expect(signalToWire('SIGKILL')).toBe(13);
    expect(signalToWire('SIGTERM')).toBe(23);
    expect(signalToWire('SIGUSR1')).toBe(29);
    expect(signalToWire('SIGXFSZ')).toBe(34);
    expect(signalToWire('SIGRTMIN')).toBe(35);
    expect(signalToWire('SIGRTMIN+15')).toBe(50);
    expect(signalToWire('SIGRTMAX-14')).toBe(51);
    expect(signalToWire('SIGRTMAX')).toBe(65);
    expect(signalToWire(undefined)).toBe(0);
    expect(signalFromWire(0)).toBeUndefined();
  });

  it('come back as they went', () => {
    for (let place = 1; place <= 65; place++) expect(signalToWire(signalFromWire(place))).toBe(place);
  });
});

describe('messages', () => {
  const text = fc.string({ maxLength: 12 });
  const resources: fc.Arbitrary<t.LinuxResources> = fc.record({
    cpuPeriod: fc.nat(),
    cpuQuota: fc.integer(),
    cpuShares: fc.nat(),
    memoryLimitInBytes: fc.nat({ max: 2 ** 50 }),
    memorySwapLimitInBytes: fc.nat({ max: 2 ** 50 }),
    oomScoreAdj: fc.integer({ min: -1000, max: 1000 }),
    cpusetCpus: text,
    cpusetMems: text,
    hugepageLimits: fc.array(fc.record({ pageSize: text, limit: fc.nat({ max: 2 ** 50 }) }), { maxLength: 2 }),
    unified: fc.dictionary(fc.stringMatching(/^[a-z.]{1,8}$/), text, { maxKeys: 2, noNullPrototype: true }),
  });

  it('resources keep every value, through the bytes', () => {
    fc.assert(
      fc.property(resources, (value) => {
        const message = wire.LinuxContainerResources.fromPartial(to.resourcesToWire(value) ?? {});
        const decoded = wire.LinuxContainerResources.decode(wire.LinuxContainerResources.encode(message).finish());
        expect(from.resourcesFromWire(decoded)).toEqual(value);
      }),
    );
  });

  it('what a newer runtime adds is passed over', () => {
    const known = wire.VersionResponse.encode(wire.VersionResponse.fromPartial({ runtimeName: 'x' })).finish();
    const unknown = new Uint8Array([0xfa, 0x3e, 0x02, 0x68, 0x69]); // field 1007
    expect(wire.VersionResponse.decode(Buffer.concat([known, unknown])).runtimeName).toBe('x');
  });

  it('times are milliseconds, and what never was is 0', () => {
    expect(from.msFromNs(1_795_262_092_844_123_456n)).toBe(1_795_262_092_844);
    expect(from.msFromNs(0n)).toBe(0);
    expect(from.msFromNs(-62_135_596_800_000_000_000n)).toBe(0);
  });

  it('a container does not end before it began', () => {
    const at = (startedAt: bigint, finishedAt: bigint) => {
      const seen = from.inspectionFromWire(wire.ContainerStatus.fromPartial({ id: 'c', startedAt, finishedAt }), {});
      return [seen.startedAtMs, seen.finishedAtMs];
    };
    expect(at(1_693_000_000n, 1_687_000_000n)).toEqual([1687, 1687]);
    expect(at(1_693_000_000n, 1_700_000_000n)).toEqual([1693, 1700]);
    expect(at(1_693_000_000n, 0n)).toEqual([1693, 0]);
    expect(at(0n, 1_700_000_000n)).toEqual([0, 1700]);
  });

  it('verbose answers give pid and network namespace, and garbage gives none', () => {
    const status = wire.PodSandboxStatus.fromPartial({
      id: 's',
      network: { ip: '10.0.0.2', additionalIps: [{ ip: 'fd00::2' }] },
    });
    const info = JSON.stringify({
      pid: 42,
      image: 'pause:3',
      runtimeSpec: { linux: { namespaces: [{ type: 'pid' }, { type: 'network', path: '/run/netns/x' }] } },
    });
    expect(from.sandboxStatusFromWire(status, { info })).toMatchObject({
      ips: ['10.0.0.2', 'fd00::2'],
      pid: 42,
      networkNamespace: '/run/netns/x',
      image: 'pause:3',
    });
    expect(from.sandboxStatusFromWire(status, { info: '{' }).pid).toBeUndefined();
    expect(from.sandboxStatusFromWire(status, { info: '[1]' }).networkNamespace).toBeUndefined();
  });

  it.each([
    [
      { containerd: { runtimes: { runc: { options: { SystemdCgroup: true } } }, defaultRuntimeName: 'runc' } },
      'systemd',
    ],
    [{ containerd: { runtimes: { runc: { options: { SystemdCgroup: false } } } } }, 'cgroupfs'],
    [{ systemdCgroup: true, containerd: {} }, 'systemd'],
    [{}, undefined],
  ])('the cgroup driver of %j is %s', (config, driver) => {
    expect(from.driverFromInfo({ config: JSON.stringify(config) })).toBe(driver);
  });
});

describe('containerd’s own events', () => {
  const envelope = (topic: string, value: Uint8Array): Envelope =>
    Envelope.fromPartial({ namespace: 'k8s.io', topic, event: { typeUrl: '', value } });
  const subject = TaskExit.encode(TaskExit.fromPartial({ containerId: 'c' })).finish();

  it.each([
    ['/tasks/start', 'started'],
    ['/tasks/oom', 'oom'],
    ['/containers/create', 'created'],
    ['/containers/delete', 'deleted'],
  ])('%s is %s', (topic, kind) => {
    expect(eventOfEnvelope(envelope(topic, subject))).toMatchObject({ kind, containerId: 'c' });
  });

  it('an exit tells the code and the time', () => {
    const exitedAt = { seconds: 1_700_000_000n, nanos: 123_456_789 };
    const exit = TaskExit.encode({ containerId: 'c', id: 'c', exitStatus: 137, exitedAt }).finish();
    expect(endingOf(envelope('/tasks/exit', exit))).toEqual({
      kind: 'ending',
      containerId: 'c',
      exitCode: 137,
      finishedAtMs: 1_700_000_000_123,
    });
  });

  it('of the CRI belong to the pod that the sandbox is labelled with, and bring what the container is like', () => {
    const told = (sandbox?: wire.EventSandbox) =>
      eventOfCri(
        wire.ContainerEventResponse.fromPartial({
          containerId: 'c',
          containerEventType: wire.ContainerEventType.CONTAINER_STARTED_EVENT,
          ...(sandbox ? { podSandboxStatus: sandbox } : {}),
        }),
      );
    expect(told({ id: 's', labels: { 'io.kubernetes.pod.uid': 'u' } })).toEqual({
      kind: 'started',
      containerId: 'c',
      sandboxId: 's',
      podUid: 'u',
    });
    expect(told({ id: 's', labels: {} }).podUid).toBeUndefined();
    const statuses = ['b', 'c'].map((id) => ({
      id,
      state: wire.ContainerState.CONTAINER_RUNNING,
      startedAt: 5_000_000n,
    }));
    const withStatuses = (containerEventType: wire.ContainerEventType) =>
      eventOfCri(
        wire.ContainerEventResponse.fromPartial({ containerId: 'c', containerEventType, containersStatuses: statuses }),
      );
    expect(withStatuses(wire.ContainerEventType.CONTAINER_STARTED_EVENT).inspection).toMatchObject({
      id: 'c',
      state: 'running',
      startedAtMs: 5,
    });
    expect(withStatuses(wire.ContainerEventType.CONTAINER_CREATED_EVENT).inspection).toBeUndefined();
    expect(told()).toMatchObject({ sandboxId: undefined, podUid: undefined });
  });

  it('an exit is the container’s only where the process is', () => {
    const exit = (id: string) =>
      envelope('/tasks/exit', TaskExit.encode(TaskExit.fromPartial({ containerId: 'c', id })).finish());
    expect(eventOfEnvelope(exit('c'))).toMatchObject({ kind: 'stopped', containerId: 'c' });
    expect(eventOfEnvelope(exit('some-exec'))).toBeUndefined();
    expect(eventOfEnvelope(envelope('/tasks/paused', subject))).toBeUndefined();
  });
});
