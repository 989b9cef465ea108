import { beforeEach, describe, expect, it } from 'vitest';
import { createHistory } from '../kube/history.ts';
import { createFakeClock } from '../lib/fake-clock.ts';
import { Failure } from './failure.ts';
import { kindByName, type Obj } from './kinds.ts';
import { createRegistry, type Registry } from './registry.ts';

const context = { dryRun: false };
const pods = kindByName('pods');
let registry: Registry;

const codeOf = (work: () => unknown): number | undefined => {
  try {
    work();
    return undefined;
  } catch (error) {
    if (error instanceof Failure) return error.status.code;
    throw error;
  }
};

const newPod = (more: object = {}): Obj => ({
  metadata: { name: 'p', namespace: 'n', ...more },
  spec: { containers: [{ name: 'c', image: 'demo:1' }] },
});

beforeEach(() => {
  const clock = createFakeClock();
  registry = createRegistry(
    { clock, storage: createHistory<Obj>(clock.now()), random: () => 0.5 },
    { serviceCidr: '10.96.0.0/16' },
  );
  registry.create(kindByName('namespaces'), { metadata: { name: 'n' } }, context);
  registry.create(kindByName('serviceaccounts'), { metadata: { name: 'default', namespace: 'n' } }, context);
});

const bound = (): Obj => {
  registry.create(pods, newPod(), context);
  const current = registry.read(pods, 'n', 'p');
  return registry.collectionOf(pods).put({ ...current, spec: { ...(current.spec as object), nodeName: 'node' } });
};

describe('registry', () => {
  it('refuses what is there, what has no namespace, and an update from an old version', () => {
    registry.create(pods, newPod(), context);
    expect(codeOf(() => registry.create(pods, newPod(), context))).toBe(409);
    expect(codeOf(() => registry.create(pods, newPod({ namespace: 'other' }), context))).toBe(404);
    const old = registry.read(pods, 'n', 'p');
    registry.update(pods, 'n', 'p', context, (current) => ({
      ...current,
      metadata: { ...current.metadata, labels: { a: 'b' } },
    }));
    expect(codeOf(() => registry.update(pods, 'n', 'p', context, () => old))).toBe(409);
  });

  it('counts generations for what is desired alone', () => {
    registry.create(pods, newPod(), context);
    const generation = (): number | undefined => registry.read(pods, 'n', 'p').metadata.generation;
    registry.update(pods, 'n', 'p', { ...context, part: 'status' }, (current) => ({
      ...current,
      status: { phase: 'Running' },
    }));
    registry.update(pods, 'n', 'p', context, (current) => ({
      ...current,
      metadata: { ...current.metadata, labels: { a: 'b' } },
    }));
    expect(generation()).toBe(1);
    registry.update(pods, 'n', 'p', context, (current) => ({
      ...current,
      spec: { ...(current.spec as object), activeDeadlineSeconds: 5 },
    }));
    expect(generation()).toBe(2);
    expect(registry.read(pods, 'n', 'p').status).toMatchObject({ phase: 'Running' });
  });

  it('keeps status and the rest apart', () => {
    registry.create(pods, newPod(), context);
    registry.update(pods, 'n', 'p', context, (current) => ({ ...current, status: { phase: 'Failed' } }));
    expect(registry.read(pods, 'n', 'p').status).toMatchObject({ phase: 'Pending' });
    registry.update(pods, 'n', 'p', { ...context, part: 'status' }, (current) => ({
      ...current,
      spec: {},
      status: { phase: 'Failed' },
    }));
    expect(registry.read(pods, 'n', 'p').spec).toMatchObject({ containers: [{ name: 'c' }] });
  });

  it('writes nothing where nothing changes', () => {
    registry.create(pods, newPod(), context);
    const before = registry.read(pods, 'n', 'p').metadata.resourceVersion;
    registry.update(pods, 'n', 'p', context, (current) => structuredClone(current));
    expect(registry.read(pods, 'n', 'p').metadata.resourceVersion).toBe(before);
  });

  it('deletes a pod that no node has at once, and one that a node has with grace', () => {
    registry.create(pods, newPod(), context);
    expect(registry.remove(pods, 'n', 'p', {}, context).gone).toBe(true);
    const { metadata } = bound();
    const { object, gone } = registry.remove(pods, 'n', 'p', {}, context);
    expect(gone).toBe(false);
    expect(object.metadata).toMatchObject({ deletionGracePeriodSeconds: 30, generation: 2 });
    // A longer grace changes nothing, a shorter one does.
    expect(
      registry.remove(pods, 'n', 'p', { gracePeriodSeconds: 60 }, context).object.metadata.deletionGracePeriodSeconds,
    ).toBe(30);
    expect(
      registry.remove(pods, 'n', 'p', { gracePeriodSeconds: 5 }, context).object.metadata.deletionGracePeriodSeconds,
    ).toBe(5);
    expect(
      codeOf(() =>
        registry.remove(pods, 'n', 'p', { gracePeriodSeconds: 0, preconditions: { uid: 'other' } }, context),
      ),
    ).toBe(409);
    expect(
      registry.remove(pods, 'n', 'p', { gracePeriodSeconds: 0, preconditions: { uid: metadata.uid! } }, context).gone,
    ).toBe(true);
  });

  it('holds an object until its finalizers are gone', () => {
    const maps = kindByName('configmaps');
    registry.create(maps, { metadata: { name: 'm', namespace: 'n', finalizers: ['x/y'] } }, context);
    expect(registry.remove(maps, 'n', 'm', {}, context).gone).toBe(false);
    expect(registry.read(maps, 'n', 'm').metadata.deletionTimestamp).toBeDefined();
    registry.update(maps, 'n', 'm', context, (current) => ({
      ...current,
      metadata: { ...current.metadata, finalizers: [] },
    }));
    expect(codeOf(() => registry.read(maps, 'n', 'm'))).toBe(404);
  });

  it('keeps a pod with finalizers after its node has let it go', () => {
    const current = bound();
    registry.collectionOf(pods).put({ ...current, metadata: { ...current.metadata, finalizers: ['x/y'] } });
    registry.remove(pods, 'n', 'p', {}, context);
    expect(registry.remove(pods, 'n', 'p', { gracePeriodSeconds: 0 }, context).gone).toBe(false);
    registry.update(pods, 'n', 'p', context, (now) => ({ ...now, metadata: { ...now.metadata, finalizers: [] } }));
    expect(codeOf(() => registry.read(pods, 'n', 'p'))).toBe(404);
  });

  it('changes nothing in a dry run', () => {
    registry.create(pods, newPod(), { ...context, dryRun: true });
    expect(codeOf(() => registry.read(pods, 'n', 'p'))).toBe(404);
  });
});
