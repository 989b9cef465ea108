import { describe, expect, it } from 'vitest';
import type { Node, RuntimeClass } from '../../kube/types/core.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import type { ObservedContainer } from './observed.ts';
import { createRuntimeHandlers } from './runtime-handlers.ts';
import { containerExtras } from './status-extras.ts';

const container = (recursiveReadOnly?: 'IfPossible' | 'Enabled'): Container => ({
  name: 'c',
  volumeMounts: [
    { name: 'v', mountPath: 'data/', readOnly: true, ...(recursiveReadOnly ? { recursiveReadOnly } : {}) },
  ],
});
const made = (recursiveReadOnly: boolean) =>
  ({ mounts: [{ containerPath: '/data/', recursiveReadOnly }] }) as unknown as ObservedContainer;

describe('what is shown of mounts', () => {
  it.each([
    ['not made, not asked', undefined, undefined, true, 'Disabled'],
    ['not made, asked, can', 'IfPossible', undefined, true, 'Enabled'],
    ['not made, asked, cannot', 'IfPossible', undefined, false, 'Disabled'],
    ['not made, demanded', 'Enabled', undefined, false, 'Enabled'],
    ['made so', 'IfPossible', made(true), false, 'Enabled'],
    ['made otherwise', 'IfPossible', made(false), true, 'Disabled'],
  ] as const)('recursive read-only: %s', (_name, asked, observed, can, expected) => {
    const { volumeMounts } = containerExtras(container(asked), observed, { recursiveReadOnly: can });
    expect(volumeMounts).toEqual([{ name: 'v', mountPath: 'data/', readOnly: true, recursiveReadOnly: expected }]);
  });
});

describe('runtime handlers', () => {
  it('are found behind their class, and asked what they can', async () => {
    const features = (recursiveReadOnlyMounts: boolean) => ({ recursiveReadOnlyMounts, userNamespaces: false });
    const node = {
      status: {
        runtimeHandlers: [
          { name: '', features: features(true) },
          { name: 'vm', features: features(false) },
        ],
      },
    } as unknown as Node;
    const handlers = createRuntimeHandlers({
      get: async (name) => (name === 'gone' ? undefined : ({ handler: name === 'same' ? '' : 'vm' } as RuntimeClass)),
      node: () => node,
    });
    const pod = (runtimeClassName?: string): Pod => ({
      metadata: { name: 'p' },
      spec: { containers: [], ...(runtimeClassName ? { runtimeClassName } : {}) },
    });
    expect([handlers.recursiveReadOnly(pod()), handlers.recursiveReadOnly(pod('same'))]).toEqual([true, false]);
    for (const name of ['same', 'other', 'gone']) await handlers.runtimeClass(name);
    expect(['same', 'other', 'gone'].map((name) => handlers.recursiveReadOnly(pod(name)))).toEqual([
      true,
      false,
      false,
    ]);
  });
});
