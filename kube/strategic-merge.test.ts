import { describe, expect, it } from 'vitest';
import { applyJsonPatch, applyMergePatch, applyStrategicMergePatch, PatchError } from './strategic-merge.ts';

describe('merge patch', () => {
  // The examples of RFC 7386, appendix A.
  it.each([
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [
      ['a', 'b'],
      ['c', 'd'],
      ['c', 'd'],
    ],
    [{ a: 'b' }, ['c'], ['c']],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: 'b', c: null }, { a: 'b' }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ])('%j with %j is %j', (target, patch, expected) => {
    const before = structuredClone(target);
    expect(applyMergePatch(target, patch)).toEqual(expected);
    expect(target).toEqual(before);
  });

  it('does not let a key reach the prototype', () => {
    const result = applyMergePatch({}, JSON.parse('{"__proto__":{"polluted":true}}'));
    expect((result as { polluted?: boolean }).polluted).toBeUndefined();
  });
});

describe('strategic merge patch', () => {
  const pod = {
    metadata: { name: 'web', finalizers: ['a', 'b'] },
    spec: {
      containers: [
        { name: 'one', image: 'one:1', args: ['x', 'y'], env: [{ name: 'A', value: '1' }] },
        { name: 'two', image: 'two:1' },
      ],
      tolerations: [{ key: 'k' }],
      volumes: [{ name: 'v', emptyDir: {} }],
    },
    status: {
      conditions: [
        { type: 'Initialized', status: 'True' },
        { type: 'Ready', status: 'False', reason: 'NotYet' },
      ],
      containerStatuses: [{ name: 'one' }, { name: 'two' }],
      podIPs: [{ ip: '10.0.0.1' }],
    },
  };
  const patched = (patch: unknown, kind = 'Pod', target: unknown = pod): typeof pod =>
    applyStrategicMergePatch(target, patch, kind) as typeof pod;

  it('merges containers by name and their env by name, replaces args', () => {
    const result = patched({
      spec: { containers: [{ name: 'one', args: ['z'], env: [{ name: 'B', value: '2' }] }] },
    });
    expect(result.spec.containers.find((container) => container.name === 'one')).toEqual({
      name: 'one',
      image: 'one:1',
      args: ['z'],
      env: [
        // As upstream: what a patch adds comes before what it does not name.
        { name: 'B', value: '2' },
        { name: 'A', value: '1' },
      ],
    });
    expect(result.spec.containers).toHaveLength(2);
    expect(pod.spec.containers[0]!.args).toEqual(['x', 'y']);
  });

  it('merges conditions by type and takes containerStatuses and tolerations whole', () => {
    const result = patched({
      spec: { tolerations: [{ key: 'other' }] },
      status: { conditions: [{ type: 'Ready', status: 'True', reason: null }], containerStatuses: [{ name: 'one' }] },
    });
    expect(result.status.conditions).toEqual([
      { type: 'Initialized', status: 'True' },
      { type: 'Ready', status: 'True' },
    ]);
    expect(result.status.containerStatuses).toEqual([{ name: 'one' }]);
    expect(result.spec.tolerations).toEqual([{ key: 'other' }]);
  });

  it('deletes an item by $patch: delete and takes what $setElementOrder says as the order', () => {
    const result = patched({
      spec: {
        '$setElementOrder/containers': [{ name: 'three' }, { name: 'two' }],
        containers: [
          { name: 'one', $patch: 'delete' },
          { name: 'three', image: 'three:1' },
        ],
      },
    });
    expect(result.spec.containers.map((container) => container.name)).toEqual(['three', 'two']);
  });

  it('orders by $setElementOrder alone', () => {
    const result = patched({ spec: { '$setElementOrder/containers': [{ name: 'two' }, { name: 'one' }] } });
    expect(result.spec.containers.map((container) => container.name)).toEqual(['two', 'one']);
  });

  it('replaces a list or an object by $patch: replace', () => {
    const result = patched({
      spec: { containers: [{ name: 'new', image: 'new:1' }, { $patch: 'replace' }] },
      metadata: { $patch: 'replace', name: 'other' },
    });
    expect(result.spec.containers).toEqual([{ name: 'new', image: 'new:1' }]);
    expect(result.metadata).toEqual({ name: 'other' });
  });

  it('keeps only what $retainKeys names', () => {
    const result = patched({
      spec: { volumes: [{ name: 'v', $retainKeys: ['name', 'hostPath'], hostPath: { path: '/' } }] },
    });
    expect(result.spec.volumes).toEqual([{ name: 'v', hostPath: { path: '/' } }]);
    expect(() => patched({ spec: { volumes: [{ name: 'v', $retainKeys: ['name'], hostPath: {} }] } })).toThrow(
      PatchError,
    );
  });

  it('treats finalizers as a set, and deletes from it', () => {
    expect(patched({ metadata: { finalizers: ['b', 'c'] } }).metadata.finalizers).toEqual(['a', 'b', 'c']);
    expect(patched({ metadata: { '$deleteFromPrimitiveList/finalizers': ['a'] } }).metadata.finalizers).toEqual(['b']);
  });

  it('merges ports of a container by containerPort and of a Service by port, addresses of a Node by type', () => {
    const service = { spec: { ports: [{ port: 80, name: 'web' }] } };
    expect(applyStrategicMergePatch(service, { spec: { ports: [{ port: 443 }] } }, 'Service')).toEqual({
      spec: { ports: [{ port: 443 }, { port: 80, name: 'web' }] },
    });
    const node = { status: { addresses: [{ type: 'InternalIP', address: '1.1.1.1' }] } };
    expect(
      applyStrategicMergePatch(node, { status: { addresses: [{ type: 'InternalIP', address: '2.2.2.2' }] } }, 'Node'),
    ).toEqual({ status: { addresses: [{ type: 'InternalIP', address: '2.2.2.2' }] } });
  });

  it('refuses an item without its merge key, and an unknown directive', () => {
    expect(() => patched({ spec: { containers: [{ image: 'x' }] } })).toThrow(/containers.*lacks name/);
    expect(() => patched({ spec: { $patch: 'twist' } })).toThrow(/twist/);
  });
});

describe('JSON patch', () => {
  it.each([
    [{ a: 1 }, [{ op: 'add', path: '/b', value: 2 }], { a: 1, b: 2 }],
    [{ a: [1, 3] }, [{ op: 'add', path: '/a/1', value: 2 }], { a: [1, 2, 3] }],
    [{ a: [1] }, [{ op: 'add', path: '/a/-', value: 2 }], { a: [1, 2] }],
    [{ a: [1, 2] }, [{ op: 'remove', path: '/a/0' }], { a: [2] }],
    [
      { 'a/b': 1, 'c~d': 1 },
      [
        { op: 'replace', path: '/a~1b', value: 2 },
        { op: 'remove', path: '/c~0d' },
      ],
      { 'a/b': 2 },
    ],
    [{ a: { b: 1 } }, [{ op: 'move', from: '/a/b', path: '/c' }], { a: {}, c: 1 }],
    [{ a: [1, 2, 3] }, [{ op: 'replace', path: '/a/1', value: 9 }], { a: [1, 9, 3] }],
    [
      { a: { b: 1 } },
      [
        { op: 'copy', from: '/a', path: '/c' },
        { op: 'test', path: '/c/b', value: 1 },
      ],
      { a: { b: 1 }, c: { b: 1 } },
    ],
    [{ a: 1 }, [{ op: 'replace', path: '', value: { b: 1 } }], { b: 1 }],
  ])('%j with %j is %j', (target, patch, expected) => {
    const before = structuredClone(target);
    expect(applyJsonPatch(target, patch)).toEqual(expected);
    expect(target).toEqual(before);
  });

  it.each([
    [{ op: 'test', path: '/a', value: 2 }, 'failed'],
    [{ op: 'remove', path: '/z' }, 'failed'],
    [{ op: 'replace', path: '/z', value: 1 }, 'failed'],
    [{ op: 'add', path: '/a/b', value: 1 }, 'failed'],
    [{ op: 'twist', path: '/a' }, 'invalid'],
    [{ op: 'add', path: 'a', value: 1 }, 'invalid'],
    [{ op: 'add', path: '/b' }, 'invalid'],
  ])('refuses %j as %s', (operation, code) => {
    try {
      applyJsonPatch({ a: 1 }, [operation]);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(PatchError);
      expect((error as PatchError).code).toBe(code);
    }
  });
});
