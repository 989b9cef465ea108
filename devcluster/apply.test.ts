import { describe, expect, it } from 'vitest';
import { serverSideApply } from './apply.ts';
import { Failure } from './failure.ts';
import { kindByName, type Obj } from './kinds.ts';

const deployments = kindByName('deployments');
const web = (containers: readonly object[], more: object = {}): Obj => ({
  metadata: { name: 'web', namespace: 'n', ...more },
  spec: { template: { spec: { containers } } },
});
const apply = (current: Obj | undefined, applied: Obj, fieldManager = 'a', force = false): Obj =>
  serverSideApply(deployments, current, applied, { fieldManager, force, now: 0 });
const containersOf = ({ spec }: Obj) =>
  (spec as { template: { spec: { containers: object[] } } }).template.spec.containers;
const managersOf = ({ metadata }: Obj) =>
  (metadata.managedFields as { manager: string }[]).map(({ manager }) => manager);

describe('serverSideApply', () => {
  it('keeps what was applied as FieldsV1, without what identifies the object', () => {
    const made = apply(undefined, web([{ name: 'c', image: 'i' }], { labels: { x: 'y' } }));
    expect(made.metadata.managedFields).toMatchObject([
      {
        manager: 'a',
        operation: 'Apply',
        apiVersion: 'apps/v1',
        fieldsV1: {
          'f:metadata': { 'f:labels': { 'f:x': {} } },
          'f:spec': {
            'f:template': {
              'f:spec': { 'f:containers': { 'k:{"name":"c"}': { '.': {}, 'f:name': {}, 'f:image': {} } } },
            },
          },
        },
      },
    ]);
  });

  it('merges lists by their key, and takes away what its applier no longer names and nobody else does', () => {
    const one = apply(
      undefined,
      web(
        [
          { name: 'c', image: 'i', tty: true },
          { name: 'd', image: 'j' },
        ],
        { labels: { x: 'y' } },
      ),
    );
    const both = apply(one, web([{ name: 'c', stdin: true }]), 'b');
    expect(containersOf(both)).toEqual([
      { name: 'c', image: 'i', tty: true, stdin: true },
      { name: 'd', image: 'j' },
    ]);
    const fewer = apply(both, web([{ name: 'c', image: 'i' }]));
    expect(containersOf(fewer)).toEqual([{ name: 'c', image: 'i', stdin: true }]);
    expect(fewer.metadata.labels).toBeUndefined();
    expect(managersOf(fewer)).toEqual(['b', 'a']);
  });

  it('refuses another value of what somebody else applied, unless it is forced', () => {
    const one = apply(undefined, web([{ name: 'c', image: 'i' }]));
    expect(() => apply(one, web([{ name: 'c', image: 'k' }]), 'b')).toThrow(
      'conflict with "a": .spec.template.spec.containers[{"name":"c"}].image',
    );
    expect(() => apply(one, web([{ name: 'c', image: 'k' }]), 'b')).toThrow(Failure);
    expect(apply(one, web([{ name: 'c', image: 'i' }]), 'b').metadata.managedFields).toHaveLength(2);
    const forced = apply(one, web([{ name: 'c', image: 'k' }]), 'b', true);
    expect(containersOf(forced)).toEqual([{ name: 'c', image: 'k' }]);
    // The first no longer owns it: when it stops naming it, it stays.
    expect(containersOf(apply(forced, web([{ name: 'c' }])))).toEqual([{ name: 'c', image: 'k' }]);
  });
});
