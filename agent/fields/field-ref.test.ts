import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { fieldValue, formatMap } from './field-ref.ts';

const pod: Pod = {
  metadata: {
    name: 'web',
    namespace: 'shop',
    uid: 'u-1',
    labels: { b: '2', a: 'x"y\n' },
    annotations: { 'Example.com/Key': 'v', z: 'é\u0001\u200b' },
  },
  spec: { nodeName: 'n1', serviceAccountName: 'sa', containers: [] },
};
const context = { hostIPs: ['10.0.0.1', 'fd00::1'], podIPs: ['10.1.0.2', 'fd00:1::2'] };

describe('fieldValue', () => {
  it.each([
    ['metadata.name', 'web'],
    ['metadata.namespace', 'shop'],
    ['metadata.uid', 'u-1'],
    ['metadata.labels', 'a="x\\"y\\n"\nb="2"'],
    ['metadata.annotations', 'Example.com/Key="v"\nz="é\\x01\\u200b"'],
    ["metadata.labels['b']", '2'],
    ["metadata.labels['none']", ''],
    ["metadata.annotations['Example.com/Key']", 'v'],
    ['spec.nodeName', 'n1'],
    ['spec.serviceAccountName', 'sa'],
    ['status.hostIP', '10.0.0.1'],
    ['status.hostIPs', '10.0.0.1,fd00::1'],
    ['status.podIP', '10.1.0.2'],
    ['status.podIPs', '10.1.0.2,fd00:1::2'],
  ])('%s', (path, value) => expect(fieldValue(pod, path, context)).toBe(value));

  it.each([
    ['spec.foo', 'field label not supported: spec.foo'],
    ['status.phase', 'unsupported fieldPath: status.phase'],
    ["spec.foo['a']", "field label does not support subscript: spec.foo['a']"],
    ["metadata.labels['a b']", "invalid key subscript in metadata.labels['a b']"],
  ])('refuses %s', (path, message) => expect(() => fieldValue(pod, path, context)).toThrow(message));

  it('gives an empty text for an empty map', () => expect(formatMap({})).toBe(''));
});
