import { describe, expect, it } from 'vitest';
import type { Container, Pod, VolumeMount } from '../../kube/types/pod.ts';
import { containerMounts, subPathOf } from './container-mounts.ts';
import { volumePaths } from './paths.ts';
import type { MountedVolume, VolumeHost } from './volume-driver.ts';

const host = {
  paths: volumePaths('/root'),
  node: () => undefined,
  supportsRecursiveReadOnly: () => true,
} as unknown as VolumeHost;
const volume: MountedVolume = { plugin: 'p', path: '/host/v', readOnly: false, managed: false };
const pod: Pod = { metadata: { name: 'p' }, spec: { containers: [] } };

const mountsOf = (mount: VolumeMount, mounted: MountedVolume = volume, supported = true) => {
  const container: Container = { name: 'c', volumeMounts: [mount] };
  const volumes = new Map([['v', mounted]]);
  const where = { ...host, supportsRecursiveReadOnly: () => supported };
  return containerMounts(where, { pod, uid: 'u', container, env: {}, volumes, signal: new AbortController().signal });
};

describe('containerMounts', () => {
  it.each([
    [{}, { readonly: false, propagation: 'private', recursiveReadOnly: false }],
    [{ readOnly: true }, { readonly: true }],
    [{ mountPropagation: 'HostToContainer' }, { propagation: 'host-to-container' }],
    [{ mountPropagation: 'Bidirectional' }, { propagation: 'bidirectional' }],
    [{ mountPropagation: 'None' }, { propagation: 'private' }],
    [{ readOnly: true, recursiveReadOnly: 'Enabled' }, { recursiveReadOnly: true }],
    [{ readOnly: true, recursiveReadOnly: 'IfPossible' }, { recursiveReadOnly: true }],
    [{ readOnly: true, recursiveReadOnly: 'Disabled' }, { recursiveReadOnly: false }],
    [{ mountPath: 'rel/ative' }, { containerPath: '/rel/ative' }],
  ] as const)('%j', async (more, expected) => {
    const { mounts } = await mountsOf({ name: 'v', mountPath: '/x', ...more });
    expect(mounts[0]).toMatchObject({ hostPath: '/host/v', ...expected });
  });

  it.each([
    [{ recursiveReadOnly: 'Enabled' }, 'it is not read-only'],
    [
      { readOnly: true, recursiveReadOnly: 'Enabled', mountPropagation: 'Bidirectional' },
      'not compatible with propagation "Bidirectional"',
    ],
    [{ name: 'other' }, 'cannot find volume "other" to mount into container "c"'],
  ] as const)('refuses %j', async (more, message) => {
    await expect(mountsOf({ name: 'v', mountPath: '/x', ...more })).rejects.toThrow(message);
  });

  it('refuses recursive read-only where the runtime has none, unless it is only a wish', async () => {
    const mount = { name: 'v', mountPath: '/x', readOnly: true } as const;
    await expect(mountsOf({ ...mount, recursiveReadOnly: 'Enabled' }, volume, false)).rejects.toThrow(
      'it is not supported by the runtime',
    );
    const { statuses } = await mountsOf({ ...mount, recursiveReadOnly: 'IfPossible' }, volume, false);
    expect(statuses).toEqual([{ name: 'v', mountPath: '/x', readOnly: true, recursiveReadOnly: 'Disabled' }]);
  });

  it('mounts an image by its name, with its subPath', async () => {
    const image: MountedVolume = { plugin: 'i', image: { image: 'sha256:x' }, readOnly: true, managed: true };
    const { mounts } = await mountsOf({ name: 'v', mountPath: '/x', subPath: 'a' }, image);
    expect(mounts[0]).toMatchObject({ hostPath: '', image: { image: 'sha256:x' }, imageSubPath: 'a', readonly: true });
  });

  it('gives a device no more than the volume allows', async () => {
    const container: Container = { name: 'c', volumeDevices: [{ name: 'v', devicePath: '/dev/x' }] };
    const device: MountedVolume = { plugin: 'p', device: '/link', readOnly: true, managed: false };
    const request = {
      pod,
      uid: 'u',
      container,
      env: {},
      volumes: new Map([['v', device]]),
      signal: new AbortController().signal,
    };
    expect((await containerMounts(host, request)).devices).toEqual([
      { containerPath: '/dev/x', hostPath: '/link', permissions: 'r' },
    ]);
  });
});

describe('subPathOf', () => {
  const of = (mount: Partial<VolumeMount>, env: Record<string, string> = {}) =>
    subPathOf({ name: 'v', mountPath: '/x', ...mount }, env);
  it.each([
    [{}, ''],
    [{ subPath: 'a/b' }, 'a/b'],
    [{ subPathExpr: '$(A)/$(B)' }, '1/2'],
    [{ subPathExpr: '$$(A)' }, '$(A)'],
    [{ subPathExpr: '$A $(' }, '$A $('],
  ])('%j is "%s"', (mount, expected) => expect(of(mount, { A: '1', B: '2' })).toBe(expected));
  it.each([
    [{ subPathExpr: '$(Z)$(Y)' }, 'missing value for Y, Z'],
    [{ subPathExpr: '$(E)' }, 'missing value for E'],
    [{ subPath: '/a' }, 'must not be an absolute path'],
    [{ subPath: 'a/../b' }, "must not contain '..'"],
  ])('refuses %j', (mount, message) => expect(() => of(mount, { E: '' })).toThrow(message));
  it('does not take what every object has for a variable', () =>
    expect(() => of({ subPathExpr: '$(constructor)' })).toThrow('missing value for constructor'));
});
