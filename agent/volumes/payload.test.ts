import { describe, expect, it } from 'vitest';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { configMapPayload, downwardPayload, nestedMountPoints, secretPayload, sharedRunAsUser } from './payload.ts';

const shown = (files: ReturnType<typeof configMapPayload>): Record<string, [string, string]> =>
  Object.fromEntries(
    [...files].map(([path, { data, mode }]) => [path, [Buffer.from(data).toString('utf8'), mode.toString(8)]]),
  );
const base64 = (text: string): string => Buffer.from(text).toString('base64');
const metadata = { name: 'x' };

describe('the files of a ConfigMap', () => {
  const configMap = { metadata, data: { a: 'ä' }, binaryData: { b: base64('bin') } };
  it('are its keys', () =>
    expect(shown(configMapPayload(configMap, { defaultMode: 0o644, optional: false }))).toEqual({
      a: ['ä', '644'],
      b: ['bin', '644'],
    }));
  it('are the items alone, where there are any', () =>
    expect(
      shown(
        configMapPayload(configMap, {
          defaultMode: 0o600,
          optional: false,
          items: [
            { key: 'a', path: 'x/y' },
            { key: 'b', path: 'z', mode: 0o400 },
          ],
        }),
      ),
    ).toEqual({ 'x/y': ['ä', '600'], z: ['bin', '400'] }));
  it('are none where it may be missing', () =>
    expect(configMapPayload(undefined, { defaultMode: 0, optional: true, items: [{ key: 'a', path: 'a' }] }).size).toBe(
      0,
    ));
  it('need every key that is named', () => {
    const options = { defaultMode: 0, optional: false, items: [{ key: 'no', path: 'a' }] };
    expect(() => configMapPayload(configMap, options)).toThrow('configmap references non-existent config key: no');
    expect(() => secretPayload({ metadata, data: {} }, options)).toThrow('references non-existent secret key: no');
  });
});

describe('the files of the downward API', () => {
  const pod: Pod = { metadata: { name: 'p' }, spec: { containers: [{ name: 'c' }] } };
  const context = { allocatable: { memory: '1Gi' }, hostIPs: [], podIPs: [] };
  it('say what is wrong with each', () =>
    expect(() =>
      downwardPayload(
        [
          { path: 'a', fieldRef: { fieldPath: 'spec.no' } },
          { path: 'b', resourceFieldRef: { containerName: 'no', resource: 'limits.cpu' } },
        ],
        pod,
        context,
        0o644,
      ),
    ).toThrow('[field label not supported: spec.no, container no not found]'));
  it('take the node for a limit that is not set', () =>
    expect(
      shown(
        downwardPayload(
          [{ path: 'm', resourceFieldRef: { containerName: 'c', resource: 'limits.memory', divisor: '1Mi' } }],
          pod,
          context,
          0o644,
        ),
      ),
    ).toEqual({ m: ['1024', '644'] }));
});

describe('the user that all containers share', () => {
  const user = (id?: number): Container => ({
    name: 'c',
    ...(id === undefined ? {} : { securityContext: { runAsUser: id } }),
  });
  it.each([
    ['one', [user(1)], undefined, 1],
    ['the same', [user(1), user(1)], undefined, 1],
    ['two', [user(1), user(2)], undefined, undefined],
    ['none', [user(1), user()], undefined, undefined],
    ['from the pod', [user(), user(5)], 5, 5],
    ['root', [user(0)], undefined, 0],
  ])('%s', (_, containers, ofPod, expected) =>
    expect(
      sharedRunAsUser({
        metadata,
        spec: { containers, ...(ofPod === undefined ? {} : { securityContext: { runAsUser: ofPod } }) },
      }),
    ).toBe(expected),
  );
});

describe('places for nested mounts', () => {
  const pod = (mounts: readonly (readonly [string, string])[]): Pod => ({
    metadata,
    spec: { containers: [{ name: 'c', volumeMounts: mounts.map(([name, mountPath]) => ({ name, mountPath })) }] },
  });
  it.each([
    [
      'none',
      [
        ['a', '/a'],
        ['b', '/ab'],
      ],
      [],
    ],
    [
      'one',
      [
        ['a', '/a'],
        ['b', '/a/b'],
      ],
      ['b'],
    ],
    [
      'the outer of two',
      [
        ['a', '/a'],
        ['b', '/a/b'],
        ['c', '/a/b/c'],
        ['d', '/a/b-d'],
      ],
      ['b', 'b-d'],
    ],
    [
      'with slashes',
      [
        ['a', '/a/'],
        ['b', '/a//b/'],
      ],
      ['b'],
    ],
  ] as const)('%s', (_, mounts, expected) => expect(nestedMountPoints('a', pod(mounts))).toEqual(expected));
});
